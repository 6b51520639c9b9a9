"""Messages as columns, and columns as messages."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from zlib import crc32

import msgspec

from yeondong.core.message import NO_HEADERS, Kind, Message

PARTITIONS: Final = 64

# In the order that `message` reads, and `columns` writes.
COLUMNS: Final = 'message_id, message_type, kind, channel, "key", payload, headers, origin, occurred_at'

KINDS: Final = {kind.value: kind for kind in Kind}
ESCAPE: Final = "\x1a"
_BYTES: Final = '{"base64":'


def columns(message: Message) -> tuple[Any, ...]:
    """Return the values of ``COLUMNS``."""
    return (
        stored(message.id),
        stored(message.type),
        message.kind.value,
        stored(message.channel),
        None if message.key is None else stored(message.key),
        message.data,
        headers_text(message.headers),
        stored(message.origin),
        message.occurred_at,
    )


def message(row: Any, start: int = 0) -> Message:
    """Read ``COLUMNS`` from a row, the first of them at ``start``."""
    id, type, kind, channel, key, data, headers, origin, occurred_at = row[start : start + 9]  # noqa: A001
    return Message(
        loaded(id),
        loaded(type),
        KINDS[kind],
        loaded(channel),
        None if key is None else loaded(key),
        data,
        NO_HEADERS if headers is None else headers_of(headers),
        loaded(origin),
        in_utc(occurred_at),
    )


def foreign_message(row: Any, start: int = 0) -> tuple[Message, str | None]:
    """Read ``COLUMNS`` as ``message`` does, where others write too: of a broken row what can be read, and the flaw."""
    try:
        return message(row, start), None
    except (LookupError, ValueError, TypeError) as error:
        flaw = f"the row is broken: {error!r}"
    id, type, _, channel, key, data = row[start : start + 6]  # noqa: A001
    return Message(id, type, Kind.EVENT, channel, key, data), flaw


def partition_of(message: Message) -> int:
    """Return the part of the outbox that a message belongs to, so that several relays can share the work one day."""
    return crc32((message.id if message.key is None else message.key).encode()) % PARTITIONS


def stored(text: str) -> str:
    """Return a text as PostgreSQL takes it: without NUL, which ids and keys of others may have."""
    if "\0" in text or "\x1a" in text:
        return text.replace("\x1a", "\x1a1").replace("\0", "\x1a0")
    return text


def loaded(text: str) -> str:
    """Return the text that ``stored`` was given."""
    if "\x1a" in text:
        return text.replace("\x1a0", "\0").replace("\x1a1", "\x1a")
    return text


def in_utc(time: datetime | None) -> datetime | None:
    """Return a time as UTC; psycopg gives it in the time zone of the connection."""
    return None if time is None else time.astimezone(UTC)


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
