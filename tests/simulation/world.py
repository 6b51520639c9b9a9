"""Simulated time, chance and processes: who runs next, who is cut off, who dies."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from yeondong.errors import ConnectionLost

FOREVER = float("inf")
START = datetime(2026, 1, 1, tzinfo=UTC)
DEEPEST = 5


class Crash(BaseException):
    """The simulated process is dead: unwinds its frames, and nothing of it has an effect any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Chances per step at which something may happen, while faults are on."""

    preempt: float = 0.0
    lose: float = 0.0
    crash: float = 0.0
    freeze: float = 0.0
    steal: float = 0.0


class Party:
    """Something that takes turns: a flow, a lane, a keeper."""

    __slots__ = ("name", "process", "running", "turn", "wake_at")

    def __init__(self, process: Process, name: str, turn: Callable[[], float], wake_at: float) -> None:
        self.process = process
        self.name = name
        self.turn = turn
        self.wake_at = wake_at
        self.running = False


class World:
    """Everything that one history shares. Equal seeds give equal histories."""

    def __init__(self, seed: int, faults: Faults, *, note: Callable[[str], None] | None = None) -> None:
        self.random = Random(seed)
        self.chance = self.random.random
        self.time = 0.0
        self.faults = faults
        self.calm = False
        self.crashes_left = 0
        self.freezes_left = 0
        self.steals_left = 0
        self.ends = 0
        self.disturbances = 0
        self.steps = 0
        self.away: dict[str, float] = {}
        self.parties: list[Party] = []
        self.processes: list[Process] = []
        self.steal: Callable[[], None] = lambda: None
        self.freeze_seconds = 5.0
        self._note = note
        self._depth = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_count = 0

    # --- time ---------------------------------------------------------------------------------------------------------

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen at this time."""
        self._event_count += 1
        heapq.heappush(self._events, (time, self._event_count, event))

    def note(self, text: str, *values: Any) -> None:
        """Write a line of the history, if somebody reads it."""
        if self._note is not None:
            self._note(f"{self.time:9.3f} {'  ' * self._depth}{text % values if values else text}")

    def step(self, until: float = FOREVER) -> None:
        """Let one party take its turn, or, if none can, let the time pass."""
        self.steps += 1
        self.time += self.chance() * 0.002
        events = self._events
        while events and events[0][0] <= self.time:
            heapq.heappop(events)[2]()
        now = self.time
        ready = [p for p in self.parties if p.wake_at <= now and not p.running and not p.process.frozen]
        if not ready:
            sleepers = [p.wake_at for p in self.parties if not p.running and not p.process.frozen]
            soonest = min(sleepers, default=until)
            if events:
                soonest = min(soonest, events[0][0])
            soonest = min(soonest, until)
            if soonest == FOREVER:
                raise RuntimeError("nothing can happen any more")
            self.time = max(self.time, soonest)
            return
        party = ready[int(self.chance() * len(ready))]
        party.running = True
        party.wake_at = FOREVER
        self._depth += 1
        try:
            wake_at = party.turn()
            party.wake_at = min(party.wake_at, wake_at)
        except Crash:
            if not party.process.dead:
                raise
        finally:
            self._depth -= 1
            party.running = False

    def spend(self, until: float, ended: Callable[[], bool] = lambda: False) -> None:
        """Let the others go on until this time; whoever calls stands still meanwhile."""
        while self.time < until and not ended():
            self.step(until)

    def interleave(self, steps: int) -> None:
        """Let the others take some turns."""
        if self._depth < DEEPEST:
            for _ in range(steps):
                self.step(self.time + 0.05)

    @property
    def deep(self) -> bool:
        """Whether so many parties stand in each other's way that none more should be stopped."""
        return self._depth >= DEEPEST


