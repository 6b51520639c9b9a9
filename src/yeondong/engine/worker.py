"""A process that runs flows."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from yeondong.core.clock import Clock
from yeondong.core.store import FlowReport, WorkerReport
from yeondong.engine.flow import Flow
from yeondong.engine.janitor import Janitor
from yeondong.engine.keeper import Keeper, KeeperThread


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a worker does what, and how long it takes to stop; all in seconds."""

    lease_seconds: float = 10.0
    heartbeat_seconds: float = 2.0
    grace_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What a worker asks of its store: to be ready for its threads, and what a person should know."""

    ready: Callable[[], None]
    notice: Callable[[], str | None]


class Worker:
    """Runs flows, one thread each, with one keeper for their leases and one janitor.

    ``start`` and ``stop`` may be called once each. ``stop`` keeps the safe-stop promise: nothing new is borrowed, what
    is in flight finishes within the grace period or is given back.
    """

    def __init__(
        self,
        app: str,
        flows: Sequence[Flow],
        *,
        keeper: Keeper,
        janitor: Janitor | None,
        owner: str,
        clock: Clock,
        pace: Pace,
        ground: Ground,
    ) -> None:
        self.flows = flows
        self._app = app
        self._keeper = keeper
        self._janitor = janitor
        self._owner = owner
        self._clock = clock
        self._pace = pace
        self._ground = ground
        self._started_at = clock.now()
        self._counted: dict[str, tuple[float, int]] = {}
        self._keeping = KeeperThread(
            keeper, self.report, lease_seconds=pace.lease_seconds, heartbeat_seconds=pace.heartbeat_seconds
        )
        self._threads = [
            threading.Thread(target=flow.run, args=(pace.grace_seconds,), name=f"flow-{flow.name}", daemon=True)
            for flow in flows
        ]

    def start(self) -> None:
        """Start all threads and return. Raises what ``Ground.ready`` does, before any has started."""
        self._ground.ready()
        for flow in self.flows:
            if flow.plan.exclusive:
                self._keeper.keep(flow)
        if self._janitor is not None:
            self._keeper.keep(self._janitor)
            self._janitor.start()
        self._keeping.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Come to a standstill within the grace period; False if a handler was still at work after it."""
        for flow in self.flows:
            flow.stop()
        for thread in self._threads:
            thread.join()
        at_rest = all(flow.at_rest for flow in self.flows)
        if self._janitor is not None:
            self._janitor.stop()
        self._keeping.stop()
        # A handler that still holds the store's write lock would make each of these wait for it: the leases run out.
        if at_rest:
            for flow in self.flows:
                self._keeper.release(flow.name)
            if self._janitor is not None:
                self._keeper.release(self._janitor.name)
            self._keeper.end(self._owner)
        return at_rest

    def report(self) -> WorkerReport:
        """Tell how the worker and its flows are."""
        now = self._clock.elapsed()
        return WorkerReport(
            worker=self._owner,
            app=self._app,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            flows=[self._with_rate(flow.report(), now) for flow in self.flows],
            notice=self._ground.notice(),
            silent_seconds=max(self._pace.lease_seconds, 3 * self._pace.heartbeat_seconds),
        )

    def _with_rate(self, report: FlowReport, now: float) -> FlowReport:
        before, handled = self._counted.get(report.flow, (now, report.handled))
        self._counted[report.flow] = (now, report.handled)
        rate = (report.handled - handled) / (now - before) if now > before else 0.0
        return replace(report, rate=round(rate, 1))
