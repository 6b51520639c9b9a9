"""Payload classes say where their messages go; what can never be sent is refused where it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel

from yeondong.core.message import Kind, Message
from yeondong.errors import DeclarationError, MessageRefused
from yeondong.messaging.messages import Command, CommandMixin, Event, EventMixin, Payload, spec_of, to_message

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
NAIVE = datetime(2026, 11, 20, 9, 30)  # noqa: DTZ001 - naive on purpose
ID = UUID("12345678-1234-5678-1234-567812345678")
T = TypeVar("T")
MemberId = NewType("MemberId", int)


class OrderPlaced(Event, channel="orders", key="order_id"):
    order_id: int
    amount: int = 0


class GrantPoints(Command, channel="points", key="member_id", type="points.grant.v1"):
    member_id: str


@dataclass(frozen=True, slots=True)
class OrderPaid(EventMixin, channel="orders", key="order_id"):
    order_id: int


class SendLetter(CommandMixin, BaseModel, channel="letters"):
    member_id: str


def message_of(payload: Any, kind: Kind | None = None) -> Message:
    return to_message(payload, origin="/shop", new_id=lambda: "id-1", now=lambda: NOW, kind=kind)


# --- declaring


def test_a_message_carries_what_its_class_declares() -> None:
    assert message_of(OrderPlaced(42, 39_000)) == Message(
        id="id-1",
        type="OrderPlaced",
        kind=Kind.EVENT,
        channel="orders",
        key="42",
        data=b'{"order_id":42,"amount":39000}',
        origin="/shop",
        occurred_at=NOW,
    )


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (GrantPoints("7"), ("points.grant.v1", Kind.COMMAND, "points", "7", b'{"member_id":"7"}')),
        (OrderPaid(42), ("OrderPaid", Kind.EVENT, "orders", "42", b'{"order_id":42}')),
        (SendLetter(member_id="7"), ("SendLetter", Kind.COMMAND, "letters", None, b'{"member_id":"7"}')),
    ],
)
def test_dataclasses_and_models_are_payloads_too(payload: Any, expected: tuple[Any, ...]) -> None:
    message = message_of(payload)

    assert (message.type, message.kind, message.channel, message.key, message.data) == expected
    assert spec_of(type(payload)).decode(message.data or b"") == payload


def test_a_payload_may_have_fields_named_like_the_keywords() -> None:
    class Odd(Event, channel="odds", key="key"):
        key: str
        channel: int
        type: str = "x"

    message = message_of(Odd("k", 5))

    assert (message.channel, message.key, message.data) == ("odds", "k", b'{"key":"k","channel":5,"type":"x"}')


def test_a_subclass_takes_over_channel_and_key_and_has_a_type_of_its_own() -> None:
    class BigOrderPlaced(OrderPlaced):
        reason: str = ""

    @dataclass(frozen=True)
    class Refunded(OrderPaid, channel="refunds"):
        pass

    assert (spec_of(BigOrderPlaced).type, spec_of(BigOrderPlaced).channel) == ("BigOrderPlaced", "orders")
    assert (spec_of(Refunded).type, spec_of(Refunded).channel, spec_of(Refunded).key_field) == (
        "Refunded",
        "refunds",
        "order_id",
    )
    assert spec_of(OrderPlaced).type == "OrderPlaced"


def test_a_dataclass_that_is_made_anew_for_its_slots_keeps_what_was_declared() -> None:
    @dataclass(frozen=True, slots=True)
    class Slotted(EventMixin, channel="x", key="id", type="slotted.v2"):
        id: int

    spec = spec_of(Slotted)

    assert (spec.type, spec.channel, spec.key_field) == ("slotted.v2", "x", "id")


def test_a_class_is_looked_at_once() -> None:
    assert spec_of(OrderPlaced) is spec_of(OrderPlaced)


def test_a_payload_does_not_change() -> None:
    with pytest.raises(AttributeError):
        OrderPlaced(1).amount = 2  # type: ignore[misc]


def without_channel() -> None:
    class X(Event):
        id: int


def without_channel_on_a_dataclass() -> None:
    @dataclass
    class X(EventMixin):
        id: int


def with_an_empty_channel() -> None:
    class X(Event, channel=" "):
        id: int


def with_an_empty_type() -> None:
    class X(Event, channel="x", type=""):
        id: int


def with_a_key_that_is_no_field() -> None:
    class X(Event, channel="x", key="number"):
        id: int
        name: str


def with_a_float_key() -> None:
    class X(Event, channel="x", key="id"):
        id: float


def with_a_bool_key() -> None:
    class X(Event, channel="x", key="id"):
        id: bool


def with_a_list_key_on_a_model() -> None:
    class X(EventMixin, BaseModel, channel="x", key="id"):
        id: list[int]


def with_a_misspelt_keyword() -> None:
    class X(Event, chanel="x"):
        id: int


def with_a_misspelt_keyword_on_a_mixin() -> None:
    class X(EventMixin, channel="x", kye="id"):
        id: int


def that_changes() -> None:
    class X(Event, channel="x", frozen=False):  # type: ignore[misc]
        id: int


@pytest.mark.parametrize(
    ("declare", "sentence"),
    [
        (without_channel, r'X: it has no channel; say where its messages go: class X\(…, channel="orders"\)'),
        (without_channel_on_a_dataclass, "X: it has no channel"),
        (with_an_empty_channel, "X: ' ' is no channel name"),
        (with_an_empty_type, "X: type='' is no name; leave it out for 'X'"),
        (with_a_key_that_is_no_field, "X: the key 'number' is no field of it; its fields: id, name"),
        (with_a_float_key, "X: the key field 'id' is declared as .*float.*, which cannot be a key; keys are str, int"),
        (with_a_bool_key, "X: the key field 'id' is declared as .*bool.*, which cannot be a key"),
        (with_a_list_key_on_a_model, "X: the key field 'id' is declared as .*list.*, which cannot be a key"),
        (with_a_misspelt_keyword, "X: 'chanel' is an invalid keyword"),
        (with_a_misspelt_keyword_on_a_mixin, "X has no class keyword kye; known: channel, key, type"),
        (that_changes, "X: a message does not change; leave out frozen=False"),
    ],
)
def test_a_wrong_declaration_says_what_to_do(declare: Callable[[], None], sentence: str) -> None:
    with pytest.raises(DeclarationError, match=sentence):
        declare()


def test_a_mixin_alone_is_no_payload() -> None:
    class Bare(EventMixin, channel="x"):
        pass

    with pytest.raises(DeclarationError, match="Bare is no msgspec struct, no dataclass and no pydantic model"):
        spec_of(Bare)


@pytest.mark.parametrize("wrong", [int, Event, BaseModel, "OrderPlaced", OrderPlaced(1)])
def test_what_is_no_payload_class_is_refused(wrong: Any) -> None:
    with pytest.raises(DeclarationError, match="is no payload class; derive it from yeondong"):
        spec_of(wrong)


def test_a_class_of_the_other_kind_is_refused() -> None:
    with pytest.raises(DeclarationError, match="GrantPoints is a command, not an event; commands are sent"):
        spec_of(GrantPoints, Kind.EVENT)
    with pytest.raises(DeclarationError, match="OrderPaid is an event, not a command; events are published"):
        spec_of(OrderPaid, Kind.COMMAND)


# --- keys


class Color(StrEnum):
    RED = "red"


class Shade(str, Enum):  # noqa: UP042 - its own text is not its value, unlike StrEnum's
    DARK = "dark"


class Size(IntEnum):
    LARGE = 3


class Keyed(Event, channel="keys", key="key"):
    key: Any


@pytest.mark.parametrize(
    ("value", "key"),
    [("a", "a"), ("", ""), (-7, "-7"), (ID, str(ID)), (Color.RED, "red"), (Shade.DARK, "dark"), (Size.LARGE, "3")],
)
def test_a_key_is_a_str_an_int_or_a_uuid(value: Any, key: str) -> None:
    made = message_of(Keyed(value)).key

    assert made == key
    assert type(made) is str


@pytest.mark.parametrize("value", [None, True, 1.5, b"a", (1, 2), NOW])
def test_any_other_key_is_refused_with_type_field_and_value(value: Any) -> None:
    with pytest.raises(MessageRefused) as raised:
        message_of(Keyed(value))

    assert str(raised.value).startswith(f"Keyed.key is {value!r}, a {type(value).__name__}")


@pytest.mark.parametrize(
    ("text", "sentence"), [("a\0b", "a text with NUL"), ("\ud800", "half a surrogate pair")], ids=["NUL", "surrogate"]
)
def test_an_id_or_a_key_that_not_every_system_can_store_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(MessageRefused, match=rf"Keyed\.key is .*{sentence}|Keyed cannot be encoded.*surrogates"):
        message_of(Keyed(text))
    with pytest.raises(MessageRefused, match=f"the id .*{sentence}"):
        to_message(Keyed("k"), origin="/shop", new_id=lambda: text, now=lambda: NOW)


def test_an_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(MessageRefused, match="no str, but a UUID"):
        to_message(Keyed("k"), origin="/shop", new_id=lambda: UUID(int=7), now=lambda: NOW)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    "annotation", [MemberId, Annotated[int, "positive"], int | None, Color, Any, TypeVar("K", bound=str), "Undefined"]
)
def test_an_annotation_that_allows_a_key_is_accepted(annotation: Any) -> None:
    space = {"__annotations__": {"id": annotation}, "__module__": __name__}
    declared: Any = Payload("Declared", (Event,), space, channel="x", key="id")

    assert declared.__struct_fields__ == ("id",)


# --- datetimes


class Line(msgspec.Struct):
    at: datetime | None = None
    parts: "list[Line]" = []


@dataclass(frozen=True)
class Stamp:
    by: str
    at: date


class Visit(BaseModel):
    at: datetime | None = None


class Box(msgspec.Struct, Generic[T], frozen=True):
    it: T


class Timed(Event, channel="times"):
    at: datetime | None = None
    lines: list[Line] = msgspec.field(default_factory=list)
    stamps: tuple[Stamp, ...] = ()
    by_name: dict[str, Any] = msgspec.field(default_factory=dict)
    box: Box[datetime | int] = Box(1)
    days: set[datetime] = msgspec.field(default_factory=set)
    free: object = None


KOREA = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (Timed(at=NAIVE), "at"),
        (Timed(lines=[Line(), Line(parts=[Line(at=NAIVE)])]), "lines[1].parts[0].at"),
        (Timed(stamps=(Stamp("me", NAIVE),)), "stamps[0].at"),
        (Timed(by_name={"a": {"b": [1, NAIVE]}}), "by_name['a']['b'][1]"),
        (Timed(by_name={"a": Stamp("me", NAIVE)}), "by_name['a'].at"),
        (Timed(box=Box(NAIVE)), "box.it"),
        (Timed(days={NAIVE}), "days[0]"),
        (Timed(free=Visit(at=NAIVE).at), "free"),
    ],
)
def test_a_naive_datetime_is_refused_with_its_path(payload: Timed, path: str) -> None:
    with pytest.raises(MessageRefused) as raised:
        message_of(payload)

    assert str(raised.value).startswith(f"Timed.{path} is {NAIVE!r}, which has no time zone")


@pytest.mark.parametrize(
    "payload",
    [
        Timed(),
        Timed(at=NOW, lines=[Line(at=NOW.astimezone(KOREA))], stamps=(Stamp("me", date(2026, 1, 1)),)),
        Timed(by_name={"a": [NOW, "2026-11-20T09:30:00", time(9, 30)]}, days={NOW}),
    ],
)
def test_datetimes_with_a_time_zone_travel(payload: Timed) -> None:
    assert message_of(payload).data is not None


def test_a_models_datetimes_are_found_too() -> None:
    class Visited(EventMixin, BaseModel, channel="visits"):
        visit: Visit

    with pytest.raises(MessageRefused, match=r"Visited\.visit\.at is .* no time zone"):
        message_of(Visited(visit=Visit(at=NAIVE)))


class Word(msgspec.Struct):
    text: str
    next: "Word | None" = None


class Timeless(Event, channel="words"):
    number: int
    name: str | None
    ratio: float
    id: UUID
    color: Color
    words: list[Word]
    counts: dict[str, tuple[int, ...]]
    mode: Literal["a", "b"]
    lasts: timedelta
    opens: time


def test_classes_without_datetimes_are_not_walked() -> None:
    assert spec_of(Timeless).timed_fields == ()
    assert spec_of(OrderPaid).timed_fields == ()
    assert spec_of(SendLetter).timed_fields == ()


def test_only_fields_that_may_hold_a_datetime_are_walked() -> None:
    class Mixed(Event, channel="x"):
        number: int
        words: list[Word]
        lines: list[Line]
        anything: Any
        loose: list  # type: ignore[type-arg]

    assert spec_of(Mixed).timed_fields == ("lines", "anything", "loose")


# --- sending


@pytest.mark.parametrize(
    ("payload", "kind", "sentence"),
    [
        (OrderPlaced, None, r"OrderPlaced is a class; pass an instance of it: OrderPlaced\(…\)"),
        ("order 42", None, "'order 42' cannot be sent: .*str.* is no payload class"),
        (None, None, "None cannot be sent"),
        (GrantPoints("7"), Kind.EVENT, "cannot be sent: GrantPoints is a command, not an event; commands are sent"),
        (OrderPaid(1), Kind.COMMAND, "cannot be sent: OrderPaid is an event, not a command; events are published"),
        (OrderPlaced(1, object()), None, "OrderPlaced cannot be encoded as JSON: .*object"),  # type: ignore[arg-type]
        (OrderPlaced(1, "\ud800"), None, "OrderPlaced cannot be encoded as JSON: .*surrogates"),  # type: ignore[arg-type]
    ],
)
def test_what_can_never_be_sent_is_refused(payload: Any, kind: Kind | None, sentence: str) -> None:
    with pytest.raises(MessageRefused, match=sentence):
        message_of(payload, kind)


def test_a_payload_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(MessageRefused, match="nested too deeply, or contains itself"):
        message_of(Timed(free=endless))
