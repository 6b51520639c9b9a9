"""Works of the outbox on PostgreSQL, to a sink that drops and to Kafka."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Part, Side, Target, Work

OURS = "benchmarks.sides.outbox_postgresql"
BARE = "benchmarks.sides.bare_outbox"
TXOUTBOX = "benchmarks.sides.peer_txoutbox_postgresql"
LATENCY = "benchmarks.sides.outbox_postgresql_latency"
FASTSTREAM_OUTBOX = "benchmarks.sides.peer_faststream_outbox"

BYTES = 256
ROUNDS = 3
BARE_BATCH = 5_000  # the best of 500, 1,000, 2,000 and 5,000
PEER_BATCH = 2_000  # the same
MILLION = 1_000_000
POSTGRESQL = ["postgresql"]
BOTH = ["postgresql", "kafka"]


def works(quick: bool) -> Sequence[Work]:  # noqa: FBT001 -- the command's flag
    """Return the works, small ones for ``quick``."""
    return [*_rates(quick), *_latencies(quick), *_backlogs(quick)]


def _rates(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    rows = 3_000 if quick else 100_000
    for_peer = 2_000 if quick else 30_000
    settings = {"bytes": BYTES, "keys": 1_000, "rows": rows, "rows for txoutbox": for_peer, "lanes": 1}
    ours = {"rows": rows, "size": BYTES}
    bare = {"rows": rows, "size": BYTES, "batch": BARE_BATCH}
    peer = {"rows": for_peer, "size": BYTES, "batch": PEER_BATCH}
    peer_differs = (
        f"leases each row instead of the relay, keeps no status of when it was sent; batch {PEER_BATCH}, all keys of a "
        "batch at once, no time-out for publishing, on uvloop"
    )
    to_kafka = f"{peer_differs}; its publisher is confluent-kafka, polled by the event loop, acks=all, idempotent"
    return [
        Work(
            name="outbox.postgresql.status.null",
            parts=[
                Part("outbox.postgresql.status.null", "rows/s", "rate", [Target("peer", 4), Target("limit", 0.7)]),
            ],
            ours=Side("ours", OURS, "relay", {**ours, "marking": "status"}, needs=POSTGRESQL),
            peers=[Side("txoutbox", TXOUTBOX, "relay", peer, needs=POSTGRESQL, peer="txoutbox", differs=peer_differs)],
            limit=Side("limit", BARE, "status", bare, needs=POSTGRESQL),
            limit_is=f"a bare loop on the same table, {BARE_BATCH} rows at a time: fetch all columns of the first "
            "waiting rows as tuples, mark them with one statement and commit; no objects, no lease, one connection",
            settings=settings,
            rounds=ROUNDS,
        ),
        Work(
            name="outbox.postgresql.position.null",
            parts=[Part("outbox.postgresql.position.null", "rows/s", "rate", [Target("limit", 0.4)])],
            ours=Side("ours", OURS, "relay", {**ours, "marking": "position"}, needs=POSTGRESQL),
            limit=Side("limit", BARE, "position", bare, needs=POSTGRESQL),
            limit_is=f"a bare loop on the same table, {BARE_BATCH} rows at a time: fetch all columns of the rows of a "
            "snapshot window as tuples; nothing is saved",
            settings=settings,
            rounds=ROUNDS,
        ),
        *(
            Work(
                name=f"outbox.postgresql.{marking}.kafka",
                parts=[
                    Part(
                        f"outbox.postgresql.{marking}.kafka",
                        "rows/s",
                        "rate",
                        [Target("peer", 3), Target("limit", 0.7)],
                    )
                ],
                ours=Side("ours", OURS, "relay_to_kafka", {**ours, "marking": marking}, needs=BOTH),
                peers=[
                    Side("txoutbox", TXOUTBOX, "relay_to_kafka", peer, needs=BOTH, peer="txoutbox", differs=to_kafka)
                ],
                limit=Side("limit", BARE, f"{marking}_to_kafka", bare, needs=BOTH),
                limit_is=f"a bare loop on the same table, {BARE_BATCH} rows at a time: fetch, produce with the same "
                "headers and a callback each, acks=all, idempotent; the next batch is fetched and produced while one "
                f"is being acknowledged, {marked}",
                settings={**settings, "partitions": 4},
                rounds=ROUNDS,
            )
            for marking, marked in (
                ("status", "which is marked then with one statement"),
                ("position", "and nothing is saved"),
            )
        ),
    ]


def _latencies(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    samples, idle = (2, 1) if quick else (60, 10)
    options = {"samples": samples, "idle_seconds": idle}
    peer = Side(
        "faststream-outbox",
        FASTSTREAM_OUTBOX,
        "latency",
        options,
        needs=BOTH,
        peer="faststream-outbox",
        differs="its relay hears of each commit by NOTIFY, one for each transaction and queue; no "
        "order of a key; its consumer of the table is FastStream's, its producer aiokafka, idempotent, acks=all",
    )
    poll_ms = 500
    return [
        Work(
            name=f"outbox.postgresql.latency.{way}",
            parts=[
                Part(f"outbox.postgresql.latency.{way}.p50", "ms", "p50", [Target("above limit", 5 + half_of_poll)]),
                Part(f"outbox.postgresql.latency.{way}.p99", "ms", "p99", [Target("above limit", 25 + half_of_poll)]),
                Part(f"outbox.postgresql.latency.{way}.idle", "transactions/s", "idle"),
            ],
            ours=Side("ours", LATENCY, "latency", {**options, "way": way}, needs=BOTH),
            peers=[peer] if way == "notify" else [],
            limit=Side("limit", "benchmarks.sides.bare_kafka", "latency", {"samples": samples}, needs=["kafka"]),
            limit_is="a bare producer and the same bare consumer: from the call of produce to the arrival",
            settings={
                "from": "the return of commit",
                "to": "the arrival at a bare Kafka consumer, the relay is another process",
                "samples": samples,
                "pause between": "300 to 900 ms, of the limit 50 to 150 ms",
                "idle": f"transactions in {idle} s without a message, those of leases and heartbeats included",
            },
            rounds=1,
        )
        for way, half_of_poll in (("polling", poll_ms // 2), ("notify", 0))
    ]


def _backlogs(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    few, many = (5_000, 20_000) if quick else (100_000, 5 * MILLION)
    limit = Side("limit", OURS, "backlog", {"size": BYTES, "done": 0, "waiting": few, "drained": few}, needs=POSTGRESQL)
    return [
        Work(
            name=f"outbox.postgresql.backlog.{name}",
            parts=[Part(f"outbox.postgresql.backlog.{name}", "rows/s", "rate", [Target("limit", 0.8)])],
            ours=Side("ours", OURS, "backlog", {"size": BYTES, **shape}, needs=POSTGRESQL),
            limit=limit,
            limit_is=f"ours with {few:,} rows that wait, and no others",
            settings={"bytes": BYTES, "marking": "status", **shape},
            rounds=1,
        )
        for name, shape in (
            ("done", {"done": many, "waiting": few, "drained": few}),
            ("waiting", {"done": 0, "waiting": many, "drained": 2 * few}),
        )
    ]
