"""Failures, wherever they are kept, and what persons do about them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from yeondong.core.store import RELAY, Failure, FailureFilter
from yeondong.stores.sqlite.link import NOW, Link
from yeondong.stores.sqlite.rows import COLUMNS, foreign_message, time_of, time_text

FAILED = f"""
SELECT * FROM (
  SELECT 'h' || id AS id, flow, {COLUMNS}, attempt AS attempts, last_error, failed_at, blocks, id AS number
  FROM yeondong_held WHERE status = 'FAILED'
  UNION ALL
  SELECT 'o' || id, '{RELAY}', {COLUMNS}, fail_count, last_error, failed_at, blocks AND key IS NOT NULL, id
  FROM yeondong_outbox WHERE status = 'FAILED'
) AS f
WHERE (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:flow IS NULL OR flow = :flow)
  AND (:type IS NULL OR message_type = :type)
  AND (:key IS NULL OR key = :key)
  AND (:error IS NULL OR instr(lower(last_error), lower(:error)))
  AND (:before IS NULL OR failed_at < :before)
"""

FIND = f"""
SELECT id, flow, {COLUMNS}, attempts, last_error, failed_at, blocks, EXISTS (
  SELECT 1 FROM yeondong_actions AS a WHERE a.failure_id = f.id AND a.action = 'edit') AS edited
FROM ({FAILED}) AS f ORDER BY failed_at, number LIMIT :limit
"""

COUNT = f"SELECT count(*) FROM ({FAILED})"

BEHIND_HELD = """
SELECT 'h' || f.id, count(*) FROM yeondong_held AS f JOIN yeondong_held AS w
  ON w.flow = f.flow AND w.order_key = f.order_key AND w.id > f.id AND w.status = 'WAITING'
WHERE f.id IN (SELECT value FROM json_each(:ids)) AND f.blocks AND f.status = 'FAILED' GROUP BY f.id
"""

# CROSS JOIN keeps the order of the tables: one pass over what waits, however many failures there are.
BEHIND_OUTBOX = """
WITH f AS MATERIALIZED (
  SELECT id, channel, key FROM yeondong_outbox
  WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'FAILED' AND blocks)
SELECT 'o' || f.id, count(*) FROM yeondong_outbox AS w CROSS JOIN f
  ON f.channel = w.channel AND f.key = w.key AND f.id < w.id
WHERE w.status = 'WAITING' GROUP BY f.id
"""

RETRY_HELD = f"""
UPDATE yeondong_held
SET status = 'WAITING', attempt = 1, blocks = true, due_at = {NOW}, failed_at = NULL, last_error = NULL
WHERE id = :id AND status = 'FAILED' RETURNING flow, message_id, NULL, NULL
"""

RETRY_OUTBOX = f"""
UPDATE yeondong_outbox
SET status = 'WAITING', fail_count = 0, blocks = false, due_at = NULL, failed_at = NULL, last_error = NULL
WHERE id = :id AND status = 'FAILED' RETURNING '{RELAY}', message_id, NULL, NULL
"""

# A message that once killed its process would otherwise go on with the attempts counted then.
UNSUSPECT = "DELETE FROM yeondong_suspects WHERE flow = :flow AND message_id = :message_id"

ENTRY = """
json_object('id', id, 'message_id', message_id, 'message_type', message_type, 'kind', kind, 'channel', channel,
  'key', key, 'headers', headers, 'origin', origin, 'occurred_at', occurred_at, 'failed_at', failed_at,
  'last_error', last_error)
