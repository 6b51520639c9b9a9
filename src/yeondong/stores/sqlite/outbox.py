"""The outbox table, as callers fill it and as the relay sees it."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Message
from yeondong.core.source import Lag
from yeondong.core.store import Hold
from yeondong.stores.sqlite.link import NOW, Link, later, writable
from yeondong.stores.sqlite.rows import COLUMNS, FIELDS, columns, foreign_message, partition_of, time_of, time_text

# One, because there is one order of ids and one position; the column `partition` is for relays that share the work.
PARTITION = "outbox"

ADD = f"INSERT INTO yeondong_outbox ({COLUMNS}, partition) VALUES ({FIELDS}, :partition)"

FETCH = f"SELECT id, fail_count, {COLUMNS} FROM yeondong_outbox AS o"

WAITING = f"{FETCH} WHERE status = 'WAITING' ORDER BY id LIMIT :limit"

# Rows below those fetched before are looked at too: a commit that comes late brings ids that were given early.
WAITING_BESIDE_LOANS = f"""{FETCH}
WHERE status = 'WAITING' AND id NOT IN (SELECT value FROM json_each(:on_loan)) ORDER BY id LIMIT :limit
"""

WAITING_UNBLOCKED = f"""{FETCH}
WHERE status = 'WAITING' AND id NOT IN (SELECT value FROM json_each(:on_loan))
  AND (due_at IS NULL OR due_at <= {NOW})
  AND NOT EXISTS (
    SELECT 1 FROM yeondong_outbox AS f
    WHERE f.blocks AND f.channel = o.channel AND f.key = o.key AND f.id < o.id)
  AND NOT EXISTS (
    SELECT 1 FROM yeondong_outbox AS l
    WHERE l.status = 'WAITING' AND l.channel = o.channel AND l.key = o.key AND l.id < o.id AND l.due_at > {NOW})
ORDER BY id LIMIT :limit
"""

# Left to itself, SQLite would look for a later time among all that waits.
BLOCKED = f"""
SELECT EXISTS (SELECT 1 FROM yeondong_outbox WHERE blocks) OR EXISTS (
  SELECT 1 FROM yeondong_outbox INDEXED BY yeondong_outbox_later WHERE status = 'WAITING' AND due_at > {NOW})
"""

MARK = f"""
UPDATE yeondong_outbox SET status = 'DONE', processed_at = {NOW}
WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'WAITING'
"""

FAIL = f"""
UPDATE yeondong_outbox
SET status = 'FAILED', fail_count = :attempt, failed_at = {NOW}, last_error = :error, blocks = :blocks, due_at = NULL
WHERE id = :id AND status = 'WAITING'
"""

DELAY = f"""
UPDATE yeondong_outbox SET fail_count = :attempt - 1, due_at = {later(":after")}, last_error = :error
WHERE id = :id AND status = 'WAITING'
"""

FAILED = "SELECT count(*) FROM yeondong_outbox WHERE status = 'FAILED'"

LAG = """
SELECT count(*), (SELECT occurred_at FROM yeondong_outbox WHERE status = 'WAITING' ORDER BY id LIMIT 1)
FROM yeondong_outbox WHERE status = 'WAITING'
"""

# Only the first rows are looked at, or a sweep would read the whole table to find that nothing is old enough yet.
OLD_DONE = f"""
SELECT id FROM (SELECT id, processed_at FROM yeondong_outbox WHERE status = 'DONE' ORDER BY id LIMIT :limit)
WHERE processed_at < {later("-:seconds")}
"""

DELETE = "DELETE FROM yeondong_outbox WHERE id IN (SELECT value FROM json_each(:ids))"

# `start` is NULL for all; a row that does not tell when it occurred may be meant.
SENT_SINCE = "status = 'DONE' AND (:start IS NULL OR occurred_at IS NULL OR occurred_at >= :start)"

REPEATS = f"SELECT count(*) FROM yeondong_outbox WHERE {SENT_SINCE}"

REWIND = f"UPDATE yeondong_outbox SET status = 'WAITING', fail_count = 0, processed_at = NULL WHERE {SENT_SINCE}"


def added(message: Message) -> dict[str, Any]:
    """Return the values of ``ADD``."""
    return {**columns(message), "partition": partition_of(message)}


class SqliteOutbox:
    """The outbox table as the relay sees it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def waiting(self, limit: int, on_loan: Collection[int]) -> Sequence[Delivery]:
        if self._link.read(BLOCKED)[0][0]:
            statement = WAITING_UNBLOCKED
        elif on_loan:
            statement = WAITING_BESIDE_LOANS
        else:
            return self._deliveries(WAITING, {"limit": limit})
        return self._deliveries(statement, {"limit": limit, "on_loan": _array(on_loan)})

    def mark(self, ids: Sequence[int], fence: Fence) -> None:
        with self._link.writing("outbox relay", [fence]) as connection:
            connection.execute(MARK, {"ids": _array(ids)})

    def hold(self, holds: Sequence[Hold], fence: Fence) -> None:
        with self._link.writing("outbox relay", [fence]) as connection:
            for hold in holds:
                connection.execute(FAIL if hold.failed else DELAY, _state(hold))

    def failed(self) -> int:
        count: int = self._link.read(FAILED)[0][0]
        return count

    def lag(self) -> Lag:
        waiting, since = self._link.read(LAG)[0]
        return Lag(waiting, time_of(since))

    def sweep(self, older: timedelta, limit: int) -> int:
        return sweep(self._link, OLD_DONE, {"seconds": older.total_seconds(), "limit": limit})

    def repeats(self, start: str) -> int:
        count: int = self._link.read(REPEATS, {"start": since(start)})[0][0]
        return count

    def rewind(self, start: str, fence: Fence) -> int:
        with self._link.writing("outbox replay", [fence], durable=True) as connection:
            return connection.execute(REWIND, {"start": since(start)}).rowcount

    def _deliveries(self, statement: str, values: Mapping[str, Any]) -> list[Delivery]:
        return deliveries(self._link, statement, values)


def deliveries(link: Link, statement: str, values: Mapping[str, Any]) -> list[Delivery]:
    """Run ``FETCH`` with its conditions, and return the rows as deliveries."""
    found = []
    for row in link.read_messages(statement, values, data=7):
        message, flaw = foreign_message(row, 2)
        found.append(Delivery(message, row[0], PARTITION, row[1] + 1, flaw))
    return found


def sweep(link: Link, old_rows: str, values: Mapping[str, Any]) -> int:
    """Delete the rows that a query names, and return how many."""
    # Found before the lock is taken: what is old stays old, and looking may take long where much waits.
    old = [row[0] for row in link.read(old_rows, values)]
    if not old:
        return 0
    with link.writing("outbox janitor") as connection:
        return connection.execute(DELETE, {"ids": _array(old)}).rowcount


def since(start: str) -> str | None:
    """Return the time that a replay starts at as SQLite compares it; None for the start of everything."""
    return None if start == "start" else time_text(datetime.fromisoformat(start))


def _state(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.delivery.receipt,
        "attempt": hold.delivery.attempt,
        "after": hold.after_seconds,
        "error": hold.error and writable(hold.error),
        "blocks": hold.blocks and hold.delivery.message.key is not None,
    }


def _array(ids: Collection[int]) -> str:
    return msgspec.json.encode(list(ids)).decode()
