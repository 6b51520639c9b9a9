"""Failures, wherever they are kept, and what persons do about them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from yeondong.core.store import RELAY, Failure, FailureFilter
from yeondong.stores.postgresql.link import NOW, Link, Run
from yeondong.stores.postgresql.rows import COLUMNS, foreign_message, in_utc, stored

FAILED = f"""
SELECT * FROM (
  SELECT 'h' || id AS id, flow, {COLUMNS}, attempt AS attempts, last_error, failed_at, blocks, id AS number
  FROM yeondong_held WHERE status = 'FAILED'
  UNION ALL
  SELECT 'o' || id, '{RELAY}', {COLUMNS}, fail_count, last_error, failed_at, blocks AND "key" IS NOT NULL, id
  FROM yeondong_outbox WHERE failed_at IS NOT NULL AND status = 'FAILED'
) AS f
WHERE (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s::text[]))
  AND (%(flow)s::text IS NULL OR flow = %(flow)s::text)
  AND (%(type)s::text IS NULL OR message_type = %(type)s::text)
  AND (%(key)s::text IS NULL OR "key" = %(key)s::text)
  AND (%(error)s::text IS NULL OR strpos(lower(last_error), lower(%(error)s::text)) > 0)
  AND (%(before)s::timestamptz IS NULL OR failed_at < %(before)s::timestamptz)
"""

FIND = f"""
SELECT id, flow, {COLUMNS}, attempts, last_error, failed_at, blocks, EXISTS (
  SELECT 1 FROM yeondong_actions AS a WHERE a.failure_id = f.id AND a.action = 'edit') AS edited
FROM ({FAILED}) AS f ORDER BY failed_at, number LIMIT %(limit)s
"""

COUNT = f"SELECT count(*) FROM ({FAILED}) AS f"

BEHIND_HELD = """
SELECT 'h' || f.id, count(*) FROM yeondong_held AS f JOIN yeondong_held AS w
  ON w.flow = f.flow AND w.order_key = f.order_key AND w.id > f.id AND w.status = 'WAITING'
WHERE f.id = ANY(%s) AND f.blocks AND f.status = 'FAILED' GROUP BY f.id
"""

BEHIND_OUTBOX = """
SELECT 'o' || f.id, count(*) FROM yeondong_outbox AS w JOIN yeondong_outbox AS f
  ON f.channel = w.channel AND f."key" = w."key" AND f.id < w.id
WHERE f.id = ANY(%s) AND f.status = 'FAILED' AND f.blocks AND w.status = 'WAITING' GROUP BY f.id
"""

RETRY_HELD = f"""
UPDATE yeondong_held
SET status = 'WAITING', attempt = 1, blocks = true, due_at = {NOW}, failed_at = NULL, last_error = NULL
WHERE id = %(id)s AND status = 'FAILED' RETURNING flow, message_id, NULL, NULL
"""

# Due at once, by which the relay finds it: it looks no more at rows that it has been through.
RETRY_OUTBOX = f"""
UPDATE yeondong_outbox
SET status = 'WAITING', fail_count = 0, blocks = false, due_at = now(), failed_at = NULL, last_error = NULL
WHERE id = %(id)s AND status = 'FAILED' RETURNING '{RELAY}', message_id, NULL, NULL
"""

# A message that once killed its process would otherwise go on with the attempts counted then.
UNSUSPECT = "DELETE FROM yeondong_suspects WHERE flow = %(flow)s AND message_id = %(message_id)s"

ENTRY = """
json_build_object('id', id, 'message_id', message_id, 'message_type', message_type, 'kind', kind, 'channel', channel,
  'key', "key", 'headers', headers, 'origin', origin, 'occurred_at', occurred_at, 'failed_at', failed_at,
  'last_error', last_error)::text
