"""Marking by status: each row of the outbox says what became of it.

No index names the status, so that marking a row as sent touches no index at all (HOT): that is twice as fast, and what
it leaves behind is cleaned up by whoever comes to that page next. What waits is found as ``windows`` finds it: by the
transactions that have ended since the last look. What is told apart otherwise (failures, rows that wait for a time) has
small indexes of its own.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import math
import time
from bisect import bisect, insort
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, TypeAlias

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import NO_HEADERS, Kind, Message
from yeondong.core.source import Lag
from yeondong.core.store import Hold
from yeondong.stores.postgresql.leases import LOAD, SAVE
from yeondong.stores.postgresql.link import FENCE, HELD, NOW, Link, later, writable
from yeondong.stores.postgresql.rows import ESCAPE, KINDS, headers_of, in_utc, loaded
from yeondong.stores.postgresql.snapshots import BEGINNING, Snapshot, snapshot
from yeondong.stores.postgresql.systems import system_of
from yeondong.stores.postgresql.windows import ROW, SIZED, Windows, apart, is_full

# One, because there is one order of rows; the column `partition` is for relays that share the work.
PARTITION: Final = "outbox"

# Up to here all rows are known to be sent, failed or due later: where a relay begins to look when it opens.
LOOKED: Final = "outbox looked through"
LOOKED_SECONDS: Final = 5.0

NO_LATER: Final = "AND status = 'WAITING' AND (due_at IS NULL OR due_at <= now())"

# Rows that others wait behind, and rows that were put off or released by a person: (NULL, is it due, id, …).
STANDING: Final = """
SELECT NULL, CASE WHEN status = 'WAITING' AND due_at <= now() THEN 1 ELSE 0 END, id::text, NULL, NULL, channel, "key",
  NULL, NULL, NULL, NULL
FROM yeondong_outbox WHERE due_at IS NOT NULL AND status = 'WAITING'
UNION ALL
SELECT NULL, 0, id::text, NULL, NULL, channel, "key", NULL, NULL, NULL, NULL
FROM yeondong_outbox WHERE blocks AND status = 'FAILED'
"""

AGAIN: Final = f"""
{SIZED.format(rows=f"SELECT {ROW} FROM yeondong_outbox WHERE id = ANY(%(ids)s::bigint[]) {NO_LATER}")}
UNION ALL {STANDING}
"""

MARK: Final = f"""
WITH {FENCE}, marked AS (
  UPDATE yeondong_outbox SET status = 'DONE', processed_at = now(), due_at = NULL
  WHERE id = ANY(%(ids)s::bigint[]) AND status = 'WAITING' AND {HELD})
SELECT count(*) FROM fence
"""

HOLD: Final = f"""
WITH {FENCE}, held AS (
  UPDATE yeondong_outbox AS o SET
    status = CASE WHEN h.failed THEN 'FAILED' ELSE 'WAITING' END,
    fail_count = CASE WHEN h.failed THEN h.attempt ELSE h.attempt - 1 END,
    failed_at = CASE WHEN h.failed THEN {NOW} ELSE o.failed_at END,
    due_at = CASE WHEN h.failed THEN NULL ELSE {later("h.after_seconds")} END,
    blocks = h.blocks, last_error = h.error
  FROM unnest(%(ids)s::bigint[], %(failed)s::boolean[], %(attempts)s::int[], %(after)s::float8[],
    %(blocks)s::boolean[], %(errors)s::text[]) AS h(id, failed, attempt, after_seconds, blocks, error)
  WHERE o.id = h.id AND o.status = 'WAITING' AND {HELD})
SELECT count(*) FROM fence
"""

FAILED: Final = "SELECT count(*) FROM yeondong_outbox WHERE failed_at IS NOT NULL AND status = 'FAILED'"

LAG: Final = """
WITH waiting AS (
  SELECT id FROM yeondong_outbox WHERE status = 'WAITING' AND txid >= %(first)s::xid8
  UNION ALL
  SELECT id FROM yeondong_outbox WHERE status = 'WAITING' AND txid = ANY(%(running)s::xid8[])
  UNION ALL
  SELECT id FROM yeondong_outbox
  WHERE status = 'WAITING' AND due_at IS NOT NULL AND pg_visible_in_snapshot(txid, %(seen)s::pg_snapshot))
SELECT count(*), (SELECT occurred_at FROM yeondong_outbox WHERE id = min(waiting.id)) FROM waiting
"""

# Only the first rows are looked at, or a sweep would read the whole table to find that nothing is old enough yet.
SWEEP: Final = """
DELETE FROM yeondong_outbox WHERE id IN (
  SELECT id FROM (
    SELECT id, processed_at FROM yeondong_outbox WHERE status = 'DONE' ORDER BY id LIMIT %(limit)s) AS first
  WHERE processed_at < now() - %(older)s::interval)
