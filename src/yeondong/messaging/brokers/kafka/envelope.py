"""Messages as records of a topic, and back: CloudEvents 1.0 in binary mode.

The record's key is the message's key (CloudEvents' ``partitionkey``), its value the data, its time the time of sending.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from yeondong.core.codec import CONTENT_TYPE
from yeondong.core.message import NO_HEADERS, Kind, Message

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
Written: TypeAlias = list[tuple[str, str | bytes | None]]

SPEC_VERSION: Final = "ce_specversion"
ID: Final = "ce_id"
TYPE: Final = "ce_type"
SOURCE: Final = "ce_source"
TIME: Final = "ce_time"
KIND: Final = "ce_kind"
KEY: Final = "ce_partitionkey"
BINARY: Final = "ce_binaryheaders"
DATA_TYPE: Final = "content-type"

OWN: Final = frozenset({SPEC_VERSION, ID, TYPE, SOURCE, TIME, KIND, KEY, BINARY})
"""Names that a message's own headers cannot have."""

_SPEC_VERSION_1: Final = (SPEC_VERSION, b"1.0")
_JSON: Final = (DATA_TYPE, CONTENT_TYPE.encode())
_COMMAND: Final = (KIND, b"command")
_encode_time = msgspec.json.Encoder().encode
_decode_names = msgspec.json.Decoder(list[str]).decode


class Read(Struct, frozen=True):
    """A message as it was read, and what is broken about it."""

    message: Message
    flaw: str | None = None


def headers_of(message: Message) -> Written:
    """Return the record's headers. Built for each message sent, so that it does little.

    An event is what CloudEvents call so; a command says that it is one. Texts go as UTF-8; ``ce_binaryheaders`` names
    the headers that are bytes and would be read as text.
    """
    headers: Written = [_SPEC_VERSION_1, (ID, message.id), (TYPE, message.type)]
    if message.origin:
        headers.append((SOURCE, message.origin))
    at = message.occurred_at
    if at is not None:
        # A sixth of the time that isoformat takes, which knows offsets to the second too.
        headers.append((TIME, _encode_time(at)[1:-1] if at.tzinfo is UTC else at.isoformat()))
    if message.kind is not Kind.EVENT:
        headers.append(_COMMAND)
    if not message.headers:
        headers.append(_JSON)
        return headers
    return _with_own(message, headers)


def _with_own(message: Message, headers: Written) -> Written:
    if DATA_TYPE not in message.headers:
        headers.append(_JSON)
    headers.extend(message.headers.items())
    ambiguous = [name for name, value in message.headers.items() if isinstance(value, bytes) and _is_text(value)]
    if ambiguous:
        headers.append((BINARY, msgspec.json.encode(ambiguous)))
    return headers


def message_of(
    topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, headers: Headers | None
) -> Read:
    """Return a record as a message.

    A record without our headers, from a foreign program, is an event whose id says where it stands; its headers and
    key are carried. What cannot be read is told as a flaw.
    """
    found: dict[str, bytes | None] = dict(headers) if headers else {}
    try:
        return Read(_message(topic, partition, offset, key, value, found))
    except (ValueError, TypeError) as error:  # UnicodeDecodeError and msgspec's errors are ValueErrors
        bare = Message(
            f"kafka:{topic}/{partition}/{offset}",
            (found.get(TYPE) or b"").decode(errors="replace"),
            Kind.EVENT,
            topic,
            None if key is None else key.decode(errors="backslashreplace"),
            value,
        )
        return Read(bare, f"record {offset} of {topic}/{partition} cannot be read: {error}")


def _message(
    topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, found: dict[str, bytes | None]
) -> Message:
    found.pop(SPEC_VERSION, None)
    id, type, source, time, kind = (_popped(found, name) for name in (ID, TYPE, SOURCE, TIME, KIND))  # noqa: A001
    binary, named_key = found.pop(BINARY, None), found.pop(KEY, None)  # others write the key a second time
    if key is None:
        key = named_key
    if found.get(DATA_TYPE) == _JSON[1]:
        del found[DATA_TYPE]
    return Message(
        id or f"kafka:{topic}/{partition}/{offset}",
        type or "",
        Kind.EVENT if kind is None else Kind(kind),
        topic,
        None if key is None else key.decode(),
        value,
        _own(found, binary) if found else NO_HEADERS,
        source or "",
        None if time is None else datetime.fromisoformat(time),
    )


def _popped(found: dict[str, bytes | None], name: str) -> str | None:
    value = found.pop(name, None)
    return None if value is None else value.decode()


def _own(found: dict[str, bytes | None], binary: bytes | None) -> dict[str, str | bytes]:
    as_bytes = frozenset(_decode_names(binary)) if binary else frozenset()
    own: dict[str, str | bytes] = {}
    for name, value in found.items():
        if value is None:
            continue
        own[name] = value if name in as_bytes or not _is_text(value) else value.decode()
    return own


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
