"""Time as a parameter."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells how much time has passed, and what time it is."""

    def elapsed(self) -> float:
        """Seconds since some start; never jumps, and counts the time that the machine was suspended."""

    def now(self) -> datetime:
        """The wall clock, in UTC. For people and for records, never for leases or backoff."""


class SystemClock:
    """This machine's clocks.

    ``elapsed`` is CLOCK_BOOTTIME where there is one (Linux): CLOCK_MONOTONIC stands still while a machine is suspended,
    so a lease would look alive that has long been taken over.
    """

    def elapsed(self) -> float:
        return _elapsed()

    def now(self) -> datetime:
        return datetime.now(UTC)


if hasattr(time, "CLOCK_BOOTTIME"):

    def _elapsed() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def _elapsed() -> float:
        return time.monotonic()
