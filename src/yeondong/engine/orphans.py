"""Messages whose loan ended while they were in work."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from yeondong.core.delivery import DONE, Delivery, Done, Outcome, Retry, Settled, Unhandled


class Orphan(Struct, frozen=True):
    """What became of a message under its former loan.

    When it is lent again ``outcome`` is applied to the new loan; while it is None the message is not done, and only its
    ``attempt`` counts on.
    """

    attempt: int
    outcome: Outcome | None = None
    error: str | None = None


class Orphans:
    """Remembered by message id, so that a redelivery attaches to what was done.

    Only so many, since what another reader got instead never comes back here. It is more than can be in flight: after
    an outage other partitions may be lent first, up to the next outage.

    Where no lease keeps others out (``alone`` False) another worker may have had the message in between and applied it.
    Then only Done still counts; what was to become of it otherwise has to show once more.
    """

    def __init__(self, most: int, *, alone: bool) -> None:
        self._alone = alone
        self._by_id: dict[str, Orphan] = {}
        self._most = most

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def tried(self, deliveries: Iterable[Delivery]) -> None:
        """Remember the attempts of what was not finished; what became of it under an older loan stays known."""
        for delivery in deliveries:
            if delivery.message.id not in self._by_id:
                self._remember(delivery, Orphan(delivery.attempt))

    def finished(self, deliveries: Iterable[Delivery]) -> None:
        """Remember what was done and could not be told to the source."""
        for delivery in deliveries:
            self._remember(delivery, Orphan(delivery.attempt, DONE))

    def ended(self, settled: Settled, delivery: Delivery) -> None:
        """Remember the outcome of one that was in work when its loan ended."""
        outcome = settled.outcome
        if isinstance(outcome, Unhandled):
            self._remember(delivery, Orphan(delivery.attempt))
        elif self._alone or isinstance(outcome, Done):
            self._remember(delivery, Orphan(delivery.attempt, outcome, settled.error))
        else:
            self._remember(delivery, Orphan(delivery.attempt + isinstance(outcome, Retry)))

    def _remember(self, delivery: Delivery, orphan: Orphan) -> None:
        self._by_id.pop(delivery.message.id, None)
        self._by_id[delivery.message.id] = orphan
        if len(self._by_id) > self._most:
            del self._by_id[next(iter(self._by_id))]

    def pop(self, id: str) -> Orphan | None:
        """Take out what is known of a message that is lent again."""
        return self._by_id.pop(id, None)

    def clear(self) -> None:
        """Forget all: what is lent from now on is meant to be handled again."""
        self._by_id.clear()
