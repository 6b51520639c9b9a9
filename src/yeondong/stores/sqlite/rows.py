"""Messages as columns, and columns as messages."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import msgspec

from yeondong.core.message import NO_HEADERS, Kind, Message

PARTITIONS = 64

# In the order that `message` reads.
COLUMNS = "message_id, message_type, kind, channel, key, payload, headers, origin, occurred_at"
FIELDS = ":message_id, :message_type, :kind, :channel, :key, :payload, :headers, :origin, :occurred_at"

_KINDS = {kind.value: kind for kind in Kind}
_BYTES = '{"base64":'


def columns(message: Message) -> dict[str, Any]:
    """Return the values of ``COLUMNS`` by name."""
    return {
        "message_id": message.id,
        "message_type": message.type,
        "kind": message.kind.value,
        "channel": message.channel,
        "key": message.key,
        "payload": message.data,
        "headers": headers_text(message.headers),
        "origin": message.origin,
        "occurred_at": time_text(message.occurred_at),
    }


def message(row: Any, start: int = 0) -> Message:
    """Read ``COLUMNS`` from a row, the first of them at ``start``."""
    id, type, kind, channel, key, data, headers, origin, occurred_at = row[start : start + 9]  # noqa: A001
    return Message(
        id,
        type,
        _KINDS[kind],
        channel,
        key,
        data,
        NO_HEADERS if headers is None else headers_of(headers),
        origin,
        None if occurred_at is None else datetime.fromisoformat(occurred_at + "+00:00"),
    )


def foreign_message(row: Any, start: int = 0) -> tuple[Message, str | None]:
    """Read ``COLUMNS`` as ``message`` does, where others write too: of a broken row what can be read, and the flaw.

    A payload that was written as text is taken for what it means.
    """
    try:
        made = message(row, start)
    except (LookupError, ValueError, TypeError) as error:
        flaw = f"the row is broken: {error!r}"
    else:
        written: Any = made.data
        if isinstance(written, str):
            made = msgspec.structs.replace(made, data=written.encode())
        if _well_typed(made):
            return made, None
        flaw = "the row is broken: its payload is to be a blob, and all else text"
    id, type, _, channel, key, data = row[start : start + 6]  # noqa: A001
    bare = Message(
        _text(id),
        _text(type),
        Kind.EVENT,
        _text(channel),
        key if isinstance(key, str) else None,
        data if isinstance(data, bytes) else None,
    )
    return bare, flaw


def _well_typed(message: Message) -> bool:
    # SQLite's columns take values of any type, and a wrong one would fail much later, for all messages.
    return (
        type(message.id) is str
        and type(message.type) is str
        and type(message.channel) is str
        and type(message.origin) is str
        and (message.key is None or type(message.key) is str)
        and (message.data is None or type(message.data) is bytes)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def partition_of(message: Message) -> int:
    """Return the part of the outbox that a message belongs to, so that several relays can share the work one day."""
    return crc32((message.id if message.key is None else message.key).encode()) % PARTITIONS


def headers_text(headers: Mapping[str, str | bytes]) -> str | None:
    """Write headers as JSON, bytes as ``{"base64": …}``; nothing at all for none, which is the usual case."""
    if not headers:
        return None
    plain = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in headers.items()
    }
    return msgspec.json.encode(plain).decode()


def headers_of(text: str) -> Mapping[str, str | bytes]:
    """Read what ``headers_text`` wrote."""
    if _BYTES not in text:
        return msgspec.json.decode(text, type=dict[str, str])
    read = msgspec.json.decode(text, type=dict[str, str | dict[str, str]])
    return {
        name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value for name, value in read.items()
    }


def time_text(time: datetime | None) -> str | None:
    """Write a time as SQLAlchemy does for SQLite, in UTC, so that texts compare like times."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def time_of(text: str | None) -> datetime | None:
    """Read a time that ``time_text`` or SQLite wrote."""
    return None if text is None else datetime.fromisoformat(text + "+00:00")


def texts(ids: Collection[str]) -> str | None:
    """Write ids as JSON for ``json_each``; None for some that it would cut, at a NUL: foreign ids may have one."""
    array = msgspec.json.encode(list(ids)).decode()
    return None if "\\u0000" in array else array