"""

DISCARD_HELD = f"""
DELETE FROM yeondong_held WHERE id = :id AND status = 'FAILED' RETURNING flow, message_id, payload, {ENTRY}
"""

DISCARD_OUTBOX = f"""
DELETE FROM yeondong_outbox WHERE id = :id AND status = 'FAILED' RETURNING '{RELAY}', message_id, payload, {ENTRY}
"""

READ_HELD = "SELECT flow, message_id, payload, NULL FROM yeondong_held WHERE id = :id AND status = 'FAILED'"

READ_OUTBOX = f"SELECT '{RELAY}', message_id, payload, NULL FROM yeondong_outbox WHERE id = :id AND status = 'FAILED'"

EDIT_HELD = "UPDATE yeondong_held SET payload = :payload WHERE id = :id"

EDIT_OUTBOX = "UPDATE yeondong_outbox SET payload = :payload WHERE id = :id"

NOTE = f"""
INSERT INTO yeondong_actions (failure_id, at, "by", action, flow, message_id, original, entry)
VALUES (:failure_id, {NOW}, :by, :action, :flow, :message_id, :original, :entry)
"""

ACTIONS = 'SELECT at, "by", action, original FROM yeondong_actions WHERE failure_id = :id ORDER BY id'

_ID = re.compile(r"([ho])([1-9][0-9]{0,17})")


class SqliteFailures:
    """Failures among the held entries (ids like ``h12``) and on the outbox's own rows (``o431``)."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def find(self, which: FailureFilter, limit: int) -> Sequence[Failure]:
        rows = self._link.read(FIND, {**_values(which), "limit": limit})
        behind = self._behind([row[0] for row in rows if row[14]])
        return [
            Failure(
                id=row[0],
                flow=row[1],
                message=foreign_message(row, 2)[0],
                attempts=row[11],
                error=row[12] or "",
                failed_at=time_of(row[13]) or datetime.min.replace(tzinfo=UTC),
                blocks=bool(row[14]),
                behind=behind.get(row[0], 0),
                edited=bool(row[15]),
            )
            for row in rows
        ]

    def count(self, which: FailureFilter) -> int:
        count: int = self._link.read(COUNT, _values(which))[0][0]
        return count

    def retry(self, ids: Sequence[str], by: str) -> int:
        with self._link.writing(f"retry by {by}", durable=True) as connection:
            retried = 0
            for id, place, number in _places(ids):
                row = _one(connection, RETRY_HELD if place == "h" else RETRY_OUTBOX, number)
                if row is not None:
                    connection.execute(UNSUSPECT, {"flow": row[0], "message_id": row[1]})
                    _note(connection, id, by, "retry", row)
                    retried += 1
        return retried

    def discard(self, ids: Sequence[str], by: str) -> int:
        with self._link.writing(f"discard by {by}", durable=True) as connection:
            discarded = 0
            for id, place, number in _places(ids):
                row = _one(connection, DISCARD_HELD if place == "h" else DISCARD_OUTBOX, number)
                if row is not None:
                    _note(connection, id, by, "discard", row)
                    discarded += 1
        return discarded

    def edit(self, id: str, data: bytes, by: str) -> bool:
        with self._link.writing(f"edit by {by}", durable=True) as connection:
            for _, place, number in _places([id]):
                row = _one(connection, READ_HELD if place == "h" else READ_OUTBOX, number)
                if row is not None:
                    connection.execute(EDIT_HELD if place == "h" else EDIT_OUTBOX, {"id": number, "payload": data})
                    _note(connection, id, by, "edit", row)
                    return True
        return False

    def actions(self, id: str) -> Sequence[Mapping[str, Any]]:
        return [
            {"at": time_of(at), "by": by, "action": action, "original": original}
            for at, by, action, original in self._link.read(ACTIONS, {"id": id})
        ]

    def _behind(self, ids: Sequence[str]) -> dict[str, int]:
        behind: dict[str, int] = {}
        for place, statement in (("h", BEHIND_HELD), ("o", BEHIND_OUTBOX)):
            numbers = [number for _, where, number in _places(ids) if where == place]
            if numbers:
                behind.update(self._link.read(statement, {"ids": msgspec.json.encode(numbers).decode()}))
        return behind


def _values(which: FailureFilter) -> dict[str, Any]:
    return {
        "ids": None if which.ids is None else msgspec.json.encode(list(which.ids)).decode(),
        "flow": which.flow,
        "type": which.type,
        "key": which.key,
        "error": which.error,
        "before": time_text(which.before),
    }


def _places(ids: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Give each id with the table it is in and its number there; what is no id of ours names nothing."""
    for id in ids:
        match = _ID.fullmatch(id)
        if match:
            yield id, match[1], int(match[2])


def _one(connection: sqlite3.Connection, statement: str, number: int) -> Any:
    rows = connection.execute(statement, {"id": number}).fetchall()
    return rows[0] if rows else None


def _note(connection: sqlite3.Connection, id: str, by: str, action: str, row: Any) -> None:
    flow, message_id, original, entry = row
    connection.execute(
        NOTE,
        {
            "failure_id": id,
            "by": by,
            "action": action,
            "flow": flow,
            "message_id": message_id,
            "original": original,
            "entry": entry,
        },
    )
