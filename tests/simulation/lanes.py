"""Lanes that take one step at a time, the bell of a flow, and what runs in the lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tests.simulation.world import FOREVER, Process
from yeondong.core.delivery import Delivery
from yeondong.engine.lane import Halt, Report, Work, run_list


class Sleeper(Protocol):
    """The flow's seat in the world, as its lanes and its source see it."""

    def ring(self) -> None: ...


class SteppedLane:
    """A lane without a thread: each of its turns goes on until the next result."""

    def __init__(self, name: str, work: Work, halt: Halt, report: Report, *, process: Process, flow: Sleeper) -> None:
        self._work = work
        self._halt = halt
        self._report = report
        self._process = process
        self._flow = flow
        self._steps: Iterator[None] | None = None
        self._party = process.party(name, self._turn, FOREVER)

    def give(self, deliveries: Sequence[Delivery]) -> None:
        if self._steps is not None:
            raise AssertionError("a list was given to a lane that is at work")
        self._steps = run_list(self._work, deliveries, self._halt, self._report)
        self._party.wake_at = 0.0

    def stop(self) -> None:
        """Ends with its process."""

    def join(self, seconds: float) -> bool:
        return self._steps is None

    def _turn(self) -> float:
        if self._steps is None:
            return FOREVER
        ended = next(self._steps, self) is self
        if self._process.dead:
            return FOREVER
        if ended:
            self._steps = None
            self._report(None)
        self._flow.ring()
        return FOREVER if ended else 0.0


class SimBell:
    """Lets the flow's party sleep; inside a callback, where the flow stands still in its frames, the others go on."""

    def __init__(self, process: Process, sleep: Callable[[float], None], blocking: Callable[[], bool]) -> None:
        self._process = process
        self._sleep = sleep
        self._blocking = blocking
        self._rung = False

    def set(self) -> None:
        self._rung = True

    def clear(self) -> None:
        self._rung = False

    def wait(self, timeout: float) -> bool:
        if self._rung:
            return True
        if self._blocking():
            world = self._process.world
            world.spend(world.time + timeout, lambda: self._rung or self._process.dead)
            self._process.gate("", "bell")
        else:
            self._sleep(timeout)
        return self._rung
