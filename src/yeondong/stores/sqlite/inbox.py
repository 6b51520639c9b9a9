"""Which messages a group has handled."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta

from yeondong.core.store import Transaction
from yeondong.stores.sqlite.link import NOW, Link, later
from yeondong.stores.sqlite.rows import texts

CLAIM = f"""
INSERT INTO yeondong_inbox (receiver, message_id, handled_at)
SELECT :receiver, value, {NOW} FROM json_each(:ids) WHERE true ORDER BY value
ON CONFLICT DO NOTHING RETURNING message_id
"""

CLAIM_ONE = f"""
INSERT INTO yeondong_inbox (receiver, message_id, handled_at) VALUES (:receiver, :id, {NOW})
ON CONFLICT DO NOTHING RETURNING message_id
"""

UNCLAIM = """
DELETE FROM yeondong_inbox WHERE receiver = :receiver AND message_id IN (SELECT value FROM json_each(:ids))
"""

UNCLAIM_ONE = "DELETE FROM yeondong_inbox WHERE receiver = :receiver AND message_id = :id"

SWEEP = f"""
DELETE FROM yeondong_inbox WHERE (receiver, message_id) IN (
  SELECT receiver, message_id FROM yeondong_inbox AS i
  WHERE handled_at < {later("-:seconds")}
    AND NOT EXISTS (SELECT 1 FROM yeondong_held AS h WHERE h.message_id = i.message_id)
  ORDER BY handled_at LIMIT :limit
)
"""


class SqliteInbox:
    """The inbox table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def claim(self, tx: Transaction, group: str, ids: Sequence[str]) -> set[str]:
        return {row[0] for row in self._run(tx, (CLAIM, CLAIM_ONE), group, ids)}

    def unclaim(self, tx: Transaction, group: str, ids: Sequence[str]) -> None:
        self._run(tx, (UNCLAIM, UNCLAIM_ONE), group, ids)

    def sweep(self, older: timedelta, limit: int) -> int:
        with self._link.writing("inbox janitor") as connection:
            return connection.execute(SWEEP, {"seconds": older.total_seconds(), "limit": limit}).rowcount

    def _run(self, tx: Transaction, statements: tuple[str, str], group: str, ids: Sequence[str]) -> list[tuple[str]]:
        at_once, one_by_one = statements
        array = texts(ids)
        connection: sqlite3.Connection = tx.connection
        try:
            if array is not None:
                return connection.execute(at_once, {"receiver": group, "ids": array}).fetchall()
            return [
                row
                for id in sorted(ids)
                for row in connection.execute(one_by_one, {"receiver": group, "id": id}).fetchall()
            ]
        except sqlite3.Error as error:
            self._link.file.raise_outage(error)
            raise
