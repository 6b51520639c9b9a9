"""How long to wait between attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from ``first`` up to ``most``, a quarter more or less by chance, so that retries spread out.

    >>> Backoff(first=timedelta(seconds=1), most=timedelta(minutes=5)).seconds(attempt=3, random=lambda: 0.5)
    4.0
    """

    first: timedelta = timedelta(seconds=1)
    most: timedelta = timedelta(minutes=5)

    def seconds(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after the given attempt (from 1); ``random`` gives a number from 0 to 1."""
        most = self.most.total_seconds()
        doubled: float = self.first.total_seconds() * 2 ** min(attempt - 1, 60)
        return min(doubled, most) * (0.75 + 0.5 * random())
