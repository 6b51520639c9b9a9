"""Waits for rows without asking the database all the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Final

from yeondong.core.delivery import Delivery

SOON_SECONDS: Final = 0.01
"""How soon to look again after something was found; each further look in vain takes half as long again."""


class Doorbell:
    """Ends the wait of a ``receive`` when somebody rings, or commits.

    A ring is kept for the next wait. A commit counts only once a look has begun: what was committed before is seen by
    that look anyway, and a busy application would otherwise never let the relay rest. Where not every commit is told,
    it looks by itself, at least every ``poll_seconds``.
    """

    def __init__(self, poll_seconds: float | None = None) -> None:
        self._rung = Event()
        self._expecting = False
        self._poll_seconds = poll_seconds
        self._pause = SOON_SECONDS
        self._looked_in_vain = False

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
            # What polls has ended its last wait with a look, and goes on waiting.
            if rung or wait_seconds <= 0 or not self._looked_in_vain:
                found = look()
                if found or rung or wait_seconds <= 0:
                    return self._seen(found)
            if self._poll_seconds is not None:
                return self._polled(look, wait_seconds, self._poll_seconds)
            self._rung.wait(wait_seconds)
            # Before the look, not after it: who rings in between is heard by the next wait.
            self._rung.clear()
            return look()
        finally:
            self._expecting = self._looked_in_vain

    def _polled(
        self, look: Callable[[], Sequence[Delivery]], wait_seconds: float, poll_seconds: float
    ) -> Sequence[Delivery]:
        left = wait_seconds
        while True:
            pause = min(self._pause, poll_seconds)
            # A last look that would come almost at once with the next wait's first is left to that.
            rung = self._rung.wait(min(pause, left))
            left -= pause
            self._rung.clear()
            found = self._seen(look())
            if found or rung or left <= 0:
                return found
            self._pause = min(self._pause * 1.5, poll_seconds)

    def _seen(self, found: Sequence[Delivery]) -> Sequence[Delivery]:
        self._looked_in_vain = not found and self._poll_seconds is not None
        if found:
            self._pause = SOON_SECONDS
        return found
