"""What records of Kafka are read as, ours and those of foreign programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from yeondong.core.message import Kind, Message
from yeondong.messaging.brokers.kafka.envelope import headers_of, message_of

AT = datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC)
EVENT = Message("1", "order.placed", Kind.EVENT, "orders", "k", b"{}", {}, "/shop", AT)
SENT = [
    EVENT,
    msgspec.structs.replace(EVENT, headers={"traceparent": "00", "raw": b"\xff", "looks like text": b"x"}),
    msgspec.structs.replace(EVENT, headers={"content-type": "text/csv"}),
    msgspec.structs.replace(EVENT, kind=Kind.COMMAND, data=None, key=None),
    msgspec.structs.replace(EVENT, origin="", occurred_at=None),
]


def read(
    key: bytes | None = None, value: bytes | None = b"{}", headers: Any = None, origin: str = "kafka:shop.orders"
) -> tuple[Message, str | None]:
    return message_of("orders", origin, 3, 17, key, value, headers)


@pytest.mark.parametrize("sent", SENT)
def test_what_is_sent_is_read_as_it_was(sent: Message) -> None:
    on_the_wire = [(name, value.encode() if isinstance(value, str) else value) for name, value in headers_of(sent)]

    found = read(None if sent.key is None else sent.key.encode(), sent.data, on_the_wire)

    assert found == (sent, None)


def test_a_foreign_record_is_named_after_where_it_stands() -> None:
    message, flaw = read(b"k", b"[1]", [("source-app", b"crm"), ("raw", b"\xff"), ("nothing", None)])

    assert flaw is None
    assert (message.id, message.type, message.kind) == ("kafka:shop.orders/3/17", "", Kind.EVENT)
    assert (message.channel, message.key, message.data) == ("orders", "k", b"[1]")
    assert message.headers == {"source-app": "crm", "raw": b"\xff"}


def test_a_record_without_anything_is_a_tombstone() -> None:
    message, flaw = read(None, None, None)

    assert flaw is None
    assert (message.key, message.data, dict(message.headers)) == (None, None, {})


def test_a_key_that_is_no_text_is_escaped_and_keeps_its_order() -> None:
    first, flaw = read(b"\x00\x07\xff")
    second, _ = read(b"\x00\x08\xff")

    assert flaw is None
    assert first.key == "\x00\x07\\xff"
    assert first.key != second.key


@pytest.mark.parametrize(
    "header",
    [("ce_time", b"yesterday"), ("ce_time", b"2026-02-03T04:05:06"), ("ce_id", b"\xff"), ("ce_kind", b"wish")],
)
def test_what_cannot_be_read_is_told_and_its_data_kept(header: tuple[str, bytes]) -> None:
    message, flaw = read(b"k", b"[1]", [("ce_type", b"order.placed"), header])

    assert flaw is not None
    assert "shop.orders/3/17" in flaw
    assert (message.id, message.type, message.key, message.data) == (
        "kafka:shop.orders/3/17",
        "order.placed",
        "k",
        b"[1]",
    )


def test_a_broken_header_among_those_that_we_send_is_told_too() -> None:
    names = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type")
    values = (b"1.0", b"1", b"order.placed", b"/shop", b"soon", b"application/json")

    _, flaw = read(headers=list(zip(names, values, strict=True)))

    assert flaw is not None
    assert "soon" in flaw


def test_the_key_of_a_cloud_event_counts_where_the_record_has_none() -> None:
    message, _ = read(None, b"{}", [("ce_id", b"1"), ("ce_partitionkey", b"k")])

    assert message.key == "k"


STRUCTURED = [("content-type", b"application/cloudevents+json; charset=utf-8")]


def test_a_structured_cloud_event_is_understood() -> None:
    event = {
        "specversion": "1.0",
        "id": "7",
        "type": "order.placed",
        "source": "/crm",
        "time": "2026-02-03T04:05:06.789Z",
        "partitionkey": "k",
        "data": {"total": 3},
    }

    found = read(None, msgspec.json.encode(event), STRUCTURED)

    assert found == (Message("7", "order.placed", Kind.EVENT, "orders", "k", b'{"total":3}', {}, "/crm", AT), None)


def test_binary_data_of_a_structured_cloud_event() -> None:
    event = b'{"specversion":"1.0","id":"7","type":"t","source":"s","datacontenttype":"image/png","data_base64":"/w=="}'

    message, flaw = read(b"key", event, STRUCTURED)

    assert flaw is None
    assert (message.key, message.data, message.headers) == ("key", b"\xff", {"content-type": "image/png"})


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"specversion":"1.0"}', b"[]"])
def test_a_broken_structured_cloud_event_is_told(value: bytes | None) -> None:
    message, flaw = read(b"k", value, STRUCTURED)

    assert flaw is not None
    assert message.data == value