"""

# A row that does not tell when it occurred may be meant.
SINCE: Final = "(%(start)s::timestamptz IS NULL OR occurred_at IS NULL OR occurred_at >= %(start)s::timestamptz)"

REPEATS: Final = f"SELECT count(*) FROM yeondong_outbox WHERE status = 'DONE' AND {SINCE}"

# Under this transaction's id, so that they are new to every relay.
REWIND: Final = f"""
WITH {FENCE}, again AS (
  UPDATE yeondong_outbox
  SET status = 'WAITING', fail_count = 0, processed_at = NULL, txid = pg_current_xact_id()
  WHERE status = 'DONE' AND {SINCE} AND {HELD} RETURNING 1)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM again)
"""

# Transactions of another system, whose rows came with a dump: here their ids are those of transactions to come, and the
# rows would be new for ever.
ADOPT: Final = """
UPDATE yeondong_outbox SET txid = pg_current_xact_id()
WHERE txid >= pg_snapshot_xmax(pg_current_snapshot())
"""

Key: TypeAlias = tuple[str, str | None]

_by_id: Final = itemgetter(0)


class PostgresqlOutbox:
    """The outbox table, as a relay that marks by status sees it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._windows: Windows | None = None
        self._lent: set[int] = set()
        self._again: set[int] = set()  # seen before, and to be fetched once more
        self._blockers: dict[Key, int] = {}
        self._behind: dict[Key, list[int]] = {}  # seen, and not to be lent before what blocks them
        self._looked = _Looked()

    def waiting(self, limit: int, on_loan: Collection[int]) -> Sequence[Delivery]:
        windows = self._windows or self._opened()
        if self._lent != on_loan:
            self._again |= self._lent.difference(on_loan)
            self._lent = set(on_loan)
        found: list[Any] = []
        while len(found) < limit and not is_full(found):
            # What was seen before goes first: later rows of a key are not lent while any of these is left.
            if self._again:
                found.extend(self._fetched_again(limit - len(found)))
                continue
            page = windows.page(limit - len(found))
            self._stand(page.beside)
            found.extend(self._free(page.rows))
            if not self._again:
                break
        if not self._again and not self._behind:
            self._looked.through(windows.seen, self._lent)
        return deliveries(found)

    def mark(self, ids: Sequence[int], fence: Fence) -> None:
        self._link.fenced(MARK, {"ids": array(ids)}, fence)
        self._lent.difference_update(ids)
        self._looked.ended(ids)
        safe = self._looked.to_save()
        if safe is not None:
            self._link.fenced(SAVE, {"name": LOOKED, "position": f"{system_of(self._link)} {safe.text}"}, fence)

    def hold(self, holds: Sequence[Hold], fence: Fence) -> None:
        values = {
            "ids": [hold.delivery.receipt for hold in holds],
            "failed": [hold.failed for hold in holds],
            "attempts": [hold.delivery.attempt for hold in holds],
            "after": [float(hold.after_seconds) for hold in holds],
            "blocks": [hold.failed and hold.blocks and hold.delivery.message.key is not None for hold in holds],
            "errors": [hold.error and writable(hold.error) for hold in holds],
        }
        self._link.fenced(HOLD, values, fence)

    def failed(self) -> int:
        count: int = self._link.read(FAILED)[0][0]
        return count

    def lag(self) -> Lag:
        seen = self._looked_through()
        values = {"first": seen.first, "running": array(seen.running), "seen": seen.text}
        waiting, since = self._link.look(LAG, values)[0]
        return Lag(waiting, in_utc(since))

    def sweep(self, older: timedelta, limit: int) -> int:
        return self._link.write(SWEEP, {"older": older, "limit": limit})

    def repeats(self, start: str) -> int:
        count: int = self._link.look(REPEATS, {"start": time_of(start)})[0][0]
        return count

    def rewind(self, start: str, fence: Fence) -> int:
        repeated: int = self._link.fenced(REWIND, {"start": time_of(start)}, fence)[1]
        return repeated

    # --- looking ------------------------------------------------------------------------------------------------------

    def _opened(self) -> Windows:
        self._link.write(ADOPT)
        self._windows = windows = Windows(self._link, NO_LATER, STANDING)
        seen = self._looked_through()
        if seen is BEGINNING:
            windows.begin_above(0)
        else:
            windows.begin(seen)
        return windows

    def _looked_through(self) -> Snapshot:
        """Return the moment whose rows need not be looked at; that of another system tells nothing here."""
        rows = self._link.read(LOAD, (LOOKED,))
        system, _, text = rows[0][0].partition(" ") if rows else ("", "", "")
        return snapshot(text) if system and system == system_of(self._link) else BEGINNING

    def _fetched_again(self, limit: int) -> list[Any]:
        ids = sorted(self._again)[:limit]
        found, standing = apart(self._link.look(AGAIN, {"ids": array(ids)}))
        if is_full(found):
            ids = [id for id in ids if id <= found[-1][0]]
        self._again.difference_update(ids)
        self._stand(standing, {row[0] for row in found})
        self._looked.ended(set(ids).difference(map(_by_id, found)))
        return self._free(found)

    def _stand(self, standing: Iterable[Any], in_hand: Collection[int] = ()) -> None:
        """Learn who blocks and who is due, and let what is no longer blocked be fetched again."""
        blockers: dict[Key, int] = {}
        self._blockers = blockers
        for _, due, text, _, _, channel, key, *_ in standing:
            id = int(text)
            if due and not (id in self._lent or id in in_hand or id in self._behind.get((channel, key), ())):
                self._again.add(id)
            elif not due and key is not None:
                blockers[channel, key] = min(id, blockers.get((channel, key), id))
        for key, ids in list(self._behind.items()):
            free = bisect(ids, blockers[key]) if key in blockers else len(ids)
            self._again.update(ids[:free])
            del ids[:free]
            if not ids:
                del self._behind[key]

    def _free(self, rows: Sequence[Any]) -> list[Any]:
        """Lend what may go; what has to wait behind its key, or behind what is to be fetched again, is remembered."""
        lent, again = self._lent, self._again
        free = []
        before = min(again, default=None)
        for row in rows:
            id = row[0]
            if id in lent or id in again:
                continue
            if row[6] is not None and (before is not None or self._blockers or self._behind):
                key = (row[5], row[6])
                behind = self._behind.get(key)
                if (
                    (before is not None and before < id)
                    or id > self._blockers.get(key, id)
                    or (behind is not None and behind[0] < id)
                ):
                    insort(self._behind.setdefault(key, []), id)
                    continue
            lent.add(id)
            free.append(row)
        return free


