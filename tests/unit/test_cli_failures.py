"""What the failure commands understand and say, before anything is done."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest

from yeondong import Event, Yeondong
from yeondong.cli.deciding import Verb, _consequences, _in_vain
from yeondong.cli.editing import _difference, _new_content
from yeondong.cli.failures import _lines, as_fields
from yeondong.cli.loading import Chosen
from yeondong.cli.payloads import compact, decoding_flaw, pretty, with_fields
from yeondong.cli.selecting import Asked, refuse_unknown_flow, sum_behind
from yeondong.cli.wording import NoTime
from yeondong.core.message import Kind, Message
from yeondong.core.store import Failure, FailureFilter
from yeondong.errors import UnknownName

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
NOTHING_ASKED: dict[str, Any] = {
    "ids": (), "flow": None, "type": None, "key": None, "error": None, "before": None, "every": False,
}  # fmt: skip


def failure(id: str = "h1", key: str | None = "7", behind: int = 0, **values: Any) -> Failure:
    content = values.pop("content", b'{"amount":1}')
    message = Message(f"m-{id}", "OrderPlaced", Kind.EVENT, "orders", key, content)
    return Failure(id, values.pop("flow", "orders/search"), message, 3, values.pop("error", "ValueError: x"), NOW,
                   values.pop("blocks", True), behind, **values)  # fmt: skip


# --- which ones -------------------------------------------------------------------------------------------------------


def test_ids_and_filters_make_a_filter() -> None:
    asked = Asked(**NOTHING_ASKED | {"ids": ("h1",), "error": "timeout", "before": "2026-01-31T03:00:00Z"})

    assert asked.filter() == FailureFilter(ids=("h1",), error="timeout", before=NOW)
    assert Asked(**NOTHING_ASKED | {"every": True}).filter() == FailureFilter()


@pytest.mark.parametrize("asked", [{}, {"every": True, "ids": ("h1",)}])
def test_nothing_is_never_taken_for_everything(asked: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError):
        Asked(**NOTHING_ASKED | asked).filter()


def test_a_filter_by_time_needs_an_offset() -> None:
    with pytest.raises(NoTime, match="--before"):
        Asked(**NOTHING_ASKED | {"before": "2026-01-31T03:00:00"}).filter()


def test_messages_behind_two_failures_of_one_key_count_once() -> None:
    found = [failure("h1", "7", 3), failure("h2", "7", 2), failure("h3", "8", 1), failure("h4", "7", 4, flow="other")]

    assert sum_behind(found) == 3 + 1 + 4


def test_a_flow_that_nobody_knows_is_told_with_those_that_are_known() -> None:
    app = Yeondong("shop")
    app.subscribe(OrderPlaced, group="search")(handle)
    counts = {"orders/old": 1}
    session: Any = SimpleNamespace(
        flows=SimpleNamespace(workers=list),
        failures=SimpleNamespace(count=lambda which: counts.get(which.flow, 0)),
    )

    for flow in (None, "orders/search", "orders/old"):
        refuse_unknown_flow(Chosen(app, "shop"), session, FailureFilter(flow=flow))
    with pytest.raises(UnknownName, match="no flow named 'orders/saerch'; known: orders/search"):
        refuse_unknown_flow(Chosen(app, "shop"), session, FailureFilter(flow="orders/saerch"))


# --- what would happen ------------------------------------------------------------------------------------------------


def test_a_dry_run_of_retry_says_what_follows() -> None:
    assert list(_consequences("retry", [failure(behind=2)], 1, ["no live worker has orders/search"])) == [
        "1 failure would be tried again, from the first attempt: h1",
        "  orders/search: 1 of OrderPlaced",
        "2 messages held behind: they then follow, in order within each key",
        "no live worker has orders/search",
    ]


def test_a_dry_run_of_retry_warns_of_what_has_been_overtaken() -> None:
    found = [failure("h1", blocks=False), failure("h2", "8", blocks=False), failure("h3", None, blocks=False)]

    one, both = (list(_consequences("retry", some, len(some), [])) for some in (found[:1], found))

    assert one[2] == "out of order: its key has gone on, so that later messages may have been handled before: h1"
    assert both[2].startswith("out of order: their keys have gone on, so that ")
    assert both[2].endswith(": h1, h2")
    assert "out of order" not in "".join(_consequences("discard", found, 3, []))
    assert "out of order" not in "".join(_consequences("retry", [failure()], 1, []))


def test_a_retry_that_may_be_in_vain_is_warned_of() -> None:
    app = Yeondong("shop")
    app.subscribe(OrderPlaced, group="search")(handle)
    ended = failure("h1", error="the process ended 3 times while this message was being handled")
    gone = msgspec.structs.replace(failure("h2").message, type="OrderGone")
    unknown = msgspec.structs.replace(failure("h2"), message=gone)

    assert list(_in_vain(app, [ended, unknown, failure("h3"), failure("h4", flow="outbox")])) == [
        "h1: its worker's process ended while it was handled; it may end its worker again",
        "orders/search has no handler for OrderGone in this app: with a worker of this version it fails again",
    ]


@pytest.mark.parametrize(
    ("behind", "verb", "says"),
    [
        (1, "retry", "1 message held behind: it then follows, in order within each key"),
        (2, "retry", "2 messages held behind: they then follow, in order within each key"),
        (1, "discard", "1 message held behind: it goes on without it, in order within each key"),
        (2, "discard", "2 messages held behind: they go on without it, in order within each key"),
    ],
)
def test_one_and_many_behind_are_told_apart(behind: int, verb: Verb, says: str) -> None:
    assert says in list(_consequences(verb, [failure(behind=behind)], 1, []))


def test_a_dry_run_of_discard_says_what_goes_on_without_it() -> None:
    found = [failure(f"h{number}", str(number), 1) for number in range(12)]

    lines = list(_consequences("discard", found, 40, []))

    assert lines[0].startswith("12 failures would be given up for good: the oldest of 40 (--limit); h0, h1, ")
    assert lines[0].endswith("h9, …")
    assert lines[2] == "12 messages held behind: they go on without them, in order within each key"


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_is_aligned_also_with_wide_letters() -> None:
    lines = list(_lines([failure("h1", "주문"), failure("h200", None, 2, edited=True)], NOW))

    assert lines == [
        "id    failed   flow           type         key   attempts  behind",
        "h1    0 s ago  orders/search  OrderPlaced  주문  3         0",
        "    ValueError: x",
        "h200  0 s ago  orders/search  OrderPlaced  -     3         2  edited",
        "    ValueError: x",
    ]


def test_a_key_or_an_error_cannot_steer_the_terminal() -> None:
    lines = list(_lines([failure(key="\x1b[2J", error="\x1b[31mred\nTraceback")], NOW))

    assert "\x1b" not in "".join(lines)
    assert lines[2] == "    \\x1b[31mred"


@pytest.mark.parametrize(
    ("content", "shown"), [(b'{"a": 1}', {"a": 1}), (b"{broken", "{broken"), (b"\xff", "\\xff"), (None, None)]
)
def test_json_has_the_payload_as_it_is(content: bytes | None, shown: Any) -> None:
    fields = msgspec.json.decode(msgspec.json.encode(as_fields(failure(content=content))))

    assert fields["message"]["data"] == shown
    assert fields["behind"] == 0


# --- payloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"a":1}', '{\n  "a": 1\n}'),
        (b"plain text", "plain text"),
        (b"\xff\x00", "\\xff\x00"),
        (None, "(none: a tombstone)"),
    ],
)
def test_a_payload_is_shown_whatever_it_is(content: bytes | None, shown: str) -> None:
    assert pretty(content) == shown


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        (["a=2"], b'{"a":2,"b":{"c":"x"}}'),
        (["a=two"], b'{"a":"two","b":{"c":"x"}}'),
        (['a="2"'], b'{"a":"2","b":{"c":"x"}}'),
        (["b.c=null", "new=[1]"], b'{"a":1,"b":{"c":null},"new":[1]}'),
        (["a=x=y"], b'{"a":"x=y","b":{"c":"x"}}'),
    ],
)
def test_fields_are_set_as_json_or_else_as_text(changes: Sequence[str], result: bytes) -> None:
    assert with_fields(b'{"a":1,"b":{"c":"x"}}', changes) == result


@pytest.mark.parametrize(
    ("content", "change", "says"),
    [
        (b"{}", "amount", "no field=value"),
        (b"{}", "=1", "no field=value"),
        (b"{}", "b.c=1", "there is no object b"),
        (b"[1]", "a=1", "there is no object at the top"),
        (b"{broken", "a=1", "use --data"),
    ],
)
def test_a_field_that_cannot_be_set_is_told(content: bytes, change: str, says: str) -> None:
    with pytest.raises(click.UsageError, match=says):
        with_fields(content, [change])


def test_new_content_comes_from_a_file_and_loses_its_indentation() -> None:
    assert _new_content(failure(), io.BytesIO(b'{\n  "amount": 2\n}\n'), ()) == b'{"amount":2}'
    assert compact(b"no json") == b"no json"


def test_the_difference_is_shown_before_it_is_made() -> None:
    lines = list(_difference(b'{"amount":1}', b'{"amount":2}'))

    assert '-  "amount": 1' in lines
    assert '+  "amount": 2' in lines


class OrderPlaced(Event, channel="orders"):
    amount: int


def handle(order: OrderPlaced) -> None: ...


@pytest.mark.parametrize("flow", ["orders/search", "outbox"])
def test_new_content_is_checked_where_the_app_knows_the_type(flow: str) -> None:
    app = Yeondong("shop")
    app.subscribe(OrderPlaced, group="search")(handle)

    assert decoding_flaw(app, flow, "OrderPlaced", b'{"amount":1}') == (True, None)
    known, flaw = decoding_flaw(app, flow, "OrderPlaced", b'{"amount":"1"}')
    assert known
    assert flaw is not None
    assert "Expected `int`, got `str`" in flaw
    assert decoding_flaw(app, flow, "OrderGone", b"anything") == (False, None)


class GuestInvited(Event, channel="guests"):
    age: int

    def __post_init__(self) -> None:
        if self.age < 18:
            raise AssertionError  # as ``assert`` does


def welcome(guest: GuestInvited) -> None: ...


def test_whatever_a_payload_class_raises_is_a_flaw_of_the_data() -> None:
    app = Yeondong("shop")
    app.subscribe(GuestInvited, group="door")(welcome)

    known, flaw = decoding_flaw(app, "guests/door", "GuestInvited", b'{"age":7}')

    assert known
    assert flaw == "the data does not decode as GuestInvited: AssertionError"
