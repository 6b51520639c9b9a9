"""A message on loan, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from msgspec import Struct

from yeondong.core.message import Message


class Delivery(Struct, frozen=True, gc=False):
    """A message borrowed from a source.

    ``receipt`` is the source's own handle, hashable and unique within ``partition`` while on loan. ``attempt`` counts
    from 1. ``flaw`` says why the envelope is broken; such a delivery is parked with this reason, since drivers never
    raise for content.
    """

    message: Message
    receipt: Any
    partition: str
    attempt: int = 1
    flaw: str | None = None


class Done(Struct, frozen=True):
    """Handled: the source may forget it."""


class Retry(Struct, frozen=True):
    """Try again, after the given time or by the flow's backoff. Counts an attempt."""

    after: timedelta | None = None


class Park(Struct, frozen=True):
    """Give up at once: it becomes a failure that a person decides."""

    reason: str


Outcome: TypeAlias = Done | Retry | Park


class Unhandled(Struct, frozen=True):
    """Not tried, or tried in vain while a system is away: it comes back with the same attempt.

    ``outage`` says which system is away; without it, an earlier message of the key is not through yet.
    """

    outage: str | None = None


DONE = Done()
UNHANDLED = Unhandled()


class Settled(Struct, frozen=True, gc=False):
    """What a lane tells its flow: one for a run of equal outcomes, in the order handled."""

    outcome: Outcome | Unhandled
    deliveries: Sequence[Delivery]
    error: str | None = None
