"""The shop that sends its messages at once, from within a transaction that may still be rolled back."""

from typing import Any

from examples.shop import app as shop
from examples.shop.app import SoldOut, app, place_order
from yeondong import Command, Event

__all__ = ["SoldOut", "app", "place_order"]


class Impatient:
    """An outbox in name only."""

    def add(self, tx: Any, *messages: Event | Command) -> None:
        for message in messages:
            if isinstance(message, Event):
                app.publish(message)
            else:
                app.send(message)


shop.outbox = Impatient()  # type: ignore[assignment]  # wrong on purpose: the demo must notice
