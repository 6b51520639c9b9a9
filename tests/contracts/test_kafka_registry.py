"""Who receives what, when several register at the same moment, and when the topic holds something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from tests.contracts.kafka_brokers import broker_at, new_prefix, remove
from yeondong.core.message import Kind
from yeondong.errors import ReceiverError, SchemaMissing, StoreError, YeondongError
from yeondong.messaging.brokers.kafka import Cluster, KafkaBroker
from yeondong.messaging.brokers.kafka.registry import Registry
from yeondong.testing.broker_suite.scene import receiver

GRANT = "grant.points"
APPS = ("shop", "loyalty", "bonus", "returns")


@pytest.fixture
def place(kafka: str) -> Iterator[str]:
    place = f"{kafka} {new_prefix()}"
    broker_at(place).create(["orders"])
    yield place
    remove(place)


def at_once(registering: list[tuple[KafkaBroker, str, str]]) -> dict[str, YeondongError]:
    """Let apps register the same command for groups of their own, all at one moment; return what was raised."""
    errors: dict[str, YeondongError] = {}
    barrier = threading.Barrier(len(registering))

    def register(broker: KafkaBroker, app: str, group: str) -> None:
        barrier.wait()
        try:
            command = receiver(GRANT, Kind.COMMAND, group=group, app=app)
            broker.register(app, [command], lambda _channel, _group: "start")
        except YeondongError as error:
            errors[app] = error

    threads = [threading.Thread(target=register, args=each) for each in registering]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_of_several_apps_that_claim_a_command_at_once_one_gets_it(place: str) -> None:
    errors = at_once([(broker_at(place), app, f"of {app}") for app in APPS])

    (standing,) = broker_at(place).receivers()
    assert errors.keys() == set(APPS) - {standing.app}
    assert all(isinstance(error, ReceiverError) for error in errors.values())
    assert [lag.group for lag in broker_at(place).groups()] == [standing.group]


def test_workers_of_one_app_that_start_at_once_agree_where_a_group_begins(place: str) -> None:
    errors = at_once([(broker_at(place), "shop", "points") for _ in range(4)])

    assert errors == {}
    url, _, prefix = place.partition(" ")
    entries = Registry(Cluster.at(url, prefix=prefix)).read()
    assert [(each.channel, each.name) for each in entries.groups.values()] == [("orders", "points")]
    assert len(entries.receivers()) == 1


def test_registering_the_same_again_writes_nothing(place: str) -> None:
    broker = broker_at(place)
    url, _, prefix = place.partition(" ")
    registry = Registry(Cluster.at(url, prefix=prefix))
    at_once([(broker, "shop", "points")])
    before = len(registry._records())

    at_once([(broker, "shop", "points")])

    assert len(registry._records()) == before


def test_what_another_program_wrote_there_is_told(place: str) -> None:
    url, _, prefix = place.partition(" ")
    producer = Producer({"bootstrap.servers": url.removeprefix("kafka://")})
    producer.produce(f"{prefix}yeondong-receivers", b"hello", b"app/other")
    producer.flush(10)

    with pytest.raises(StoreError, match=r"record 0 of topic '.*yeondong-receivers' is not yeondong's"):
        broker_at(place).receivers()


def test_without_its_topic_nothing_is_registered(kafka: str) -> None:
    broker = broker_at(f"{kafka} {new_prefix()}")

    assert list(broker.receivers()) == []
    with pytest.raises(SchemaMissing, match="yeondong db create"):
        broker.register("shop", [receiver()], lambda _channel, _group: "start")
