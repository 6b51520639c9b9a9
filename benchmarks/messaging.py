"""Works of messaging on Kafka, and of handlers with a transaction on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Part, Side, Target, Work

OURS = "benchmarks.sides.messaging_kafka"
BARE = "benchmarks.sides.bare_kafka"
BARE_INBOX = "benchmarks.sides.bare_inbox"
FASTSTREAM = "benchmarks.sides.peer_faststream"

BYTES = 256
ROUNDS = 3
PUBLISHED = 1_000
GROUP = 50
KAFKA = ["kafka"]
BOTH = ["postgresql", "kafka"]
SET_UP = "msgspec for payloads, no logger, on uvloop; the better of its two Kafka brokers counts"


def works(quick: bool) -> Sequence[Work]:  # noqa: FBT001 -- the command's flag
    """Return the works, small ones for ``quick``."""
    return [*_publishing(quick), _consuming(quick), _inbox(quick)]


def _publishing(quick: bool) -> Sequence[Work]:  # noqa: FBT001
    many, few = (2_000, 20) if quick else (200_000, 500)
    peer_many = 2_000 if quick else 20_000
    return [
        Work(
            name=name,
            parts=[Part(name, "messages/s", "rate", targets)],
            ours=Side("ours", OURS, "publish", {"messages": messages, "each": each, "size": BYTES}, needs=KAFKA),
            peers=[
                Side(
                    "FastStream",
                    FASTSTREAM,
                    "publish",
                    {"messages": for_peer, "each": each, "size": BYTES},
                    needs=KAFKA,
peer="faststream",
                    differs=f"{at_once}; idempotent, acks=all, as ours; its headers are content-type and "
                    f"correlation_id; {SET_UP}",
                )
            ],
            limit=Side("limit", BARE, "publish", {"messages": messages, "each": each, "size": BYTES}, needs=KAFKA),
            limit_is=f"bare confluent-kafka, idempotent, acks=all: produce {each} messages, encoded before, with the "
            "same headers, put together for each, and a callback each, then flush",
            settings={
                "bytes": BYTES, "keys": 1_000, "messages": messages, "messages for FastStream": for_peer,
                "at once": each, "partitions": 4,
            },
            rounds=ROUNDS,
        )
        for name, messages, for_peer, each, at_once, targets in (
            (
                "messaging.kafka.publish", many, peer_many, PUBLISHED, f"a gather of {PUBLISHED}",
                [Target("peer", 5), Target("limit", 0.6)],
            ),
            ("messaging.kafka.publish.one", few, few, 1, "one by one", [Target("peer", 1)]),
        )
    ]  # fmt: skip


def _consuming(quick: bool) -> Work:  # noqa: FBT001
    messages, for_peer, lanes = (2_000, 1_000, 4) if quick else (300_000, 30_000, 4)
    return Work(
        name="messaging.kafka.consume",
        parts=[Part("messaging.kafka.consume", "messages/s", "rate", [Target("peer", 5), Target("limit", 0.5)])],
        ours=Side("ours", OURS, "consume", {"messages": messages, "size": BYTES, "lanes": lanes}, needs=BOTH),
        peers=[
            Side(
                "FastStream",
                FASTSTREAM,
                "consume",
                {"messages": for_peer, "size": BYTES},
                needs=KAFKA,
peer="faststream",
                differs="commits offsets every 5 s, before messages are handled: its default, and its fastest; "
                f"{SET_UP}",
            )
        ],
        limit=Side("limit", BARE, "consume", {"messages": messages, "size": BYTES}, needs=KAFKA),
        limit_is="bare confluent-kafka: take batches of up to 1000, make a dictionary of the headers, decode the data "
        "with msgspec; commit the offsets of each batch without waiting",
        settings={
            "bytes": BYTES, "keys": 1_000, "messages": messages, "messages for FastStream": for_peer, "lanes": lanes,
            "partitions": 4,
        },
            rounds=ROUNDS,
    )  # fmt: skip


def _inbox(quick: bool) -> Work:  # noqa: FBT001
    messages, lanes = (500, 1) if quick else (20_000, 1)
    return Work(
        name="messaging.inbox.postgresql",
        parts=[Part("messaging.inbox.postgresql", "messages/s", "rate", [Target("limit", 0.5)])],
        ours=Side("ours", OURS, "inbox", {"messages": messages, "size": BYTES, "lanes": lanes}, needs=BOTH),
        limit=Side(
            "limit",
            BARE_INBOX,
            "groups",
            {"messages": messages, "group": GROUP},
            needs=["postgresql"],
        ),
        limit_is=f"bare psycopg, groups of {GROUP}: claim the ids in one statement, insert the effects through a "
        "pipeline, commit; the messages come from nowhere, while ours come from Kafka and its offsets are kept",
        settings={"bytes": BYTES, "messages": messages, "lanes": lanes, "effects": "one insert for each message"},
        rounds=ROUNDS,
    )
