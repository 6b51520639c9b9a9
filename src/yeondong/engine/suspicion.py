"""A message that kills its process: after an unclean end each runs alone, its attempt written first."""

from __future__ import annotations

from yeondong.core.delivery import Delivery
from yeondong.core.failpoint import SUSPECTED, Failpoint
from yeondong.core.store import Suspects


class Suspicion:
    """What could have been in work when the flow's last owner ended. Off unless ``begin`` was called."""

    def __init__(self, flow: str, suspects: Suspects, failpoint: Failpoint) -> None:
        self._flow = flow
        self._suspects = suspects
        self._failpoint = failpoint
        self._begun: dict[str, int] = {}
        self._left = 0

    def __bool__(self) -> bool:
        return self._left > 0

    def begin(self, most: int) -> None:
        """Suspect the next deliveries, as many as can have been in flight."""
        self._begun = dict(self._suspects.load(self._flow))
        self._left = most

    def attempt(self, delivery: Delivery) -> int:
        """Tell which attempt this is, counting those that ended a process."""
        return max(delivery.attempt, self._begun.get(delivery.message.id, 0) + 1)

    def write(self, delivery: Delivery) -> None:
        """Write that an attempt begins, before it does."""
        self._suspects.begin(self._flow, delivery.message.id, delivery.attempt)
        self._failpoint(SUSPECTED)

    def passed(self) -> None:
        """Count one message as through."""
        self._left -= 1
        if self._left <= 0:
            self.end()

    def end(self) -> None:
        """Trust what comes: everything that was in flight then has been lent again."""
        self._suspects.clear(self._flow)
        self._left = 0

    def forget(self) -> None:
        """Leave it to the flow's next owner."""
        self._left = 0
