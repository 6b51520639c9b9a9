"""Marking by position: with one writer at a time, ids become visible in their order, so that one id tells all."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import RELAY
from yeondong.errors import ConnectionLost
from yeondong.stores.sqlite.leases import LOAD, SAVE
from yeondong.stores.sqlite.link import Link, later
from yeondong.stores.sqlite.outbox import FETCH, deliveries, since, sweep
from yeondong.stores.sqlite.rows import time_of

FOLLOWING = f"{FETCH} WHERE id > :position ORDER BY id LIMIT :limit"

THERE = "SELECT 1 FROM yeondong_outbox WHERE id >= :id LIMIT 1"

# Just below the first row that is not DONE; the highest id, or 0, if there is none.
UNSENT = """
SELECT coalesce(min(id) - 1, (SELECT max(id) FROM yeondong_outbox), 0) FROM (
  SELECT min(id) AS id FROM yeondong_outbox WHERE status = 'WAITING'
  UNION ALL SELECT min(id) FROM yeondong_outbox WHERE status = 'FAILED')
"""

# Under marking by position every row stays WAITING, so the index on these serves here too.
LAG_BEYOND = """
SELECT count(*), (
  SELECT occurred_at FROM yeondong_outbox WHERE status = 'WAITING' AND id > :position ORDER BY id LIMIT 1)
FROM yeondong_outbox WHERE status = 'WAITING' AND id > :position
"""

# When exactly a row was sent is not known here; it was after it occurred.
OLD_BELOW = f"""
SELECT id FROM (SELECT id, occurred_at FROM yeondong_outbox WHERE id <= :position ORDER BY id LIMIT :limit)
WHERE occurred_at IS NULL OR occurred_at < {later("-:seconds")}
"""

BEFORE = """
SELECT coalesce(min(id) - 1, :position) FROM yeondong_outbox
WHERE id <= :position AND (:start IS NULL OR occurred_at IS NULL OR occurred_at >= :start)
"""

BETWEEN = "SELECT count(*) FROM yeondong_outbox WHERE id > :after AND id <= :position"


class SqliteOutboxLog:
    """The rows in the order of their ids; the position is the id of the last one that is settled."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._saved: int | None = None  # the position in the store, as far as this opening knows
        self._settled = 0
        self._last = 0  # the highest id that this opening has read

    def resume(self) -> None:
        self._saved = self._load()
        # A table that was marked by status so far: rows that were sent above the first unsent one are repeated.
        self._settled = self._last = self._link.read(UNSENT)[0][0] if self._saved is None else self._saved

    def read(self, limit: int) -> Sequence[Delivery]:
        found = deliveries(self._link, FOLLOWING, {"position": self._last, "limit": limit})
        self._refuse_restored(idle=not found)
        self._last = found[-1].receipt if found else self._last
        return found

    def save(self, receipt: int, fence: Fence) -> None:
        if receipt <= self._settled:
            return
        self._refuse_restored(idle=False)
        self._save(receipt, fence)
        self._saved = self._settled = receipt

    def lag(self) -> Lag:
        waiting, oldest = self._link.read(LAG_BEYOND, {"position": self._load() or 0})[0]
        return Lag(waiting, time_of(oldest))

    def sweep(self, older: timedelta, limit: int) -> int:
        position = self._load()
        if position is None:
            return 0
        values = {"seconds": older.total_seconds(), "limit": limit, "position": position}
        return sweep(self._link, OLD_BELOW, values)

    def repeats(self, start: str) -> int:
        position = self._load() or 0
        count: int = self._link.read(BETWEEN, {"after": self._before(start, position), "position": position})[0][0]
        return count

    def rewind(self, start: str, fence: Fence) -> int:
        repeated = self.repeats(start)
        if repeated:
            self._save(self._before(start, self._load() or 0), fence)
        return repeated

    def _before(self, start: str, position: int) -> int:
        before: int = self._link.read(BEFORE, {"start": since(start), "position": position})[0][0]
        return before

    def _load(self) -> int | None:
        rows = self._link.read(LOAD, {"name": RELAY})
        return int(rows[0][0]) if rows else None

    def _save(self, position: int, fence: Fence) -> None:
        with self._link.writing(f"position {RELAY}", [fence]) as connection:
            connection.execute(SAVE, {"name": RELAY, "position": str(position)})

    def _refuse_restored(self, *, idle: bool) -> None:
        """Raise ``ConnectionLost`` if the file was set back under us: new rows get ids that were sent before."""
        if self._saved is not None:
            there = self._load()
            if there is None or there < self._saved:
                self._lose(f"the position {RELAY!r} went back from {self._saved} to {there}")
        # What is on loan can't have been swept.
        if idle and self._last > self._settled and not self._link.read(THERE, {"id": self._last}):
            self._lose(f"row {self._last}, which is being sent, and all after it are gone")

    def _lose(self, what: str) -> NoReturn:
        raise ConnectionLost(
            "SQLite", self._link.path, f"{what}: an older state of the database was restored; opening it anew"
        )
