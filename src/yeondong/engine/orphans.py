"""Messages whose loan ended while they were in work."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from yeondong.core.delivery import DONE, Delivery, Outcome, Settled, Unhandled


class Orphan(Struct, frozen=True):
    """What became of a message under its former loan.

    When it is lent again ``outcome`` is applied to the new loan; while it is None the message is not done, and only its
    ``attempt`` counts on.
    """

    attempt: int
    outcome: Outcome | None = None
    error: str | None = None


class Orphans:
    """Remembered by message id, so that a redelivery attaches to what was done; as many as were in flight."""

    def __init__(self) -> None:
        self._by_id: dict[str, Orphan] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def tried(self, deliveries: Iterable[Delivery]) -> None:
        """Remember the attempts of what was not finished."""
        self._by_id.update((d.message.id, Orphan(d.attempt)) for d in deliveries)

    def finished(self, deliveries: Iterable[Delivery]) -> None:
        """Remember what was done and could not be told to the source."""
        self._by_id.update((d.message.id, Orphan(d.attempt, DONE)) for d in deliveries)

    def ended(self, settled: Settled, delivery: Delivery) -> None:
        """Remember the outcome of one that was in work when its loan ended."""
        outcome = None if isinstance(settled.outcome, Unhandled) else settled.outcome
        self._by_id[delivery.message.id] = Orphan(delivery.attempt, outcome, settled.error)

    def pop(self, id: str) -> Orphan | None:
        """Take out what is known of a message that is lent again."""
        return self._by_id.pop(id, None)

    def clear(self) -> None:
        """Forget all: what is lent from now on is meant to be handled again."""
        self._by_id.clear()