"""

DISCARD_HELD = f"""
DELETE FROM yeondong_held WHERE id = %(id)s AND status = 'FAILED' RETURNING flow, message_id, payload, {ENTRY}
"""

DISCARD_OUTBOX = f"""
DELETE FROM yeondong_outbox WHERE id = %(id)s AND status = 'FAILED' RETURNING '{RELAY}', message_id, payload, {ENTRY}
"""

READ_HELD = """
SELECT flow, message_id, payload, NULL FROM yeondong_held WHERE id = %(id)s AND status = 'FAILED' FOR UPDATE
"""

READ_OUTBOX = f"""
SELECT '{RELAY}', message_id, payload, NULL FROM yeondong_outbox WHERE id = %(id)s AND status = 'FAILED' FOR UPDATE
"""

EDIT_HELD = "UPDATE yeondong_held SET payload = %(payload)s WHERE id = %(id)s"

EDIT_OUTBOX = "UPDATE yeondong_outbox SET payload = %(payload)s WHERE id = %(id)s"

NOTE = f"""
INSERT INTO yeondong_actions (failure_id, at, "by", action, flow, message_id, original, entry)
VALUES (%(failure_id)s, {NOW}, %(by)s, %(action)s, %(flow)s, %(message_id)s, %(original)s, %(entry)s)
"""

ACTIONS = 'SELECT at, "by", action, original FROM yeondong_actions WHERE failure_id = %(id)s ORDER BY id'

_ID = re.compile(r"([ho])([1-9][0-9]{0,17})")


class PostgresqlFailures:
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
                failed_at=row[13].astimezone(UTC),
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
        with self._link.transaction() as run:
            retried = 0
            for id, place, number in sorted(_places(ids)):
                row = _one(run, RETRY_HELD if place == "h" else RETRY_OUTBOX, number)
                if row is not None:
                    run(UNSUSPECT, {"flow": row[0], "message_id": row[1]})
                    _note(run, id, by, "retry", row)
                    retried += 1
        return retried

    def discard(self, ids: Sequence[str], by: str) -> int:
        with self._link.transaction() as run:
            discarded = 0
            for id, place, number in sorted(_places(ids)):
                row = _one(run, DISCARD_HELD if place == "h" else DISCARD_OUTBOX, number)
                if row is not None:
                    _note(run, id, by, "discard", row)
                    discarded += 1
        return discarded

    def edit(self, id: str, data: bytes, by: str) -> bool:
        with self._link.transaction() as run:
            for _, place, number in _places([id]):
                row = _one(run, READ_HELD if place == "h" else READ_OUTBOX, number)
                if row is not None:
                    run(EDIT_HELD if place == "h" else EDIT_OUTBOX, {"id": number, "payload": data})
                    _note(run, id, by, "edit", row)
                    return True
        return False

    def actions(self, id: str) -> Sequence[Mapping[str, Any]]:
        return [
            {"at": in_utc(at), "by": by, "action": action, "original": original}
            for at, by, action, original in self._link.read(ACTIONS, {"id": id})
        ]

    def _behind(self, ids: Sequence[str]) -> dict[str, int]:
        behind: dict[str, int] = {}
        for place, statement in (("h", BEHIND_HELD), ("o", BEHIND_OUTBOX)):
            numbers = [number for _, where, number in _places(ids) if where == place]
            if numbers:
                behind.update(self._link.read(statement, (numbers,)))
        return behind


def _values(which: FailureFilter) -> dict[str, Any]:
    return {
        "ids": None if which.ids is None else [id for id in which.ids if "\0" not in id],
        "flow": which.flow,
        "type": which.type,
        "key": None if which.key is None else stored(which.key),
        "error": which.error,
        "before": which.before,
    }


def _places(ids: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Give each id with the table it is in and its number there; what is no id of ours names nothing."""
    for id in ids:
        match = _ID.fullmatch(id)
        if match:
            yield id, match[1], int(match[2])


def _one(run: Run, statement: str, number: int) -> Any:
    rows = run(statement, {"id": number})
    return rows[0] if rows else None


def _note(run: Run, id: str, by: str, action: str, row: Any) -> None:
    flow, message_id, original, entry = row
    run(
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
