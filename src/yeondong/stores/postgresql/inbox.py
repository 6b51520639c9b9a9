"""Which messages a group has handled."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import psycopg

from yeondong.connections.postgresql import SYSTEM, lost
from yeondong.core.message import brief
from yeondong.core.store import Transaction
from yeondong.errors import ConnectionLost
from yeondong.stores.postgresql.link import NOW, Link
from yeondong.stores.postgresql.rows import stored

# In the order of ids, or two groups that claim the same ones would wait for each other for ever.
CLAIM = f"""
INSERT INTO yeondong_inbox (receiver, message_id, handled_at)
SELECT %s, id, {NOW} FROM unnest(%s::text[]) AS t(id) ON CONFLICT DO NOTHING RETURNING message_id
"""

UNCLAIM = "DELETE FROM yeondong_inbox WHERE receiver = %s AND message_id = ANY(%s)"

SWEEP = f"""
WITH old AS MATERIALIZED (
  SELECT receiver, message_id FROM yeondong_inbox AS i
  WHERE handled_at < {NOW} - %s
    AND NOT EXISTS (SELECT 1 FROM yeondong_held AS h WHERE h.message_id = i.message_id)
  ORDER BY handled_at LIMIT %s
)
DELETE FROM yeondong_inbox AS i USING old WHERE i.receiver = old.receiver AND i.message_id = old.message_id
"""


class PostgresqlInbox:
    """The inbox table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def claim(self, tx: Transaction, group: str, ids: Sequence[str]) -> set[str]:
        keys = _keys(ids)
        try:
            rows = tx.connection.execute(self._link.place.sql(CLAIM), (group, sorted(keys))).fetchall()
        except psycopg.Error as error:
            raise self._translated(error) from error
        return {keys[key] for (key,) in rows}

    def unclaim(self, tx: Transaction, group: str, ids: Sequence[str]) -> None:
        try:
            tx.connection.execute(self._link.place.sql(UNCLAIM), (group, list(_keys(ids))))
        except psycopg.Error as error:
            raise self._translated(error) from error

    def sweep(self, older: timedelta, limit: int) -> int:
        return self._link.write(SWEEP, (older, limit))

    def _translated(self, error: psycopg.Error) -> Exception:
        reason = lost(error)
        return error if reason is None else ConnectionLost(SYSTEM, self._link.address, reason)


def _keys(ids: Sequence[str]) -> dict[str, str]:
    """Return the ids by what stands for them in the table."""
    return {stored(brief(id)): id for id in ids}
