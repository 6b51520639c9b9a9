"""A private Kafka can be harmed, comes back, and asks its clients for what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin._resource import ResourceType

from tests.servers.kafka import PrivateKafka


@pytest.fixture
def server() -> Iterator[PrivateKafka]:
    with PrivateKafka() as server:
        server.create_topic("orders")
        yield server


def send(settings: Mapping[str, Any], *values: str, seconds: float = 10) -> None:
    """Send and wait for the broker's word. Raises what it says of the first that it refuses."""
    errors: list[KafkaError] = []

    def told(error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            errors.append(error)

    producer = Producer({**settings, "message.timeout.ms": seconds * 1000, "log_level": 0})
    for value in values:
        producer.produce("orders", value.encode(), on_delivery=told)
    producer.flush(seconds + 5)
    if errors:
        raise KafkaException(errors[0])


def received(bootstrap: str, count: int) -> list[str]:
    settings = {"bootstrap.servers": bootstrap, "group.id": "readers", "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.subscribe(["orders"])
    try:
        return [(message.value() or b"").decode() for message in consumer.consume(count, 20)]
    finally:
        consumer.close()


def test_what_was_accepted_outlives_a_stop_and_a_kill(server: PrivateKafka) -> None:
    send({"bootstrap.servers": server.bootstrap}, "first")
    server.kill()
    with pytest.raises(KafkaException) as away:
        send({"bootstrap.servers": server.bootstrap}, "never", seconds=0.5)
    assert away.value.args[0].code() == KafkaError._MSG_TIMED_OUT

    server.start()
    send({"bootstrap.servers": server.bootstrap}, "second")
    server.restart()
    assert received(server.bootstrap, 2) == ["first", "second"]


def test_a_paused_broker_takes_nothing_until_it_is_resumed(server: PrivateKafka) -> None:
    server.pause()
    with pytest.raises(KafkaException):
        send({"bootstrap.servers": server.bootstrap}, "never", seconds=0.5)
    server.resume()
    send({"bootstrap.servers": server.bootstrap}, "then")


def test_a_topic_can_be_deleted_and_made_again(server: PrivateKafka) -> None:
    send({"bootstrap.servers": server.bootstrap}, "lost")
    server.delete_topic("orders")
    assert "orders" not in server.admin().list_topics(timeout=10).topics
    server.create_topic("orders", partitions=2)
    send({"bootstrap.servers": server.bootstrap}, "new")
    assert received(server.bootstrap, 1) == ["new"]


def test_a_password_is_asked_for_and_rights_are_checked() -> None:
    with PrivateKafka(sasl="SCRAM-SHA-512", authorizer=True) as server:
        server.create_topic("orders")
        with pytest.raises(KafkaException) as refused:
            send(server.client_settings, "not yet")
        assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED

        server.allow(ResourceType.TOPIC, "orders")
        send(server.client_settings, "allowed")
        with pytest.raises(KafkaException):
            send({**server.client_settings, "sasl.password": "wrong"}, "never", seconds=1)


def test_tls_by_a_certificate_of_the_tests_own() -> None:
    with PrivateKafka(sasl="PLAIN", tls_host="localhost") as server:
        server.create_topic("orders")
        send(server.client_settings, "safe")

    with PrivateKafka(tls_host="elsewhere.test") as server:
        server.create_topic("orders")
        with pytest.raises(KafkaException):
            send(server.client_settings, "never", seconds=1)
        send({**server.client_settings, "ssl.endpoint.identification.algorithm": "none"}, "unchecked")


def test_a_small_limit_refuses_a_large_message() -> None:
    with PrivateKafka(settings={"message.max.bytes": "2000"}) as server:
        server.create_topic("orders")
        with pytest.raises(KafkaException) as refused:
            send({"bootstrap.servers": server.bootstrap}, "x" * 5_000)
        assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
        send({"bootstrap.servers": server.bootstrap}, "small")
