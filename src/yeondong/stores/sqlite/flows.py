"""What is known about flows, workers and suspects."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from yeondong.core.store import Control, WorkerReport
from yeondong.stores.sqlite.link import NOW, Link, later, writable
from yeondong.stores.sqlite.rows import time_of

OF_THESE = "flow = :flow AND (:partitions IS NULL OR partition IN (SELECT value FROM json_each(:partitions)))"

SUSPECTS = f"SELECT message_id, attempt FROM yeondong_suspects WHERE {OF_THESE}"

SUSPECT = """
INSERT INTO yeondong_suspects (flow, partition, message_id, attempt) VALUES (:flow, :partition, :id, :attempt)
ON CONFLICT (flow, message_id) DO UPDATE SET attempt = excluded.attempt
"""

CLEAR = f"DELETE FROM yeondong_suspects WHERE {OF_THESE}"

CONTROL = """
SELECT paused, stopped, replay, generation, paused_at, stopped_at, replay_begun FROM yeondong_flows WHERE flow = :flow
"""

PAUSE = f"""
INSERT INTO yeondong_flows (flow, paused, paused_at) VALUES (:flow, :reason, {NOW})
ON CONFLICT (flow) DO UPDATE SET paused = excluded.paused, paused_at = coalesce(paused_at, excluded.paused_at)
"""

STOP = f"""
INSERT INTO yeondong_flows (flow, stopped, stopped_at) VALUES (:flow, :reason, {NOW})
ON CONFLICT (flow) DO UPDATE SET stopped = excluded.stopped, stopped_at = coalesce(stopped_at, excluded.stopped_at)
"""

RESUME = """
UPDATE yeondong_flows SET paused = NULL, paused_at = NULL, stopped = NULL, stopped_at = NULL WHERE flow = :flow
"""

ASK_REPLAY = """
INSERT INTO yeondong_flows (flow, replay) VALUES (:flow, :start)
ON CONFLICT (flow) DO UPDATE SET replay = excluded.replay
"""

BEGIN_REPLAY = "UPDATE yeondong_flows SET replay_begun = true WHERE flow = :flow AND replay IS NOT NULL"

REPLAYED = """
UPDATE yeondong_flows SET replay = nullif(replay, :start), generation = generation + 1, replay_begun = false
WHERE flow = :flow AND replay IS NOT NULL
"""

GENERATION = "SELECT coalesce(max(generation), 0) FROM yeondong_flows WHERE flow = :flow"

WITHDRAW = "UPDATE yeondong_flows SET replay = NULL WHERE flow = :flow AND replay = :start AND NOT replay_begun"

# An owner that opens again (after an outage) has not ended at all.
UNCLEAN = "SELECT 1 FROM yeondong_openings WHERE flow = :flow AND owner <> :owner AND closed_at IS NULL"

OPENED = f"""
INSERT INTO yeondong_openings (flow, owner, opened_at) VALUES (:flow, :owner, {NOW})
ON CONFLICT (flow) DO UPDATE SET owner = excluded.owner, opened_at = excluded.opened_at, closed_at = NULL
"""

CLOSED = f"UPDATE yeondong_openings SET closed_at = {NOW} WHERE flow = :flow AND owner = :owner"

BEAT = f"""
INSERT INTO yeondong_workers (worker, report, seen_at) VALUES (:worker, :report, {NOW})
ON CONFLICT (worker) DO UPDATE SET report = excluded.report, seen_at = excluded.seen_at
"""

FORGET_OLD = f"DELETE FROM yeondong_workers WHERE seen_at < {later('-86400')}"

WORKERS = f"""
SELECT report, seen_at, (julianday('now') - julianday(seen_at)) * 86400 FROM yeondong_workers
WHERE seen_at >= {later("-86400")} ORDER BY seen_at DESC
"""

FORGET = "DELETE FROM yeondong_workers WHERE worker = :worker"


class SqliteSuspects:
    """The suspects table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def load(self, flow: str, partitions: Collection[str] | None = None) -> Mapping[str, int]:
        return dict(self._link.read(SUSPECTS, _of(flow, partitions)))

    def begin(self, flow: str, partition: str, message_id: str, attempt: int) -> None:
        with self._link.writing(f"flow {flow} trying a suspect") as connection:
            connection.execute(SUSPECT, {"flow": flow, "partition": partition, "id": message_id, "attempt": attempt})

    def clear(self, flow: str, partitions: Collection[str] | None = None) -> None:
        with self._link.writing(f"flow {flow} clearing suspects") as connection:
            connection.execute(CLEAR, _of(flow, partitions))


def _of(flow: str, partitions: Collection[str] | None) -> dict[str, str | None]:
    return {
        "flow": flow,
        "partitions": None if partitions is None else msgspec.json.encode(sorted(partitions)).decode(),
    }


class SqliteFlows:
    """The tables of flows, openings and workers."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def control(self, flow: str) -> Control:
        for row in self._link.read(CONTROL, {"flow": flow}):
            paused, stopped, replay, generation, paused_at, stopped_at, begun = row
            return Control(paused, stopped, replay, generation, time_of(paused_at), time_of(stopped_at), bool(begun))
        return Control()

    def pause(self, flow: str, reason: str) -> None:
        self._write(PAUSE, flow=flow, reason=writable(reason))

    def resume(self, flow: str) -> None:
        self._write(RESUME, flow=flow)

    def stop(self, flow: str, reason: str) -> None:
        self._write(STOP, flow=flow, reason=writable(reason))

    def ask_replay(self, flow: str, start: str) -> None:
        self._write(ASK_REPLAY, flow=flow, start=start)

    def begin_replay(self, flow: str) -> None:
        with self._link.writing(f"flow {flow} going back", durable=True) as connection:
            connection.execute(BEGIN_REPLAY, {"flow": flow})

    def replayed(self, flow: str, start: str) -> int:
        # After a power cut the old generation would call everything a repeat that the replay had handled anew.
        with self._link.writing(f"flow {flow}", durable=True) as connection:
            connection.execute(REPLAYED, {"flow": flow, "start": start})
            generation: int = connection.execute(GENERATION, {"flow": flow}).fetchone()[0]
        return generation

    def withdraw_replay(self, flow: str, start: str) -> None:
        self._write(WITHDRAW, flow=flow, start=start)

    def opened(self, flow: str, owner: str) -> bool:
        with self._link.writing(f"flow {flow}") as connection:
            unclean = connection.execute(UNCLEAN, {"flow": flow, "owner": owner}).fetchone() is not None
            connection.execute(OPENED, {"flow": flow, "owner": owner})
        return unclean

    def closed(self, flow: str, owner: str) -> None:
        self._write(CLOSED, flow=flow, owner=owner)

    def beat(self, report: WorkerReport) -> None:
        text = msgspec.json.encode(report).decode()
        with self._link.writing(f"worker {report.worker} heartbeat") as connection:
            connection.execute(BEAT, {"worker": report.worker, "report": text})
            connection.execute(FORGET_OLD)

    def workers(self) -> Sequence[WorkerReport]:
        return [
            msgspec.structs.replace(
                msgspec.json.decode(report, type=WorkerReport), seen_at=time_of(seen_at), age_seconds=max(age, 0.0)
            )
            for report, seen_at, age in self._link.read(WORKERS)
        ]

    def forget_worker(self, worker: str) -> None:
        self._write(FORGET, worker=worker)

    def _write(self, statement: str, **values: str) -> None:
        with self._link.writing(" ".join(("control", *values.values()))) as connection:
            connection.execute(statement, values)
