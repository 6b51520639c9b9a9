"""Marking by position: rows never change, and a position tells what was sent.

The position is (system, seen, upto, id): sent is what was visible in the snapshot ``seen``, and what was visible in
``upto`` with an id up to this one. It is saved in the same database, behind all that it speaks of in the server's log:
a standby that takes over, or a restore to a point in time, has all of it or an older one, and goes on without loss. In
a database made of a dump transactions have other ids: there the position means nothing, and the flow stops.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from msgspec import Struct

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import RELAY
from yeondong.errors import PositionLost
from yeondong.stores.postgresql.leases import LOAD, SAVE
from yeondong.stores.postgresql.link import FENCE, HELD, NOW, Link
from yeondong.stores.postgresql.outbox import SINCE, array, deliveries, time_of
from yeondong.stores.postgresql.rows import in_utc
from yeondong.stores.postgresql.snapshots import BEGINNING, Snapshot, snapshot
from yeondong.stores.postgresql.systems import system_of
from yeondong.stores.postgresql.windows import Windows

PASSED: Final = """
(pg_visible_in_snapshot(txid, %(seen)s::pg_snapshot)
  OR (id <= %(id)s AND pg_visible_in_snapshot(txid, %(upto)s::pg_snapshot)))
"""

# Just below the first row that is not DONE; the highest id, or 0, if there is none.
UNSENT: Final = """
SELECT coalesce(
  (SELECT id - 1 FROM yeondong_outbox WHERE status <> 'DONE' ORDER BY id LIMIT 1),
  (SELECT max(id) FROM yeondong_outbox), 0)
"""

LAG: Final = f"""
WITH beyond AS (
  SELECT id FROM yeondong_outbox WHERE txid >= %(first)s::xid8 AND NOT {PASSED}
  UNION ALL
  SELECT id FROM yeondong_outbox WHERE txid = ANY(%(running)s::xid8[]) AND NOT {PASSED})
SELECT count(*), (SELECT occurred_at FROM yeondong_outbox WHERE id = min(beyond.id)) FROM beyond
"""

# When exactly a row was sent is not known here; it was after it occurred.
SWEEP: Final = f"""
DELETE FROM yeondong_outbox WHERE id IN (
  SELECT id FROM (SELECT id, txid, occurred_at FROM yeondong_outbox ORDER BY id LIMIT %(limit)s) AS first
  WHERE {PASSED} AND (occurred_at IS NULL OR occurred_at < now() - %(older)s::interval))
