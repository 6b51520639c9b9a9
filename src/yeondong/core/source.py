"""Where deliveries are borrowed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.traits import Traits


class Lag(Struct, frozen=True):
    """How many messages wait, and since when the oldest of them does."""

    waiting: int
    since: datetime | None = None


class Source(Protocol):
    """Lends deliveries. Used by its flow's thread only, ``wake`` excepted.

    Every method but ``wake`` and ``close`` may raise ``ConnectionLost``: the flow then calls ``close``, and ``open``
    again later. What was on loan at that time is lent again. Nothing is raised for the content of a message: a broken
    one is delivered with its ``flaw``. ``PositionLost`` says that only a person knows where to go on.
    """

    traits: Traits

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        """Connect. ``fence`` is given to LEASED sources, which refuse writes under an older epoch from then on.

        ``revoked`` is for ASSIGNED ones.
        """

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """Borrow up to ``limit`` deliveries, in order within each partition.

        Waits at most ``wait_seconds`` for the first. Returns at once, maybe with nothing, after ``wake``. A limit of 0
        borrows nothing and keeps the session and the loans alive. What is on loan is never lent again by the same
        opening, unless it was given back.
        """

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these for ever. PREFIX sources are given them in order, per partition, without a gap.

        Twice is harmless. Raises ``FenceLost`` if the lease has moved on; nothing is forgotten then.
        """

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """End the loan: they are lent again, to this flow or another. Twice is harmless."""

    def lag(self) -> Lag:
        """Count what waits, loans included."""

    def wake(self) -> None:
        """Make the current or the next ``receive`` return at once. Any thread may call it, at any time."""

    def close(self) -> None:
        """Disconnect; what is on loan is lent again later. Never raises; twice is harmless."""


class AssignedSource(Source, Protocol):
    """A source whose broker gives the partitions to the readers of a group, and takes them away again.

    It calls ``revoked`` from within ``receive`` with the partitions that it is about to lose: what is settled before
    that call returns still counts. It calls it too for partitions that are lost already, where settling may raise.
    Either way they have left ``partitions`` afterwards, and nothing of them is returned by that ``receive``, unless
    they were assigned anew. ``receive`` with a limit of 0 follows the broker as well. A closed source has none.

    Who reads a partition claims it in the store and then asks ``confirm``. Only what arrives after that is handled:
    the broker's word is younger than the claim then, so nobody else can have claimed it rightfully before.
    """

    session_seconds: float
    """After how long without ``receive`` the broker may have given the partitions to others unnoticed."""

    partitions: frozenset[str]
    """What this reader is assigned, as of the last ``receive``; a new object whenever the broker has assigned any."""

    existing: frozenset[str]
    """All partitions there are, whoever reads them, as far as known when ``partitions`` came."""

    def confirm(self) -> bool:
        """Ask the broker itself whether this reader is still in its group. False: it can't tell now, ask again.

        Raises ``ConnectionLost`` if the broker says no, or is away. Kafka's source commits its positions for this.
        """
