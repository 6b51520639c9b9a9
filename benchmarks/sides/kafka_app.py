"""Ours on Kafka: an app whose topics are those of the run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.sides.kafka import PARTITIONS
from yeondong import Yeondong


def kafka_app(kafka: str, prefix: str, *, store: str | None, channels: Sequence[str]) -> Yeondong:
    """Return an app whose channels are topics that begin with ``prefix``; they are made if they are not there."""
    os.environ["YEONDONG_KAFKA_PREFIX"] = f"{prefix}-"
    os.environ["YEONDONG_KAFKA_PARTITIONS"] = str(PARTITIONS)
    app = Yeondong("measured", store=store, broker=f"kafka://{kafka}")
    app.broker.create(channels)
    return app


def topic_of(prefix: str, channel: str) -> str:
    """Return the topic of a channel."""
    return f"{prefix}-{channel}"
