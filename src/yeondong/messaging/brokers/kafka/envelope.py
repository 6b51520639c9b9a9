"""Messages as records of a topic, and back: CloudEvents 1.0 in binary mode.

The record's key is the message's key (CloudEvents' ``partitionkey``), its value the data, its time the time of sending.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

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
STRUCTURED: Final = b"application/cloudevents+json"

OWN: Final = frozenset({SPEC_VERSION, ID, TYPE, SOURCE, TIME, KIND, KEY, BINARY})
"""Names that a message's own headers cannot have."""

_SPEC_VERSION_1: Final = (SPEC_VERSION, b"1.0")
_JSON: Final = (DATA_TYPE, CONTENT_TYPE.encode())
_COMMAND: Final = (KIND, b"command")
_JSON_TYPE: Final = CONTENT_TYPE.encode()
_AS_SENT: Final = (SPEC_VERSION, ID, TYPE, SOURCE, TIME, DATA_TYPE)
_EVENT: Final = Kind.EVENT
_encode_time = msgspec.json.Encoder().encode
_decode_names = msgspec.json.Decoder(list[str]).decode


class _Event(Struct):
    """A CloudEvent in structured mode: one JSON text with everything. Further attributes are not carried."""

    specversion: str
    id: str
    type: str
    source: str
    time: Annotated[datetime, Meta(tz=True)] | None = None
    partitionkey: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: bytes | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


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
    channel: str,
    origin: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
) -> tuple[Message, str | None]:
    """Return a record as a message, and what is broken about it.

    A record without our headers, from a foreign program, is an event without a type, whose id says where it stands:
    ``origin/partition/offset``. Its headers are carried. A key that is no text is escaped. CloudEvents in structured
    mode are understood.
    """
    if headers is not None and len(headers) == len(_AS_SENT):
        (n0, _), (n1, id), (n2, type), (n3, source), (n4, time), (n5, data_type) = headers  # noqa: A001
        if (n0, n1, n2, n3, n4, n5) == _AS_SENT and data_type == _JSON_TYPE:  # what an app sends mostly: no detours
            try:
                return Message(
                    id.decode(),  # type: ignore[union-attr]
                    type.decode(),  # type: ignore[union-attr]
                    _EVENT,
                    channel,
                    None if key is None else key.decode(),
                    value,
                    NO_HEADERS,
                    source.decode(),  # type: ignore[union-attr]
                    _time(time.decode()),  # type: ignore[union-attr]
                ), None
            except (AttributeError, ValueError):
                pass
    found: dict[str, bytes | None] = dict(headers) if headers else {}
    standing = f"{origin}/{partition}/{offset}"
    text_key = None if key is None else key.decode(errors="backslashreplace")
    try:
        if (found.get(DATA_TYPE) or b"").lower().startswith(STRUCTURED):
            return _structured(channel, text_key, value), None
        return _binary(channel, standing, text_key, value, dict(found)), None
    except ValueError as error:  # UnicodeDecodeError and msgspec's errors are ValueErrors
        kind = (found.get(TYPE) or b"").decode(errors="backslashreplace")
        bare = Message(standing, kind, _EVENT, channel, text_key, value)
        return bare, f"the record {standing.removeprefix('kafka:')} cannot be read: {error}"


def _structured(channel: str, key: str | None, value: bytes | None) -> Message:
    if value is None:
        raise ValueError("it says that it is a CloudEvent in JSON, and has no value")
    event = _decode_event(value)
    data = bytes(event.data) or event.data_base64
    given = event.datacontenttype
    return Message(
        event.id,
        event.type,
        _EVENT,
        channel,
        key if key is not None else event.partitionkey,
        data,
        NO_HEADERS if given is None or given == CONTENT_TYPE else {DATA_TYPE: given},
        event.source,
        event.time,
    )


def _binary(
    channel: str, standing: str, key: str | None, value: bytes | None, found: dict[str, bytes | None]
) -> Message:
    found.pop(SPEC_VERSION, None)
    id, type, source, time, kind = (_popped(found, name) for name in (ID, TYPE, SOURCE, TIME, KIND))  # noqa: A001
    binary, named_key = found.pop(BINARY, None), _popped(found, KEY)  # others write the key a second time
    if key is None:
        key = named_key
    if found.get(DATA_TYPE) == _JSON_TYPE:
        del found[DATA_TYPE]
    return Message(
        id or standing,
        type or "",
        _EVENT if kind is None else Kind(kind),
        channel,
        key,
        value,
        _own(found, binary) if found else NO_HEADERS,
        source or "",
        None if time is None else _time(time),
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{TIME} {text!r} has no offset")
    return time


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
