"""What a record can hold, known without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from yeondong.core.message import Message
from yeondong.messaging.brokers.kafka.envelope import OWN, headers_of
from yeondong.messaging.brokers.kafka.topics import why_no_topic

BESIDE_DATA: Final = 16_384
"""Bytes of a message that are left for its key and headers when its data is as large as may be."""

RECORD_BYTES: Final = 64
HEADER_BYTES: Final = 10
"""At most so many bytes a record, and each header, take besides their content."""

SMALL: Final = 8_192
"""Texts of fewer characters fit beside the data with all that surrounds them."""


class Limits:
    """How large a message may be: its data, and all of it."""

    def __init__(self, prefix: str, message_bytes: int) -> None:
        self.message_bytes = message_bytes
        self.data_bytes = message_bytes - BESIDE_DATA
        self._prefix = prefix
        self._channels: set[str] = set()

    def why_unsendable(self, message: Message) -> str | None:
        """Say why no topic can ever take this message."""
        try:
            plain = self._is_plain(message)
        except (AttributeError, TypeError):
            plain = False  # a text that is none: it is told below
        return None if plain else self._reason(message)

    def _is_plain(self, message: Message) -> bool:
        """See at a glance that a message is right, as nearly all are: each one is asked about, twice."""
        data, at = message.data, message.occurred_at
        texts = message.id + message.type + message.origin + (message.key or "")
        return (
            (data is None or (type(data) is bytes and len(data) <= self.data_bytes))
            and len(texts) < SMALL
            and texts.isascii()
            and message.channel in self._channels
            and (at is None or at.tzinfo is UTC)
            and not message.headers
        )

    def _reason(self, message: Message) -> str | None:
        data: Any = message.data
        if data is not None and not isinstance(data, bytes):
            return f"data is {type(data).__name__}, not bytes"
        if data is not None and len(data) > self.data_bytes:
            return f"data of {len(data)} bytes is larger than the limit of {self.data_bytes}"
        reason = _why_bad_text(message) or self._why_bad_channel(message.channel)
        if reason is not None:
            return reason
        if message.occurred_at is not None and message.occurred_at.utcoffset() is None:
            return f"occurred_at {message.occurred_at} has no time zone"
        reason = _why_bad_headers(message.headers) if message.headers else None
        return reason or self._why_too_large(message)

    def _why_bad_channel(self, channel: str) -> str | None:
        reason = why_no_topic(self._prefix + channel)
        if reason is not None:
            return f"channel {reason}"
        self._channels.add(channel)
        return None

    def _why_too_large(self, message: Message) -> str | None:
        size = _record_bytes(message)
        if size <= self.message_bytes:
            return None
        return f"with key and headers it has up to {size} bytes, more than the limit of {self.message_bytes}"


def _record_bytes(message: Message) -> int:
    content = [message.data or b"", (message.key or "").encode()]
    for name, value in headers_of(message):
        content += [name.encode(), value.encode() if isinstance(value, str) else value or b""]
    return RECORD_BYTES + HEADER_BYTES * len(content) + sum(map(len, content))


def _why_bad_text(message: Message) -> str | None:
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
    return None


def _why_bad_headers(headers: Mapping[str, str | bytes]) -> str | None:
    for name, value in headers.items():
        reason = _why_no_text(name) or (None if isinstance(value, bytes) else _why_no_text(value))
        if reason is not None:
            return f"header {name!r} {reason}"
        if "\0" in name or not name:
            return f"header {name!r} is no name of a header"
        if name in OWN:
            return f"header {name!r} is the message's own: what it says stands in the message already"
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
