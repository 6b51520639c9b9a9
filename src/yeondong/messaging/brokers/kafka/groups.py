"""How far each group has come: the consumer groups' committed offsets, and the ends of the topics.

A group is there while the registry has it, not while Kafka has offsets of it: Kafka forgets those of an idle group
after a week. Where nothing is committed, the group stands where its record in the registry says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from yeondong.core.broker import GroupLag, Since
from yeondong.messaging.brokers.kafka.client import Cluster
from yeondong.messaging.brokers.kafka.registry import Group


def starts(cluster: Cluster, channel: str, since: Since) -> dict[int, int]:
    """Return where a new group begins, by partition."""
    raise NotImplementedError


def progress(cluster: Cluster, known: Sequence[Group]) -> Sequence[GroupLag]:
    raise NotImplementedError


def forget(cluster: Cluster, channel: str, group: str) -> None:
    """Remove what Kafka knows of a group that the registry has forgotten."""
    raise NotImplementedError


def rewind(cluster: Cluster, known: Mapping[tuple[str, str], Group], channel: str, group: str, start: str) -> int:
    raise NotImplementedError


def repeats(cluster: Cluster, known: Mapping[tuple[str, str], Group], channel: str, group: str, start: str) -> int:
    raise NotImplementedError
