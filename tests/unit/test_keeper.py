"""A lease is kept for a flow that turns, and left to others for one that hangs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from yeondong.core.fence import Fence
from yeondong.core.store import Session
from yeondong.engine.keeper import Keeper
from yeondong.errors import ConnectionLost

LEASE_SECONDS = 10.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def elapsed(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


class Leases:
    """One lease, as the database has it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.owner: str | None = None
        self.epoch = 0
        self.until = 0.0
        self.away = False

    @property
    def leases(self) -> Leases:
        return self

    def take(self, name: str, owner: str, seconds: float) -> Fence | None:
        self._look()
        if self.owner is not None and self.clock.elapsed() < self.until:
            return None
        self.owner, self.epoch = owner, self.epoch + 1
        return self._fence(name, seconds)

    def renew(self, fence: Fence, seconds: float) -> Fence | None:
        self._look()
        return self._fence(fence.name, seconds) if (self.owner, self.epoch) == (fence.owner, fence.epoch) else None

    def release(self, fence: Fence) -> None:
        if self.epoch == fence.epoch:
            self.owner = None

    def _look(self) -> None:
        if self.away:
            raise ConnectionLost("memory", "here", "away")

    def _fence(self, name: str, seconds: float) -> Fence:
        self.until = self.clock.elapsed() + seconds
        return Fence(name, cast("str", self.owner), self.epoch, self.until)


class Turning:
    """A flow that hangs or does not."""

    name = "flow"

    def __init__(self) -> None:
        self.hangs = False
        self.woken = 0

    def alive(self, within_seconds: float) -> bool:
        assert within_seconds == LEASE_SECONDS
        return not self.hangs

    def wake(self) -> None:
        self.woken += 1


def keeper(leases: Leases, owner: str, flow: Turning) -> Keeper:
    made = Keeper(cast("Session", leases), owner=owner, clock=leases.clock, lease_seconds=LEASE_SECONDS)
    made.keep(flow)
    return made


def test_a_lease_is_renewed_while_its_flow_turns() -> None:
    leases, flow = Leases(Clock()), Turning()
    ours = keeper(leases, "ours", flow)

    for _ in range(5):
        ours.tick()
        assert ours.fence("flow") is not None
        leases.clock.seconds += LEASE_SECONDS * 0.9

    assert (leases.epoch, flow.woken) == (1, 1)


def test_the_lease_of_a_flow_that_hangs_goes_to_another_worker() -> None:
    leases, flow = Leases(Clock()), Turning()
    ours, theirs = keeper(leases, "ours", flow), keeper(leases, "theirs", Turning())
    ours.tick()
    flow.hangs = True

    leases.clock.seconds += LEASE_SECONDS * 0.9
    ours.tick()
    theirs.tick()
    assert theirs.fence("flow") is None
    leases.clock.seconds += LEASE_SECONDS * 0.2
    ours.tick()
    theirs.tick()

    assert ours.fence("flow") is None
    assert theirs.fence("flow") is not None


def test_a_lease_that_was_taken_over_is_given_up_and_the_flow_told() -> None:
    leases, flow = Leases(Clock()), Turning()
    ours, theirs = keeper(leases, "ours", flow), keeper(leases, "theirs", Turning())
    ours.tick()
    leases.clock.seconds += LEASE_SECONDS
    theirs.tick()

    ours.tick()

    assert ours.fence("flow") is None
    assert flow.woken == 2


def test_a_lease_that_cannot_be_renewed_runs_out() -> None:
    leases, flow = Leases(Clock()), Turning()
    ours = keeper(leases, "ours", flow)
    ours.tick()
    leases.away = True

    ours.tick()
    assert ours.fence("flow") is not None
    leases.clock.seconds += LEASE_SECONDS
    ours.tick()

    assert ours.fence("flow") is None


def test_a_released_lease_is_free_at_once() -> None:
    leases = Leases(Clock())
    ours, theirs = keeper(leases, "ours", Turning()), keeper(leases, "theirs", Turning())
    ours.tick()

    ours.release("flow")
    theirs.tick()

    assert theirs.fence("flow") is not None
