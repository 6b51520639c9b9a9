"""What flows took over from their sources."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import order_key
from yeondong.core.store import HeldReceipt, Hold
from yeondong.stores.sqlite.link import NOW, Link, later, writable
from yeondong.stores.sqlite.rows import COLUMNS, FIELDS, columns, message, texts

STATE = f"""
  CASE WHEN :failed THEN 'FAILED' ELSE 'WAITING' END,
  :attempt, :blocks,
  CASE WHEN :failed THEN NULL ELSE {later(":after")} END,
  CASE WHEN :failed THEN {NOW} END,
  :error
"""

PUT = f"""
INSERT INTO yeondong_held (
  {COLUMNS}, flow, order_key, partition, held_at, status, attempt, blocks, due_at, failed_at, last_error)
VALUES ({FIELDS}, :flow, :order_key, :partition, {NOW}, {STATE})
ON CONFLICT (flow, message_id) DO NOTHING
"""

KNOWN = """
SELECT message_id FROM yeondong_held WHERE flow = :flow AND message_id IN (SELECT value FROM json_each(:ids))
"""

KNOWN_ONE = "SELECT message_id FROM yeondong_held WHERE flow = :flow AND message_id = :id"

PARTITIONS = "SELECT partition, count(*) FROM yeondong_held WHERE flow = :flow GROUP BY partition"

KEYS = "SELECT order_key, count(*) FROM yeondong_held WHERE flow = :flow AND blocks GROUP BY order_key"

# The messages themselves are read last, one by one: sorting them would take all of them into memory.
DUE = f"""
WITH first AS (
  SELECT order_key, min(id) AS id FROM yeondong_held WHERE flow = :flow AND blocks GROUP BY order_key
), turn AS (
  SELECT first.order_key, first.id FROM first JOIN yeondong_held AS f ON f.id = first.id
  WHERE f.status = 'WAITING' AND f.due_at <= {NOW}
)
SELECT id, partition, attempt, {COLUMNS} FROM yeondong_held WHERE id IN (
  SELECT h.id
  FROM turn JOIN yeondong_held AS h ON h.flow = :flow AND h.order_key = turn.order_key AND h.id >= turn.id
  WHERE h.status = 'WAITING'
    AND (:partitions IS NULL OR h.partition IN (SELECT value FROM json_each(:partitions)))
    AND NOT EXISTS (
    SELECT 1 FROM yeondong_held AS b
    WHERE b.flow = :flow AND b.order_key = h.order_key AND b.id < h.id AND b.blocks AND (b.status = 'FAILED'
      OR (:partitions IS NOT NULL AND b.partition NOT IN (SELECT value FROM json_each(:partitions)))))
  ORDER BY h.id LIMIT :limit
) ORDER BY id
"""

FORGET = "DELETE FROM yeondong_held WHERE flow = :flow AND id IN (SELECT value FROM json_each(:ids))"

AGAIN = f"""
UPDATE yeondong_held SET (status, attempt, blocks, due_at, failed_at, last_error) = ({STATE})
WHERE flow = :flow AND id = :id AND status = 'WAITING'
"""

COUNT = "SELECT count(*) FROM yeondong_held WHERE flow = :flow"


class SqliteHeld:
    """The held table."""

    copies = True

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
        # The source forgets what is in here, so it has to survive a power cut.
        with self._link.writing(f"flow {flow} holding", fences, durable=True) as connection:
            connection.executemany(PUT, [_put_values(flow, hold) for hold in holds])

    def known(self, flow: str, ids: Collection[str]) -> set[str]:
        array = texts(ids)
        if array is not None:
            return {row[0] for row in self._link.read(KNOWN, {"flow": flow, "ids": array})}
        return {row[0] for id in ids for row in self._link.read(KNOWN_ONE, {"flow": flow, "id": id})}

    def keys(self, flow: str) -> Mapping[tuple[str, ...], int]:
        return {tuple(msgspec.json.decode(key)): count for key, count in self._link.read(KEYS, {"flow": flow})}

    def due(self, flow: str, limit: int, partitions: Collection[str] | None = None) -> Sequence[Delivery]:
        chosen = None if partitions is None else msgspec.json.encode(sorted(partitions)).decode()
        rows = self._link.read_messages(DUE, {"flow": flow, "limit": limit, "partitions": chosen}, data=8)
        return [
            Delivery(message(row, 3), HeldReceipt(id), partition, attempt)
            for row in rows
            for id, partition, attempt in [row[:3]]
        ]

    def settle(self, flow: str, done: Sequence[Delivery], again: Sequence[Hold], fences: Sequence[Fence]) -> None:
        with self._link.writing(f"flow {flow} settling held", fences) as connection:
            connection.execute(FORGET, {"flow": flow, "ids": _ids(done)})
            connection.executemany(
                AGAIN, [{**_state(hold), "flow": flow, "id": hold.delivery.receipt.id} for hold in again]
            )

    def count(self, flow: str) -> int:
        count: int = self._link.read(COUNT, {"flow": flow})[0][0]
        return count

    def partitions(self, flow: str) -> Mapping[str, int]:
        return dict(self._link.read(PARTITIONS, {"flow": flow}))


def _put_values(flow: str, hold: Hold) -> dict[str, Any]:
    delivery = hold.delivery
    return {
        **columns(delivery.message),
        **_state(hold),
        "flow": flow,
        "order_key": msgspec.json.encode(order_key(delivery.message)).decode(),
        "partition": delivery.partition,
    }


def _state(hold: Hold) -> dict[str, Any]:
    return {
        "failed": hold.failed,
        "attempt": hold.delivery.attempt,
        "blocks": hold.blocks or not hold.failed,
        "after": hold.after_seconds,
        "error": hold.error and writable(hold.error),
    }


def _ids(deliveries: Sequence[Delivery]) -> str:
    return msgspec.json.encode([delivery.receipt.id for delivery in deliveries]).decode()