"""

REPEATS: Final = f"SELECT count(*) FROM yeondong_outbox WHERE {SINCE} AND (%(lost)s OR {PASSED})"

# What is to be sent, again or for the first time, gets this transaction's id, which the new position has not seen. What
# is not to be sent and has an id that this system has not given yet came with a dump: it gets one that all have seen.
# The statement's own snapshot is the new position: what others commit meanwhile is neither here nor there.
REWIND: Final = f"""
WITH {FENCE}, now AS MATERIALIZED (
  SELECT pg_current_snapshot() AS upto
), marked AS (
  UPDATE yeondong_outbox SET txid = CASE
    WHEN {SINCE} OR NOT (%(lost)s OR {PASSED}) THEN pg_current_xact_id() ELSE '3'::xid8 END
  FROM now
  WHERE ({SINCE} OR NOT (%(lost)s OR {PASSED}) OR NOT pg_visible_in_snapshot(txid, upto)) AND {HELD}
), saved AS (
  INSERT INTO yeondong_positions (name, position, saved_at)
  SELECT '{RELAY}', %(system)s::text || ' ' || upto::text || ' ' || upto::text || ' 0', {NOW} FROM now WHERE {HELD}
  ON CONFLICT (name) DO UPDATE SET position = excluded.position, saved_at = excluded.saved_at
)
SELECT (SELECT count(*) FROM fence), ({REPEATS})
"""


class Position(Struct, frozen=True):
    """What was sent, in the transaction ids of one system."""

    system: str
    seen: Snapshot
    upto: Snapshot
    id: int

    def text(self) -> str:
        return f"{self.system} {self.seen.text} {self.upto.text} {self.id}"

    def values(self) -> dict[str, Any]:
        """Return the parameters of ``PASSED``, and what finds the rows that are not."""
        return {
            "seen": self.seen.text,
            "upto": self.upto.text,
            "id": self.id,
            "first": self.seen.first,
            "running": array(self.seen.running),
        }


NOTHING: Final = Position("", BEGINNING, BEGINNING, 0)


class _Read(Struct, frozen=True):
    """One page that was read: the receipt before its first row, the ids, and where the last one ends."""

    before: int
    ids: Sequence[int]
    seen: Snapshot
    upto: Snapshot
    ends: bool


class PostgresqlOutboxLog:
    """The outbox table, as a relay that marks by position sees it. Receipts count what this opening has read."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._windows = Windows(link)
        self._system = ""
        self._reads: deque[_Read] = deque()
        self._count = 0
        self._saved = 0

    def resume(self) -> None:
        self._reads.clear()
        position = self._position()
        self._system = system_of(self._link)
        if position is None:
            # A table that was marked by status so far: rows that were sent above the first unsent one are repeated.
            self._windows.begin_above(self._link.look(UNSENT)[0][0])
        else:
            self._refuse_foreign(position)
            self._windows.begin_within(position.seen, position.upto, position.id)

    def read(self, limit: int) -> Sequence[Delivery]:
        page = self._windows.page(limit)
        if not page.rows:
            return []
        self._reads.append(_Read(self._count, [row[0] for row in page.rows], page.seen, page.upto, page.rest is None))
        found = deliveries(page.rows, self._count + 1)
        self._count += len(found)
        return found

    def save(self, receipt: int, fence: Fence) -> None:
        reads = self._reads
        while reads and reads[0].before + len(reads[0].ids) < receipt:
            reads.popleft()
        if not reads or receipt <= max(reads[0].before, self._saved):
            return
        read = reads[0]
        settled = receipt - read.before
        if settled == len(read.ids) and read.ends:
            position = Position(self._system, read.upto, read.upto, 0)
        else:
            position = Position(self._system, read.seen, read.upto, read.ids[settled - 1])
        self._link.fenced(SAVE, {"name": RELAY, "position": position.text()}, fence)
        self._saved = receipt

    def lag(self) -> Lag:
        waiting, since = self._link.look(LAG, (self._position() or NOTHING).values())[0]
        return Lag(waiting, in_utc(since))

    def sweep(self, older: timedelta, limit: int) -> int:
        position = self._position()
        if position is None or self._is_foreign(position):
            return 0
        return self._link.write(SWEEP, {**position.values(), "older": older, "limit": limit})

    def repeats(self, start: str) -> int:
        count: int = self._link.look(REPEATS, self._rewinding(start))[0][0]
        return count

    def rewind(self, start: str, fence: Fence) -> int:
        values = {**self._rewinding(start), "system": system_of(self._link)}
        repeated: int = self._link.fenced(REWIND, values, fence)[1]
        return repeated

    def _rewinding(self, start: str) -> Mapping[str, Any]:
        position = self._position() or NOTHING
        lost = position is not NOTHING and self._is_foreign(position)
        return {**position.values(), "start": time_of(start), "lost": lost}

    def _position(self) -> Position | None:
        rows = self._link.read(LOAD, (RELAY,))
        if not rows:
            return None
        try:
            system, seen, upto, id = rows[0][0].split(" ")
            return Position(system, snapshot(seen), snapshot(upto), int(id))
        except ValueError:
            return Position("of another kind", BEGINNING, BEGINNING, 0)

    def _is_foreign(self, position: Position) -> bool:
        return position.system != system_of(self._link) or not position.upto.precedes(self._windows.now())

    def _refuse_foreign(self, position: Position) -> None:
        if position.system != self._system:
            why = (
                f"was saved on PostgreSQL system {position.system} and this is {self._system}: the database was made "
                "of a dump, or the server was upgraded or replaced, and transactions have other ids here"
            )
        elif not position.upto.precedes(self._windows.now()):
            why = (
                f"speaks of transactions that this server has not begun yet (up to {position.upto.first}): the server "
                "was set back, and the position was not"
            )
        else:
            return
        raise PositionLost(
            f"the position of the outbox {why}; to go on could pass messages over. Say from when on messages are to be "
            "sent again, a little before the dump or the time that was restored: `yeondong replay APP outbox --from "
            "TIME`, then `yeondong flows resume APP outbox`; receivers know repeats by their ids"
        )
