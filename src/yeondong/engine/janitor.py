"""Keeps tables bounded: deletes what is past its retention, a little at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yeondong.core.fence import Fence
from yeondong.errors import ConnectionLost

log = logging.getLogger("yeondong.janitor")

SWEEP_ROWS = 1_000
PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Duty:
    """One table to sweep: ``sweep`` deletes at most so many rows and returns how many it did."""

    name: str
    sweep: Callable[[int], int]


class Janitor:
    """Does its duties every ``every_seconds``, in a thread of its own, in one worker at a time (under a lease).

    Each app has a janitor: its broker and its retentions are not another app's.
    """

    def __init__(
        self, app: str, duties: Sequence[Duty], fences: Callable[[str], Fence | None], every_seconds: float
    ) -> None:
        self.name = f"janitor of {app}"
        self._duties = duties
        self._fences = fences
        self._every_seconds = every_seconds
        self._ended = threading.Event()
        self._turn = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the statement in hand."""
        self._ended.set()
        self._turn.set()
        self._thread.join()

    def alive(self, within_seconds: float) -> bool:
        """Whether the lease is worth renewing: a sweep is harmless wherever it runs, so while the thread lives."""
        del within_seconds
        return self._thread.is_alive()

    def wake(self) -> None:
        """Look at the lease."""
        self._turn.set()

    def sweep(self) -> None:
        """Do every duty once, in small steps."""
        for duty in self._duties:
            deleted = SWEEP_ROWS
            while deleted >= SWEEP_ROWS and not self._ended.is_set():
                deleted = duty.sweep(SWEEP_ROWS)
                if deleted:
                    log.info("janitor.swept table=%r rows=%d", duty.name, deleted)
                    self._ended.wait(PAUSE_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._fences(self.name) is not None:
                self._sweep_safely()
            self._turn.wait(self._every_seconds)
            self._turn.clear()

    def _sweep_safely(self) -> None:
        try:
            self.sweep()
        except ConnectionLost as lost:
            log.warning("janitor.postponed reason=%r", str(lost))
        except Exception:
            log.exception("janitor.failed")
