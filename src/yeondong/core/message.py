"""One message, whatever carries it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import Struct

LONGEST: Final = 500

NO_HEADERS: Mapping[str, str | bytes] = MappingProxyType({})


class Kind(StrEnum):
    """What a message means: a fact for whoever is interested, or a request to one receiver."""

    EVENT = "event"
    COMMAND = "command"


class Message(Struct, frozen=True, gc=False):
    """A message as it travels. ``data`` stays raw until a lane decodes it.

    ``id`` is the same for every repeat of one message; receivers know a repeat by it. ``data`` None is a tombstone.
    ``occurred_at`` has a time zone. On the wire this is a CloudEvents 1.0 event: ``origin`` is its ``source``, ``key``
    its ``partitionkey``.
    """

    id: str
    type: str
    kind: Kind
    channel: str
    key: str | None
    data: bytes | None
    headers: Mapping[str, str | bytes] = NO_HEADERS
    origin: str = ""
    occurred_at: datetime | None = None

    def size(self) -> int:
        """Bytes of the data, which is what limits count."""
        return len(self.data) if self.data is not None else 0


def order_key(message: Message) -> tuple[str, ...]:
    """Name what keeps the order: messages with equal values are handled one after the other.

    A message without a key stands alone: its id is its order.
    """
    key = message.key
    if key is None:
        return (message.id if len(message.id) <= LONGEST else brief(message.id),)
    return (message.channel, key if len(key) <= LONGEST else brief(key))


def brief(text: str) -> str:
    """Return an id or a key, or what stands for one that is longer than what an index takes; others make such."""
    if len(text) <= LONGEST:
        return text
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"
