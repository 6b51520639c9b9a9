"""Messages as rows of the log, and back."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from yeondong.core.delivery import Delivery
from yeondong.core.message import NO_HEADERS, Kind, Message

MAX_BYTES: Final = 1 << 20  # of data, and as much of headers
ROW_BYTES: Final = 100  # id, type, times, index entries: without them, a log of empty messages would know no bound

INSERT: Final = (
    "INSERT INTO yeondong_broker_log"
    " (channel, stored_at, bytes, message_id, type, kind, key, headers, origin, occurred_at, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
BYTES_COLUMN: Final = 2
READ: Final = (
    "SELECT position, message_id, type, kind, key, headers, origin, occurred_at, data FROM yeondong_broker_log"
    " WHERE channel = ? AND position > ? ORDER BY position LIMIT ?"
)

_KINDS: Final = {str(kind): kind for kind in Kind}
_encode_headers = msgspec.json.Encoder().encode
_decode_headers = msgspec.json.Decoder(dict[str, str | dict[str, str]]).decode


def microseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def from_microseconds(at: int | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at / 1_000_000, UTC)


def row_of(message: Message, stored_at: int) -> tuple[Any, ...]:
    """Return the values of ``INSERT``."""
    headers = headers_text(message.headers) if message.headers else None
    key = message.key
    return (
        message.channel,
        stored_at,
        ROW_BYTES + message.size() + (len(headers) if headers else 0) + (len(key) if key else 0),
        message.id,
        message.type,
        message.kind.value,
        key,
        headers,
        message.origin,
        None if message.occurred_at is None else message.occurred_at.isoformat(),
        message.data,
    )


def delivery_of(row: Sequence[Any], channel: str) -> Delivery:
    """Return one row of ``READ`` as a delivery; what somebody else wrote, and is broken, has a flaw.

    Data that was written as text is taken for what it means.
    """
    position, id, type_, kind, key, headers, origin, occurred_at, data = row
    try:
        if type(data) is str:
            data = data.encode()
        _require_types(id, type_, key, origin, data)
        return Delivery(
            Message(
                id,
                type_,
                _KINDS[kind],
                channel,
                key,
                data,
                NO_HEADERS if headers is None else headers_of(headers),
                origin,
                None if occurred_at is None else datetime.fromisoformat(occurred_at),
            ),
            position,
            channel,
        )
    except (ValueError, KeyError, TypeError) as error:
        bare = Message(
            id if isinstance(id, str) else f"sqlite:{channel}/{position}",
            _text(type_),
            Kind.EVENT,
            channel,
            key if isinstance(key, str) else None,
            data if isinstance(data, bytes) else None,
            origin=_text(origin),
        )
        return Delivery(bare, position, channel, flaw=f"row {position} of the log is broken: {error!r}")


def _require_types(id: Any, type_: Any, key: Any, origin: Any, data: Any) -> None:
    # SQLite's columns take values of any type, and a wrong one would fail much later, for all messages.
    if not (
        type(id) is str
        and type(type_) is str
        and type(origin) is str
        and (key is None or type(key) is str)
        and (data is None or type(data) is bytes)
    ):
        raise TypeError("its data is to be a blob, and all else text")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def headers_text(headers: Mapping[str, str | bytes]) -> str:
    return _encode_headers(
        {
            name: value if isinstance(value, str) else {"base64": b64encode(value).decode()}
            for name, value in headers.items()
        }
    ).decode()


def headers_of(text: str) -> dict[str, str | bytes]:
    return {
        name: value if isinstance(value, str) else b64decode(value["base64"], validate=True)
        for name, value in _decode_headers(text).items()
    }


def why_unsendable(message: Message) -> str | None:
    """Say why the log can never take this message."""
    if message.size() > MAX_BYTES:
        return f"data of {message.size()} bytes is larger than the limit of {MAX_BYTES}"
    for name, text in (
        ("id", message.id),
        ("type", message.type),
        ("channel", message.channel),
        ("key", message.key),
        ("origin", message.origin),
    ):
        reason = None if text is None and name == "key" else _why_no_text(text)
        if reason is not None:
            return f"{name} {reason}"
    data: Any = message.data
    if data is not None and not isinstance(data, bytes):
        return f"data is {type(data).__name__}, not bytes"
    if message.occurred_at is not None and message.occurred_at.utcoffset() is None:
        return f"occurred_at {message.occurred_at} has no time zone"
    return _why_bad_headers(message.headers) if message.headers else None


def _why_bad_headers(headers: Mapping[str, str | bytes]) -> str | None:
    for name, value in headers.items():
        reason = _why_no_text(name) or (None if isinstance(value, bytes) else _why_no_text(value))
        if reason is not None:
            return f"header {name!r} {reason}"
    bytes_of_headers = len(headers_text(headers))
    if bytes_of_headers > MAX_BYTES:
        return f"headers of {bytes_of_headers} bytes are larger than the limit of {MAX_BYTES}"
    return None


def _why_no_text(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not text"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{text!r} cannot be written as UTF-8"
    return None
