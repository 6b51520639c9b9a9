"""Lanes: where handlers and sinks run, one message after the other."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Protocol, TypeAlias

from yeondong.core.clock import Clock
from yeondong.core.delivery import Delivery, Settled, Unhandled

log = logging.getLogger("yeondong.engine")

Report: TypeAlias = Callable[[Settled | None], None]


class Halt:
    """How a flow tells the running work of one lane to stop after the message in hand.

    A worker that was paused beyond its lease, or its broker's session, must not go on with the messages that it still
    has: their new owner may be far ahead. So work asks before each message, and the answer needs no other thread to
    have run. ``until`` tells when that is, in ``Clock.elapsed`` seconds; None where nobody can take over.
    """

    __slots__ = ("_clock", "_until", "everything", "fenced", "partitions")

    def __init__(self, clock: Clock, until: Callable[[], float] | None) -> None:
        self._clock = clock
        self._until = until
        self.fenced = until is not None
        self.everything = False
        self.partitions: frozenset[str] = frozenset()

    def covers(self, delivery: Delivery) -> bool:
        """Whether this delivery must not be begun any more."""
        if self.everything or (self.partitions and delivery.partition in self.partitions):
            return True
        return self._until is not None and self._clock.elapsed() >= self._until()

    def deadline(self) -> float:
        """Until when, in ``Clock.elapsed`` seconds, something may be handed over."""
        return float("inf") if self._until is None else self._until()


class Work(Protocol):
    """What a lane does with the deliveries that it is given. ``in_hand`` is what its handler has just now."""

    passed_over: int
    in_hand: Delivery | None

    def __call__(self, deliveries: Sequence[Delivery], halt: Halt) -> Iterator[Settled]:
        """Yield what became of each delivery, each exactly once.

        After one that is not Done, the later ones of its key come back ``Unhandled``: only the flow knows whether it
        will be retried, held or parked. Yields at least every 64 messages or 5 ms, and ends after half a second plus
        one message with the rest ``Unhandled``.
        """

    def close(self) -> None:
        """Let go of connections. Never raises."""


class Lane(Protocol):
    """Runs work, one list of deliveries at a time. It reports results, and None when it is ready for the next list."""

    def give(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over a list; only when the lane is ready."""

    def stop(self) -> None:
        """Let the lane end after its list. Does not wait."""

    def join(self, seconds: float) -> bool:
        """Wait for its end; False if it is still at work."""


LaneMaker: TypeAlias = Callable[[str, Work, Halt, Report], Lane]


class ThreadLane:
    """A lane that is a thread. It is a daemon, so that a handler that never returns can't keep a process alive."""

    def __init__(self, name: str, work: Work, halt: Halt, report: Report) -> None:
        self._work = work
        self._halt = halt
        self._report = report
        self._pid = os.getpid()
        self._lists: SimpleQueue[Sequence[Delivery] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def give(self, deliveries: Sequence[Delivery]) -> None:
        self._lists.put(deliveries)

    def stop(self) -> None:
        self._lists.put(None)

    def join(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (deliveries := self._lists.get()) is not None:
            for _ in run_list(self._work, deliveries, self._halt, self._report):
                if os.getpid() != self._pid:
                    os._exit(0)  # a handler has forked and returned in the child: the rest is the parent's
            self._work.in_hand = None
            self._report(None)
        self._work.close()


def run_list(work: Work, deliveries: Sequence[Delivery], halt: Halt, report: Report) -> Iterator[None]:
    """Run one list, from result to result.

    A fault of the work itself gives back what it had not reported, as an outage.
    """
    reported: list[Sequence[Delivery]] = []
    try:
        for settled in work(deliveries, halt):
            reported.append(settled.deliveries)
            report(settled)
            yield
    except Exception as error:
        log.exception("engine.work_failed")
        known = {id(d) for run in reported for d in run}
        rest = [d for d in deliveries if id(d) not in known]
        report(Settled(Unhandled(outage=f"internal error: {error!r}"), rest))