class Process:
    """One life of one worker. When it is dead, whatever its frames still try is refused."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.frozen = False
        self.clock = SimClock(world, offset=round(world.chance() * 1000, 3))
        self.crash_at: dict[str, int] = {}
        self.freeze_at: dict[str, int] = {}
        self._buried: list[Callable[[], None]] = []
        self.on_freeze: Callable[[], None] = lambda: None
        world.processes.append(self)

    def party(self, name: str, turn: Callable[[], float], wake_at: float = 0.0) -> Party:
        """Add something that takes turns while this process lives; ``turn`` returns when it wants the next one."""
        party = Party(self, f"{self.name}/{name}", turn, wake_at)
        self.world.parties.append(party)
        return party

    def on_death(self, event: Callable[[], None]) -> None:
        self._buried.append(event)

    def kill(self, why: str) -> None:
        """End it at once."""
        if self.dead:
            return
        self.dead = True
        self.world.note("%s dies: %s", self.name, why)
        self.bury()

    def bury(self) -> None:
        """Take what is left of it off the world."""
        self.dead = True
        self.world.parties = [p for p in self.world.parties if p.process is not self]
        self.world.processes = [p for p in self.world.processes if p is not self]
        for event in self._buried:
            event()
        self._buried = []

    def gate(self, system: str, what: str) -> None:
        """A step at which everything may happen: others go on, the process dies or stands still, the line drops."""
        world = self.world
        if self.dead:
            raise Crash
        world.time += 0.0002
        if system in world.away and world.time < world.away[system]:
            raise ConnectionLost(system, "sim", "away")
        if self.freeze_at and self._counted_down(self.freeze_at, what):
            self._freeze(what)
        if what in self.crash_at and self._counted_down(self.crash_at, what):
            self._may_die(f"at {what}")
        drawn = world.chance()
        if drawn < world.faults.preempt:
            world.interleave(1 + int(world.chance() * 6))
        elif not world.calm:
            self._disturb(drawn - world.faults.preempt, system, what)
        if self.dead:
            raise Crash

    def _disturb(self, drawn: float, system: str, what: str) -> None:
        world, faults = self.world, self.world.faults
        if drawn < faults.lose:
            if system:
                world.disturbances += 1
                world.note("%s: %s loses its line to %s", self.name, what, system)
                raise ConnectionLost(system, "sim", f"cut before {what}")
        elif drawn < faults.lose + faults.crash:
            self._may_die(what)
        elif drawn < faults.lose + faults.crash + faults.freeze:
            self._freeze(what)
        elif drawn < faults.lose + faults.crash + faults.freeze + faults.steal and world.steals_left > 0:
            world.steals_left -= 1
            world.ends += 1
            world.disturbances += 1
            world.steal()

    def after(self, system: str, what: str) -> None:
        """The moment after an effect: the answer may get lost."""
        world = self.world
        faults, drawn = world.faults, world.chance()
        if world.calm or drawn >= faults.lose + faults.crash:
            return
        if drawn < faults.lose:
            world.disturbances += 1
            world.note("%s: the answer to %s gets lost", self.name, what)
            raise ConnectionLost(system, "sim", f"cut after {what}")
        self._may_die(f"after {what}")
        if self.dead:
            raise Crash

    def failpoint(self, name: str) -> None:
        """Given to the engine as its failpoint."""
        if self.dead:
            raise Crash
        self.gate("", name)

    def _counted_down(self, counts: dict[str, int], name: str) -> bool:
        left = counts.get(name)
        if left is None:
            return False
        counts[name] = left - 1
        return left == 0

    def _may_die(self, what: str) -> None:
        world = self.world
        if world.crashes_left > 0 and not world.calm:
            world.crashes_left -= 1
            world.ends += 1
            world.disturbances += 1
            self.kill(what)
            raise Crash

    def _freeze(self, what: str) -> None:
        world = self.world
        # Who stands still goes on only when those have returned who took their turns meanwhile: one at a time.
        if world.freezes_left <= 0 or world.deep or any(process.frozen for process in world.processes):
            return
        world.freezes_left -= 1
        world.ends += 1
        world.disturbances += 1
        world.note("%s is stopped for %.1f s at %s", self.name, world.freeze_seconds, what)
        self.frozen = True
        self.on_freeze()
        world.spend(world.time + world.freeze_seconds)
        self.frozen = False
        world.note("%s goes on at %s", self.name, what)


class SimClock:
    """The clock of one host; its start is its own, so that nobody can compare it with another's."""

    def __init__(self, world: World, offset: float) -> None:
        self._world = world
        self._offset = offset

    def elapsed(self) -> float:
        return self._world.time + self._offset

    def now(self) -> datetime:
        return START + timedelta(seconds=self._world.time)
