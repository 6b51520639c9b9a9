"""What flows took over from their sources."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import brief, order_key
from yeondong.core.store import HeldReceipt, Hold
from yeondong.stores.postgresql.link import ALL_HELD, FENCES, NOW, READ_BYTES, Link, later, writable
from yeondong.stores.postgresql.rows import COLUMNS, columns, loaded, message, stored

PUT = f"""
WITH {FENCES}, put AS (
INSERT INTO yeondong_held (
  {COLUMNS}, flow, order_key, partition, held_at, status, attempt, blocks, due_at, failed_at, last_error)
SELECT {COLUMNS}, %(flow)s, order_key, partition, {NOW},
  CASE WHEN failed THEN 'FAILED' ELSE 'WAITING' END, attempt, blocks,
  CASE WHEN NOT failed THEN {later("after")} END, CASE WHEN failed THEN {NOW} END, error
FROM unnest(
  %(ids)s::text[], %(types)s::text[], %(kinds)s::text[], %(channels)s::text[], %(keys)s::text[], %(payloads)s::bytea[],
  %(headers)s::text[], %(origins)s::text[], %(occurred)s::timestamptz[], %(order_keys)s::text[],
  %(partitions)s::text[], %(failed)s::boolean[], %(attempts)s::integer[], %(blocks)s::boolean[], %(after)s::float[],
  %(errors)s::text[]
) WITH ORDINALITY AS t({COLUMNS}, order_key, partition, failed, attempt, blocks, after, error, number)
WHERE {ALL_HELD} ORDER BY number
ON CONFLICT (flow, message_id) DO NOTHING
) SELECT held FROM fences
"""

KNOWN = "SELECT message_id FROM yeondong_held WHERE flow = %s AND message_id = ANY(%s)"

KEYS = "SELECT order_key, count(*) FROM yeondong_held WHERE flow = %s AND blocks GROUP BY order_key"

# No more than 8 MiB at once, save a single larger one: 500 messages may be of 1 MiB each.
DUE = f"""
WITH first AS (
  SELECT order_key, min(id) AS id FROM yeondong_held WHERE flow = %(flow)s AND blocks GROUP BY order_key
), turn AS (
  SELECT first.order_key, first.id FROM first JOIN yeondong_held AS f ON f.id = first.id
  WHERE f.status = 'WAITING' AND f.due_at <= {NOW}
), due AS (
  SELECT h.id, sum(octet_length(h.payload)) OVER (ORDER BY h.id ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW) AS before
  FROM turn JOIN yeondong_held AS h ON h.flow = %(flow)s AND h.order_key = turn.order_key AND h.id >= turn.id
  WHERE h.status = 'WAITING'
    AND (%(partitions)s::text[] IS NULL OR h.partition = ANY(%(partitions)s::text[]))
    AND NOT EXISTS (
    SELECT 1 FROM yeondong_held AS b
    WHERE b.flow = %(flow)s AND b.order_key = h.order_key AND b.id < h.id AND b.blocks
      AND (b.status = 'FAILED' OR b.partition <> ALL(%(partitions)s::text[])))
  ORDER BY h.id LIMIT %(limit)s
)
SELECT id, partition, attempt, {COLUMNS} FROM due JOIN yeondong_held USING (id)
WHERE coalesce(before, 0) < {READ_BYTES} ORDER BY id
"""

SETTLE = f"""
WITH {FENCES}, forgotten AS (
DELETE FROM yeondong_held WHERE flow = %(flow)s AND id = ANY(%(done)s::bigint[]) AND {ALL_HELD}
), again AS (
UPDATE yeondong_held AS h
SET status = CASE WHEN failed THEN 'FAILED' ELSE 'WAITING' END, attempt = t.attempt, blocks = t.blocks,
    due_at = CASE WHEN NOT failed THEN {later("after")} END, failed_at = CASE WHEN failed THEN {NOW} END,
    last_error = error
FROM unnest(
  %(ids)s::bigint[], %(failed)s::boolean[], %(attempts)s::integer[], %(blocks)s::boolean[], %(after)s::float[],
  %(errors)s::text[]
) AS t(id, failed, attempt, blocks, after, error)
WHERE h.flow = %(flow)s AND h.id = t.id AND h.status = 'WAITING' AND {ALL_HELD}
) SELECT held FROM fences
"""

PARTITIONS = "SELECT partition, count(*) FROM yeondong_held WHERE flow = %s GROUP BY partition"

COUNT = "SELECT count(*) FROM yeondong_held WHERE flow = %s"


class PostgresqlHeld:
    """The held table.

    An id that is too long for its index comes out as what stands for it, here and in the inbox.
    """

    copies = True

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
        self._link.fenced_by(PUT, _put_values(flow, holds), fences)

    def known(self, flow: str, ids: Collection[str]) -> set[str]:
        places = {stored(brief(id)): id for id in ids}
        return {places[row[0]] for row in self._link.read(KNOWN, (flow, list(places)))}

    def keys(self, flow: str) -> Mapping[tuple[str, ...], int]:
        return {tuple(msgspec.json.decode(key)): count for key, count in self._link.read(KEYS, (flow,))}

    def due(self, flow: str, limit: int, partitions: Collection[str] | None = None) -> Sequence[Delivery]:
        chosen = None if partitions is None else [stored(partition) for partition in partitions]
        rows = self._link.read(DUE, {"flow": flow, "limit": limit, "partitions": chosen})
        return [
            Delivery(message(row, 3), HeldReceipt(id), loaded(partition), attempt)
            for row in rows
            for id, partition, attempt in [row[:3]]
        ]

    def settle(self, flow: str, done: Sequence[Delivery], again: Sequence[Hold], fences: Sequence[Fence]) -> None:
        values = {
            **_states(again),
            "flow": flow,
            "ids": [hold.delivery.receipt.id for hold in again],
            "done": [delivery.receipt.id for delivery in done],
        }
        self._link.fenced_by(SETTLE, values, fences)

    def count(self, flow: str) -> int:
        count: int = self._link.read(COUNT, (flow,))[0][0]
        return count

    def partitions(self, flow: str) -> Mapping[str, int]:
        return {loaded(partition): count for partition, count in self._link.read(PARTITIONS, (flow,))}


def _put_values(flow: str, holds: Sequence[Hold]) -> dict[str, Any]:
    rows = [columns(hold.delivery.message) for hold in holds]
    names = ("ids", "types", "kinds", "channels", "keys", "payloads", "headers", "origins", "occurred")
    return {
        **{name: [row[index] for row in rows] for index, name in enumerate(names)},
        **_states(holds),
        "ids": [stored(brief(hold.delivery.message.id)) for hold in holds],
        "flow": flow,
        "order_keys": [msgspec.json.encode(order_key(hold.delivery.message)).decode() for hold in holds],
        "partitions": [stored(hold.delivery.partition) for hold in holds],
    }


def _states(holds: Sequence[Hold]) -> dict[str, Any]:
    return {
        "failed": [hold.failed for hold in holds],
        "attempts": [hold.delivery.attempt for hold in holds],
        "blocks": [hold.blocks or not hold.failed for hold in holds],
        "after": [float(hold.after_seconds) for hold in holds],
        "errors": [hold.error and writable(hold.error) for hold in holds],
    }
