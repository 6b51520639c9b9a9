"""What tests take from the shared servers."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from tests.servers import shared


def test_each_database_is_new_and_empty(new_database: Callable[[], str]) -> None:
    first, second = new_database(), new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE orders (id int)")

    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('orders')").fetchone() == (None,)


def test_a_dropped_database_is_gone_while_somebody_is_connected() -> None:
    url = shared.create_database(shared.required("postgresql"))
    with psycopg.connect(url) as connection:
        shared.drop_database(url)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_pgbouncer_reaches_the_same_database(database: str, pooled: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE orders (id int)")

    with psycopg.connect(pooled) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_kafka_has_only_the_topics_that_were_asked_for(kafka: str, new_topic: Callable[..., str]) -> None:
    topic, never_made = new_topic(partitions=3), shared.unique("never-made")
    client = AdminClient({"bootstrap.servers": kafka.removeprefix("kafka://")})

    client.list_topics(never_made, timeout=10)
    topics = client.list_topics(timeout=10).topics

    assert len(topics[topic].partitions) == 3
    assert never_made not in topics


def test_a_missing_server_is_skipped_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YEONDONG_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:1/postgres")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="scripts/services up postgresql"):
        shared.required("postgresql")

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="scripts/services up postgresql"):
        shared.required("postgresql")
