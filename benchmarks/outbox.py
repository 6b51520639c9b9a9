"""Works of the outbox."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Part, Side, Target, Work

RATES = "benchmarks.sides.outbox_sqlite"
TXOUTBOX = "benchmarks.sides.peer_txoutbox"
BATCH = 1_000


def works(quick: bool) -> Sequence[Work]:  # noqa: FBT001 -- the command's flag
    """Return the works, small ones for ``quick``."""
    return [*_relaying(quick), *_adding(quick), *_at_rest(quick)]


def _relaying(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    rows = 3_000 if quick else 200_000
    for_peer = 2_000 if quick else 50_000
    settings = {"bytes": 256, "keys": 1_000, "rows": rows, "batch": BATCH, "lanes": 1, "synchronous": "NORMAL"}
    txoutbox = Side(
        "txoutbox",
        TXOUTBOX,
        "relay",
        {"rows": for_peer, "batch": BATCH},
        peer="txoutbox",
        differs="leases each row instead of the relay, and is set to synchronous=NORMAL as ours; batch 1000, "
        "concurrency 100, no time-out for publishing",
    )
    return [
        Work(
            name="outbox.sqlite.status.null",
            parts=[Part("outbox.sqlite.status.null", "rows/s", "rate", [Target("limit", 0.5)])],
            ours=Side("ours", RATES, "relay", {"rows": rows, "marking": "status"}),
            peers=[txoutbox],
            limit=Side("limit", RATES, "bare_status", {"rows": rows, "batch": BATCH}),
            limit_is="a bare loop on the same table: fetch all columns of the first waiting rows as tuples, mark them "
            "with one statement and commit; no objects, no lease, one thread",
            settings=settings,
        ),
        Work(
            name="outbox.sqlite.position.null",
            parts=[Part("outbox.sqlite.position.null", "rows/s", "rate", [Target("limit", 0.25)])],
            ours=Side("ours", RATES, "relay", {"rows": rows, "marking": "position"}),
            peers=[txoutbox],
            limit=Side("limit", RATES, "bare_position", {"rows": rows, "batch": BATCH}),
            limit_is="a bare loop on the same table: fetch all columns of the rows above the last id as tuples, save "
            "the new last id with one statement and commit; no objects, no lease, one thread",
            settings=settings,
        ),
    ]


def _adding(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    return [
        Work(
            name=f"outbox.sqlite.add.{each}",
            parts=[Part(f"outbox.sqlite.add.{each}", "messages/s", "rate")],
            ours=Side("ours", RATES, "add", {"transactions": transactions, "each": each}),
            peers=[
                Side(
                    "txoutbox",
                    TXOUTBOX,
                    "add",
                    {"transactions": transactions, "each": each},
                    peer="txoutbox",
                    differs="its messages have the row's number as their id, and no type",
                )
            ],
            limit=Side("limit", RATES, "bare_add", {"transactions": transactions, "each": each}),
            limit_is="the bare INSERT of rows made before, on the same table",
            settings={"bytes": 256, "transactions": transactions, "messages in each": each, "synchronous": "FULL"},
        )
        for each, transactions in ((1, 100 if quick else 5_000), (10, 20 if quick else 2_000))
    ]


def _at_rest(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    samples, seconds = (3, 1) if quick else (100, 20)
    rows, drained = (5_000, 1) if quick else (1_000_000, 10)
    return [
        Work(
            name="outbox.sqlite.latency",
            parts=[
                Part("outbox.sqlite.latency.p50", "ms", "p50", [Target("at most", 100)]),
                Part("outbox.sqlite.latency.p99", "ms", "p99"),
            ],
            ours=Side("ours", "benchmarks.sides.outbox_latency", "latency", {"samples": samples}),
            limit_is="none: from the return of commit to the call of a handler with a transaction, in another process, "
            "through relay and broker in the same file",
            settings={"samples": samples, "pause between": "100 to 400 ms"},
            rounds=1,
        ),
        Work(
            name="outbox.sqlite.idle",
            parts=[Part("outbox.sqlite.idle", "% of a core", "percent", [Target("at most", 1)])],
            ours=Side("ours", "benchmarks.sides.outbox_footprint", "idle", {"seconds": seconds}),
            limit_is="none: processor time of a worker without messages",
            settings={"seconds": seconds, "flows": "relay and 3 subscriptions"},
            rounds=1,
        ),
        *(
            Work(
                name=f"outbox.sqlite.memory.{marking}",
                parts=[Part(f"outbox.sqlite.memory.{marking}", "MB", "megabytes", [Target("at most", 150)])],
                ours=Side(
                    "ours",
                    "benchmarks.sides.outbox_footprint",
                    "memory",
                    {"rows": rows, "seconds": drained, "marking": marking},
                ),
                limit_is="none: peak resident memory of a relay to the SQLite broker of the same file",
                settings={"rows": rows, "bytes": 100, "seconds": drained},
                rounds=1,
            )
            for marking in ("status", "position")
        ),
    ]
