"""Keeps leases and the signs of life of one worker, in a thread with a connection of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from yeondong.core.clock import Clock
from yeondong.core.failpoint import LEASED, Failpoint, never
from yeondong.core.fence import Fence
from yeondong.core.store import Session, WorkerReport
from yeondong.errors import ConnectionLost

RENEW_BELOW: Final = 0.8
"""The part of a lease's time below which it is renewed: a keeper looks more often than it asks the store."""

log = logging.getLogger("yeondong.keeper")


class Leaseholder(Protocol):
    """What the keeper needs to know of an exclusive flow."""

    @property
    def name(self) -> str: ...

    def alive(self, within_seconds: float) -> bool:
        """Whether the flow's round has turned within this time: a lease is not renewed for one that hangs."""

    def wake(self) -> None:
        """Let the flow look at its lease."""


class Keeper:
    """Takes and renews leases. A flow reads its fence here, at any time, from any thread.

    The store's outage is logged once and otherwise left to the fences' deadlines: what can't be renewed runs out.
    """

    def __init__(
        self, session: Session, *, owner: str, clock: Clock, lease_seconds: float, failpoint: Failpoint = never
    ) -> None:
        self._session = session
        self._owner = owner
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._failpoint = failpoint
        self._flows: dict[str, Leaseholder] = {}
        self._fences: dict[str, Fence] = {}
        self._away = False

    def keep(self, flow: Leaseholder) -> None:
        """Try to hold the flow's lease from now on."""
        self._flows[flow.name] = flow

    def fence(self, name: str) -> Fence | None:
        """Return the fence of a lease that is held and not past its deadline."""
        fence = self._fences.get(name)
        if fence is None or self._clock.elapsed() >= fence.deadline:
            return None
        return fence

    def tick(self) -> None:
        """Take what is free, renew what is held."""
        try:
            for name, flow in list(self._flows.items()):
                self._tend(name, flow)
            self._away = False
        except ConnectionLost as lost:
            if not self._away:
                log.warning("keeper.store_away reason=%r", str(lost))
            self._away = True

    def _tend(self, name: str, flow: Leaseholder) -> None:
        held = self._fences.get(name)
        if held is None:
            taken = self._session.leases.take(name, self._owner, self._lease_seconds)
            if taken is None:
                return
            self._failpoint(LEASED)
            log.info("lease.taken name=%r epoch=%d", name, taken.epoch)
            self._fences[name] = taken
            flow.wake()
        elif self._clock.elapsed() < held.deadline - RENEW_BELOW * self._lease_seconds:
            return
        elif flow.alive(self._lease_seconds):
            renewed = self._session.leases.renew(held, self._lease_seconds)
            if renewed is not None:
                self._fences[name] = renewed
                return
            log.warning("lease.lost name=%r epoch=%d", name, held.epoch)
            del self._fences[name]
            flow.wake()

    def release(self, name: str) -> None:
        """Give the lease up at once, so that another worker need not wait for its end."""
        self._flows.pop(name, None)
        fence = self._fences.pop(name, None)
        if fence is None:
            return
        try:
            self._session.leases.release(fence)
        except ConnectionLost as lost:
            log.warning("lease.not_released name=%r reason=%r", name, str(lost))

    def beat(self, report: WorkerReport) -> None:
        """Write that the worker is alive."""
        try:
            self._session.flows.beat(report)
        except ConnectionLost as lost:
            if not self._away:
                log.warning("keeper.no_heartbeat reason=%r", str(lost))

    def end(self, worker: str) -> None:
        """Remove the worker's signs of life, and disconnect."""
        try:
            self._session.flows.forget_worker(worker)
        except ConnectionLost as lost:
            log.warning("keeper.worker_not_removed reason=%r", str(lost))
        self._session.close()


class KeeperThread:
    """Turns the keeper: leases every quarter of their time, at most every second; heartbeats at their own pace."""

    def __init__(
        self, keeper: Keeper, report: Callable[[], WorkerReport], *, lease_seconds: float, heartbeat_seconds: float
    ) -> None:
        self._keeper = keeper
        self._report = report
        self._tick_seconds = min(1.0, lease_seconds / 4)
        self._every = max(1, round(heartbeat_seconds / self._tick_seconds))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the current turn."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        turn = 0
        while not self._ended.is_set():
            try:
                self._keeper.tick()
                if turn % self._every == 0:
                    self._keeper.beat(self._report())
            except Exception:
                log.exception("keeper.failed")
            turn += 1
            self._ended.wait(self._tick_seconds)