class _Looked:
    """Finds moments before which all rows have been looked at and none is still waiting, lent or not."""

    def __init__(self) -> None:
        self._moment: Snapshot | None = None
        self._open: set[int] = set()
        self._saved_at = -math.inf

    def through(self, seen: Snapshot, lent: Collection[int]) -> None:
        """All rows of a moment were seen, and only these are still to be sent."""
        if self._moment is None and seen is not BEGINNING:
            self._moment, self._open = seen, set(lent)

    def ended(self, ids: Iterable[int]) -> None:
        """Take note of rows that no longer wait."""
        self._open.difference_update(ids)

    def to_save(self) -> Snapshot | None:
        """Return a moment that is worth to be saved, if there is one."""
        if self._moment is None or self._open:
            return None
        moment, self._moment = self._moment, None
        now = time.monotonic()
        if now - self._saved_at < LOOKED_SECONDS:
            return None
        self._saved_at = now
        return moment


def deliveries(rows: Iterable[Any], first_receipt: int | None = None) -> list[Delivery]:
    """Return rows that have the columns ``ROW`` as deliveries; without a first receipt, theirs are the ids."""
    found: list[Delivery] = []
    add = found.append
    number = first_receipt or 0
    for row in rows:
        id, failed, message_id, type, kind, channel, key, data, headers, origin, occurred_at = row  # noqa: A001
        receipt = id if first_receipt is None else number
        number += 1
        try:
            message = Message(
                loaded(message_id) if ESCAPE in message_id else message_id,
                loaded(type) if ESCAPE in type else type,
                KINDS[kind],
                loaded(channel) if ESCAPE in channel else channel,
                key if key is None or ESCAPE not in key else loaded(key),
                data,
                NO_HEADERS if headers is None else headers_of(headers),
                loaded(origin) if ESCAPE in origin else origin,
                None if occurred_at is None else occurred_at.replace(tzinfo=UTC),
            )
        except (LookupError, ValueError, TypeError) as error:
            # Others write here too: what can be read of a broken row, and what is wrong with it.
            broken = Message(message_id, type, Kind.EVENT, channel, key, data)
            add(Delivery(broken, receipt, PARTITION, failed + 1, f"the row is broken: {error!r}"))
        else:
            add(Delivery(message, receipt, PARTITION, failed + 1))
    return found


def time_of(start: str) -> datetime | None:
    """Return the time that a replay starts at; None for the start of everything."""
    return None if start == "start" else datetime.fromisoformat(start)


def array(values: Iterable[object]) -> str:
    """Write numbers as PostgreSQL reads an array of them."""
    return "{" + ",".join(map(str, values)) + "}"
