"""What is known about flows, workers and suspects."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from yeondong.core.message import brief
from yeondong.core.store import Control, WorkerReport
from yeondong.stores.postgresql.link import NOW, Link, later, writable
from yeondong.stores.postgresql.rows import in_utc, loaded, stored

OF_THESE = "flow = %(flow)s AND (%(partitions)s::text[] IS NULL OR partition = ANY(%(partitions)s::text[]))"

SUSPECTS = f"SELECT message_id, attempt FROM yeondong_suspects WHERE {OF_THESE}"

SUSPECT = """
INSERT INTO yeondong_suspects (flow, partition, message_id, attempt)
VALUES (%(flow)s, %(partition)s, %(id)s, %(attempt)s)
ON CONFLICT (flow, message_id) DO UPDATE SET attempt = excluded.attempt
"""

CLEAR = f"DELETE FROM yeondong_suspects WHERE {OF_THESE}"

CONTROL = """
SELECT paused, stopped, replay, generation, paused_at, stopped_at, replay_begun FROM yeondong_flows
WHERE flow = %(flow)s
"""

PAUSE = f"""
INSERT INTO yeondong_flows AS f (flow, paused, paused_at) VALUES (%(flow)s, %(reason)s, {NOW})
ON CONFLICT (flow) DO UPDATE SET paused = excluded.paused, paused_at = coalesce(f.paused_at, excluded.paused_at)
"""

STOP = f"""
INSERT INTO yeondong_flows AS f (flow, stopped, stopped_at) VALUES (%(flow)s, %(reason)s, {NOW})
ON CONFLICT (flow) DO UPDATE SET stopped = excluded.stopped, stopped_at = coalesce(f.stopped_at, excluded.stopped_at)
"""

RESUME = """
UPDATE yeondong_flows SET paused = NULL, paused_at = NULL, stopped = NULL, stopped_at = NULL WHERE flow = %(flow)s
"""

ASK_REPLAY = """
INSERT INTO yeondong_flows AS f (flow, replay) VALUES (%(flow)s, %(start)s)
ON CONFLICT (flow) DO UPDATE SET replay = excluded.replay
"""

BEGIN_REPLAY = "UPDATE yeondong_flows SET replay_begun = true WHERE flow = %(flow)s AND replay IS NOT NULL"

REPLAYED = """
WITH noted AS (
  UPDATE yeondong_flows SET replay = nullif(replay, %(start)s), generation = generation + 1, replay_begun = false
  WHERE flow = %(flow)s AND replay IS NOT NULL RETURNING generation
)
SELECT coalesce(
  (SELECT generation FROM noted), (SELECT generation FROM yeondong_flows WHERE flow = %(flow)s), 0)
"""

WITHDRAW = """
UPDATE yeondong_flows SET replay = NULL WHERE flow = %(flow)s AND replay = %(start)s AND NOT replay_begun
"""

# An owner that opens again (after an outage) has not ended at all.
OPENED = f"""
WITH before AS MATERIALIZED (
  SELECT owner, closed_at FROM yeondong_openings WHERE flow = %(flow)s FOR UPDATE
), opened AS (
  INSERT INTO yeondong_openings (flow, owner, opened_at)
  SELECT %(flow)s, %(owner)s, {NOW} FROM (SELECT count(*) FROM before) AS seen
  ON CONFLICT (flow) DO UPDATE SET owner = excluded.owner, opened_at = excluded.opened_at, closed_at = NULL
)
SELECT EXISTS (SELECT 1 FROM before WHERE owner <> %(owner)s AND closed_at IS NULL)
"""

CLOSED = f"UPDATE yeondong_openings SET closed_at = {NOW} WHERE flow = %(flow)s AND owner = %(owner)s"

BEAT = f"""
WITH old AS (DELETE FROM yeondong_workers WHERE seen_at < {later("-86400")} AND worker <> %(worker)s)
INSERT INTO yeondong_workers (worker, report, seen_at) VALUES (%(worker)s, %(report)s, {NOW})
ON CONFLICT (worker) DO UPDATE SET report = excluded.report, seen_at = excluded.seen_at
"""

WORKERS = f"""
SELECT report, seen_at, extract(epoch FROM {NOW} - seen_at)::float FROM yeondong_workers
WHERE seen_at >= {later("-86400")} ORDER BY seen_at DESC
"""

FORGET = "DELETE FROM yeondong_workers WHERE worker = %(worker)s"


class PostgresqlSuspects:
    """The suspects table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def load(self, flow: str, partitions: Collection[str] | None = None) -> Mapping[str, int]:
        return {loaded(id): attempt for id, attempt in self._link.read(SUSPECTS, _of(flow, partitions))}

    def begin(self, flow: str, partition: str, message_id: str, attempt: int) -> None:
        values = {"flow": flow, "partition": stored(partition), "id": stored(brief(message_id)), "attempt": attempt}
        self._link.write(SUSPECT, values)

    def clear(self, flow: str, partitions: Collection[str] | None = None) -> None:
        self._link.write(CLEAR, _of(flow, partitions))


def _of(flow: str, partitions: Collection[str] | None) -> dict[str, Any]:
    return {"flow": flow, "partitions": None if partitions is None else [stored(each) for each in partitions]}


class PostgresqlFlows:
    """The tables of flows, openings and workers."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def control(self, flow: str) -> Control:
        for row in self._link.read(CONTROL, {"flow": flow}):
            paused, stopped, replay, generation, paused_at, stopped_at, begun = row
            return Control(paused, stopped, replay, generation, in_utc(paused_at), in_utc(stopped_at), begun)
        return Control()

    def pause(self, flow: str, reason: str) -> None:
        self._link.write(PAUSE, {"flow": flow, "reason": writable(reason)})

    def resume(self, flow: str) -> None:
        self._link.write(RESUME, {"flow": flow})

    def stop(self, flow: str, reason: str) -> None:
        self._link.write(STOP, {"flow": flow, "reason": writable(reason)})

    def ask_replay(self, flow: str, start: str) -> None:
        self._link.write(ASK_REPLAY, {"flow": flow, "start": start})

    def begin_replay(self, flow: str) -> None:
        self._link.write(BEGIN_REPLAY, {"flow": flow})

    def replayed(self, flow: str, start: str) -> int:
        generation: int = self._link.read(REPLAYED, {"flow": flow, "start": start})[0][0]
        return generation

    def withdraw_replay(self, flow: str, start: str) -> None:
        self._link.write(WITHDRAW, {"flow": flow, "start": start})

    def opened(self, flow: str, owner: str) -> bool:
        unclean: bool = self._link.read(OPENED, {"flow": flow, "owner": owner})[0][0]
        return unclean

    def closed(self, flow: str, owner: str) -> None:
        self._link.write(CLOSED, {"flow": flow, "owner": owner})

    def beat(self, report: WorkerReport) -> None:
        text = writable(msgspec.json.encode(report).decode())
        self._link.write(BEAT, {"worker": report.worker, "report": text})

    def workers(self) -> Sequence[WorkerReport]:
        return [
            msgspec.structs.replace(
                msgspec.json.decode(report, type=WorkerReport), seen_at=in_utc(seen_at), age_seconds=max(age, 0.0)
            )
            for report, seen_at, age in self._link.read(WORKERS)
        ]

    def forget_worker(self, worker: str) -> None:
        self._link.write(FORGET, {"worker": worker})
