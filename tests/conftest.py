"""What tests take from the shared servers, and give back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers import shared


@pytest.fixture
def new_database() -> Iterator[Callable[[], str]]:
    """Each call makes a database on the shared PostgreSQL and returns its address; all are dropped at the end."""
    server = shared.required("postgresql")
    made: list[str] = []

    def new() -> str:
        made.append(shared.create_database(server))
        return made[-1]

    yield new
    for url in made:
        shared.drop_database(url)


@pytest.fixture
def database(new_database: Callable[[], str]) -> str:
    """The address of a database of the test's own on the shared PostgreSQL."""
    return new_database()


@pytest.fixture
def pooled(database: str) -> str:
    """The address of the same database through PgBouncer, which pools transactions."""
    return shared.on_database(shared.required("pgbouncer"), database.rpartition("/")[2])


@pytest.fixture
def kafka() -> str:
    """The address of the shared Kafka. It makes no topic unasked."""
    return shared.required("kafka")


@pytest.fixture
def new_topic(kafka: str) -> Iterator[Callable[..., str]]:
    """Each call makes a topic of the test's own, ``new_topic(partitions=3)``, and returns its name."""
    client = AdminClient({"bootstrap.servers": kafka.removeprefix("kafka://")})
    made: list[str] = []

    def new(partitions: int = 1, name: str = "topic") -> str:
        topic = shared.unique(name)
        created = client.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])
        created[topic].result(20)
        made.append(topic)
        return topic

    yield new
    if made:
        for deleted in client.delete_topics(made).values():
            with contextlib.suppress(Exception):  # the test may have deleted it
                deleted.result(20)


@pytest.fixture
def kafka_prefix(kafka: str) -> Iterator[str]:
    """What the names of topics and groups are to begin with; those that do so are removed at the end."""
    prefix = f"{shared.unique('prefix')}."
    yield prefix
    client = AdminClient({"bootstrap.servers": kafka.removeprefix("kafka://"), "log_level": 0})
    groups = [group.group_id for group in client.list_consumer_groups().result(20).valid]
    topics = list(client.list_topics(timeout=20).topics)
    ours = [name for name in groups if name.startswith(prefix)]
    gone = list(client.delete_consumer_groups(ours).values()) if ours else []
    ours = [name for name in topics if name.startswith(prefix)]
    gone += client.delete_topics(ours).values() if ours else []
    for each in gone:
        each.exception(20)  # of a group whose member was killed: it goes when the member's session has ended
