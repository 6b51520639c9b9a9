"""Waits for rows without asking the database all the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

from yeondong.core.delivery import Delivery


class Doorbell:
    """Ends the wait of a ``receive`` when somebody rings, or commits.

    A ring is kept for the next wait. A commit counts only once a look has begun: what was committed before is seen by
    that look anyway, and a busy application would otherwise never let the relay rest.
    """

    def __init__(self) -> None:
        self._rung = Event()
        self._expecting = False

    def ring(self) -> None:
        """End the current or the next wait. Any thread may call it."""
        self._rung.set()

    def committed(self) -> None:
        """End the current wait, if there is one. Any thread may call it."""
        if self._expecting:
            self._rung.set()

    def wait_for(self, look: Callable[[], Sequence[Delivery]], wait_seconds: float) -> Sequence[Delivery]:
        """Look; if there is nothing, wait to be rung or for the time to pass, and look once more."""
        rung = self._rung.is_set()
        self._rung.clear()
        self._expecting = True
        try:
            found = look()
            if found or rung or wait_seconds <= 0:
                return found
            self._rung.wait(wait_seconds)
            # Before the look, not after it: who rings in between is heard by the next wait.
            self._rung.clear()
            return look()
        finally:
            self._expecting = False
