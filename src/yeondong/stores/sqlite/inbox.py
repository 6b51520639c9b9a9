"""Which messages a group has handled."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from yeondong.core.store import Transaction
from yeondong.stores.sqlite.link import NOW, Link, later

CLAIM = f"""
INSERT INTO yeondong_inbox (receiver, message_id, handled_at)
SELECT :receiver, value, {NOW} FROM json_each(:ids) WHERE true ORDER BY value
ON CONFLICT DO NOTHING RETURNING message_id
"""

UNCLAIM = """
DELETE FROM yeondong_inbox WHERE receiver = :receiver AND message_id IN (SELECT value FROM json_each(:ids))
"""

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
        return {row[0] for row in self._run(tx, CLAIM, group, ids)}

    def unclaim(self, tx: Transaction, group: str, ids: Sequence[str]) -> None:
        self._run(tx, UNCLAIM, group, ids)

    def sweep(self, older: timedelta, limit: int) -> int:
        with self._link.writing("inbox janitor") as connection:
            return connection.execute(SWEEP, {"seconds": older.total_seconds(), "limit": limit}).rowcount

    def _run(self, tx: Transaction, statement: str, group: str, ids: Sequence[str]) -> list[tuple[str]]:
        values = {"receiver": group, "ids": msgspec.json.encode(ids).decode()}
        connection: sqlite3.Connection = tx.connection
        try:
            return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._link.file.raise_outage(error)
            raise
