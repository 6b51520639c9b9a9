"""What a driver can promise, as values: read by the app, which refuses what asks for more, and by the suites."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Order(Enum):
    """The order in which a source hands over what was sent."""

    NONE = "none"
    KEY = "key"
    CHANNEL = "channel"


class Settles(Enum):
    """How a source forgets: each message, all up to one, or at once when it hands over."""

    EACH = "each"
    PREFIX = "prefix"
    NOTHING = "nothing"


class Partitions(Enum):
    """Who may read: the holder of a lease, whom the broker assigns, or everybody at once."""

    LEASED = "leased"
    ASSIGNED = "assigned"
    SHARED = "shared"


class Traits(Struct, frozen=True):
    """The promises of one driver. ``max_bytes`` bounds one message's data."""

    durable: bool
    order: Order
    settles: Settles
    partitions: Partitions
    max_bytes: int | None = None
    replay: bool = False
    one_writer: bool = False
