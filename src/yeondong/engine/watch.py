"""Which messages have been with their handlers for long: looked at with every heartbeat, at no cost to the handlers."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from yeondong.core.clock import Clock
from yeondong.core.delivery import Delivery
from yeondong.core.store import LongRun
from yeondong.engine.lane import Work

log = logging.getLogger("yeondong.engine")

LONG_SECONDS = 10.0


class Watch:
    """Remembers what each lane's work had in hand at the last looks. Used by one thread."""

    def __init__(self, flow: str, clock: Clock) -> None:
        self._flow = flow
        self._clock = clock
        self._seen: dict[int, tuple[Delivery, float]] = {}
        self._told: set[int] = set()

    def look(self, works: Iterable[Work]) -> list[LongRun]:
        """Return what is in hand for longer than ``LONG_SECONDS``, as far as looks can tell; each is logged once."""
        now = self._clock.elapsed()
        long_runs: list[LongRun] = []
        for number, work in enumerate(works):
            delivery = work.in_hand
            before, since = self._seen.get(number, (None, now))
            if delivery is None or delivery is not before:
                self._told.discard(number)
                if delivery is None:
                    self._seen.pop(number, None)
                else:
                    self._seen[number] = (delivery, now)
            elif now - since >= LONG_SECONDS:
                message = delivery.message
                long_runs.append(LongRun(message.id, message.type, message.key, round(now - since, 1)))
                if number not in self._told:
                    self._told.add(number)
                    log.warning("handler.long flow=%r type=%r key=%r message=%r seconds=%.0f", self._flow, message.type,
                                message.key, message.id, now - since)  # fmt: skip
        return long_runs
