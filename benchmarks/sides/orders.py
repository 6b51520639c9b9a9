"""The typed message of the sides: so many bytes of JSON. Its channel is what the run was given."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from yeondong import Event

KEYS = 1_000


class Order(Event, channel="orders", key="customer"):
    order_id: int
    customer: str
    note: str


def order_in(channel: str) -> type[Order]:
    """Return the same type in another channel."""
    return type("Order", (Order,), {"__module__": __name__, "__annotations__": {}}, channel=channel)


def make_orders(count: int, size: int, cls: type[Order] = Order) -> Iterator[Order]:
    """Make different orders, their keys in turn."""
    empty = len(msgspec.json.encode(Order(10_000_000, "customer-000", "")))
    note = "x" * (size - empty)
    return (cls(10_000_000 + number, f"customer-{number % KEYS:03}", note) for number in range(count))
