"""What a reader of Kafka does when its topic, its group or the cluster is not as it was."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.contracts.kafka_brokers import PARTITIONS, broker_at, new_prefix, remove
from tests.servers.kafka import PrivateKafka
from tests.servers.shared import missing, required
from yeondong.core.broker import Since
from yeondong.core.delivery import Delivery
from yeondong.errors import ConnectionLost, DeclarationError, PositionLost
from yeondong.messaging.brokers.kafka import Cluster, KafkaBroker
from yeondong.messaging.brokers.kafka.source import KafkaSource
from yeondong.testing.broker_suite.scene import OCCURRED_AT, ids, messages, receiver, soon

PATIENCE_SECONDS = 30.0


class Scene:
    """One topic of a prefix of its own, one group, and the cluster's operator."""

    def __init__(self, url: str, *options: str) -> None:
        self.url = url
        self.prefix = new_prefix()
        self.place = f"{url} {self.prefix}"
        self.broker = broker_at(self.place)
        self.topic = f"{self.prefix}orders"
        self.name = f"{self.prefix}orders/search"
        self.admin = AdminClient({"bootstrap.servers": url.removeprefix("kafka://"), "log_level": 0})
        self.options = options
        self.broker.create(["orders"])
        self._sources: list[KafkaSource] = []

    def register(self, since: Since = "start") -> None:
        self.broker.register("shop", [receiver()], lambda _channel, _group: since)

    def source(self) -> KafkaSource:
        cluster = Cluster.at(self.url, prefix=self.prefix, options=self.options)
        source = KafkaBroker(cluster, lease_seconds=4).source("orders", "search")
        self._sources.append(source)
        return source

    def opened(self) -> KafkaSource:
        source = self.source()
        source.open(None, lambda _partitions: None)
        until(lambda: source.receive(0, 0) or source.partitions)
        return source

    def send(self, total: int, prefix: str = "m", keys: int = 1) -> None:
        sink = self.broker.sink()
        sink.open()
        assert not sink.send(messages(total, prefix=prefix, keys=keys), soon())
        sink.close()

    def produce(self, partition: int, *values: bytes) -> None:
        """Send as a foreign program does."""
        producer = Producer({"bootstrap.servers": self.url.removeprefix("kafka://"), "log_level": 0})
        for value in values:
            producer.produce(self.topic, value, b"k", partition=partition)
        assert producer.flush(10) == 0

    def delete(self) -> None:
        self.admin.delete_topics([self.topic])[self.topic].result(PATIENCE_SECONDS)

    def cut(self, partition: int, before: int) -> None:
        """Delete what stands before an offset, as the topic's retention does."""
        at = TopicPartition(self.topic, partition, before)
        self.admin.delete_records([at])[at].result(PATIENCE_SECONDS)

    def set_offset(self, partition: int, offset: int) -> None:
        """Set the group's offset, as an operator does by Kafka's own tools."""
        at = ConsumerGroupTopicPartitions(self.name, [TopicPartition(self.topic, partition, offset)])
        self.admin.alter_consumer_group_offsets([at])[self.name].result(PATIENCE_SECONDS)

    def leave(self) -> None:
        """Close what is open; the server itself goes with the test."""
        for source in self._sources:
            source.close()
        self.broker.close()

    def close(self) -> None:
        self.leave()
        remove(self.place)


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(0.02)


def drain(source: KafkaSource, total: int) -> list[Delivery]:
    found: list[Delivery] = []

    def all_came() -> bool:
        found.extend(source.receive(total - len(found), 0.1))
        return len(found) >= total

    until(all_came)
    return found


def settled(source: KafkaSource, deliveries: Sequence[Delivery]) -> None:
    """Settle, and wait until the cluster knows it."""
    source.settle(deliveries)
    until(lambda: source.receive(0, 0) or source.confirm())


def outage(source: KafkaSource) -> str:
    """Receive until the source says what is wrong."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    with pytest.raises(ConnectionLost) as lost:  # noqa: PT012 -- it is said by one of several calls
        while time.monotonic() < give_up:
            source.receive(100, 0.1)
    source.close()
    return lost.value.reason


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(required("kafka"))
    yield scene
    scene.close()


# --- what others send -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_record", [to_binary_event, to_structured_event])
def test_what_the_sdk_of_cloudevents_sends_is_read(scene: Scene, to_record: Callable[..., KafkaMessage]) -> None:
    scene.register()
    attributes = {"id": "7", "source": "/crm", "type": "order.placed", "specversion": "1.0", "time": OCCURRED_AT}
    event = CloudEvent({**attributes, "partitionkey": "k", "datacontenttype": "application/json"}, {"total": 3})
    record = to_record(event, JSONFormat())
    producer = Producer({"bootstrap.servers": scene.url.removeprefix("kafka://"), "log_level": 0})
    producer.produce(scene.topic, record.value, record.key, headers=list(record.headers.items()))
    assert producer.flush(10) == 0

    (found,) = drain(scene.opened(), 1)

    message = found.message
    assert found.flaw is None
    assert (message.id, message.type, message.key, message.origin) == ("7", "order.placed", "k", "/crm")
    assert msgspec.json.decode(message.data or b"") == {"total": 3}
    assert message.occurred_at == OCCURRED_AT


def test_what_kcat_sends_is_read(scene: Scene) -> None:
    scene.register()
    bootstrap = scene.url.removeprefix("kafka://")
    command = ["kcat", "-P", "-b", bootstrap, "-t", scene.topic, "-K", "|", "-H", "lang=ko", "-Z"]

    try:
        subprocess.run(command, input='k1|{"total":3}\nk1|\n', text=True, check=True, timeout=20)
    except FileNotFoundError:
        missing("kcat is not here; fetch it: scripts/services install kafka")
    sent, tombstone = drain(scene.opened(), 2)

    assert (sent.message.type, sent.message.key, sent.message.data) == ("", "k1", b'{"total":3}')
    assert sent.message.headers == {"lang": "ko"}
    assert sent.message.id == f"kafka:{sent.partition}/{sent.receipt}"
    assert (tombstone.message.key, tombstone.message.data, tombstone.flaw) == ("k1", None, None)


# --- the topic --------------------------------------------------------------------------------------------------------


def test_a_deleted_topic_is_told_and_read_from_its_start_when_it_is_made_anew(scene: Scene) -> None:
    scene.register("now")
    scene.produce(0, b"old 1", b"old 2")
    source = scene.opened()
    old = drain(source, 2)
    settled(source, old)
    scene.delete()

    assert scene.topic in outage(source)
    with pytest.raises(ConnectionLost, match="there is no topic"):
        source.open(None, lambda _partitions: None)
    scene.broker.create(["orders"])
    scene.produce(0, b"new 1", b"new 2", b"new 3")
    source = scene.opened()
    found = drain(source, 3)

    assert [delivery.message.data for delivery in found] == [b"new 1", b"new 2", b"new 3"]
    assert not {one.message.id for one in found} & {one.message.id for one in old}
    settled(source, found)
    source.close()
    assert scene.broker.groups()[0].waiting == 0


def test_a_topic_that_is_deleted_and_at_once_made_anew_is_noticed(scene: Scene) -> None:
    scene.register()
    scene.produce(0, b"old")
    source = scene.opened()
    source.settle(drain(source, 1))
    scene.delete()
    until(lambda: scene.broker.create(["orders"]))
    scene.produce(0, b"new 1", b"new 2")

    outage(source)
    found = drain(scene.opened(), 2)

    assert [delivery.message.data for delivery in found] == [b"new 1", b"new 2"]


def test_what_the_retention_deleted_unread_is_counted(scene: Scene) -> None:
    scene.register()
    scene.produce(1, *[b"%d" % number for number in range(10)])
    source = scene.opened()
    settled(source, drain(source, 3)[:2])
    source.close()
    scene.cut(1, before=7)
    assert scene.broker.groups()[0].dropped == 5

    source = scene.opened()
    found = drain(source, 3)

    assert [delivery.receipt for delivery in found] == [7, 8, 9]
    assert scene.broker.groups()[0].dropped == 5
    settled(source, found)
    assert (scene.broker.groups()[0].dropped, scene.broker.groups()[0].waiting) == (5, 0)


def test_a_partition_that_is_added_is_read_from_its_start() -> None:
    scene = Scene(required("kafka"), "topic.metadata.refresh.interval.ms=300")
    scene.register("now")
    source = scene.opened()
    scene.admin.create_partitions([NewPartitions(scene.topic, PARTITIONS + 1)])[scene.topic].result(PATIENCE_SECONDS)
    scene.produce(PARTITIONS, b"first")

    (found,) = drain(source, 1)

    assert found.message.data == b"first"
    assert found.partition in source.partitions
    assert len(source.existing) == PARTITIONS + 1
    scene.close()


# --- the group --------------------------------------------------------------------------------------------------------


def test_a_replay_from_one_place(scene: Scene) -> None:
    scene.register()
    for partition in range(PARTITIONS):
        scene.produce(partition, *[b"%d" % number for number in range(5)])
    source = scene.opened()
    settled(source, drain(source, 5 * PARTITIONS))
    source.close()

    assert scene.broker.repeats("orders", "search", "1:3") == 2
    assert scene.broker.rewind("orders", "search", "1:3") == 2
    assert scene.broker.rewind("orders", "search", "2:9") == 0
    found = drain(scene.opened(), 2)

    assert [(delivery.partition[-1], delivery.receipt) for delivery in found] == [("1", 3), ("1", 4)]
    with pytest.raises(DeclarationError, match="partitions 0 to 2"):
        scene.broker.repeats("orders", "search", "9:0")


def test_an_operator_may_set_the_group_back_with_the_tools_of_kafka(scene: Scene) -> None:
    scene.register()
    scene.produce(0, b"0", b"1", b"2")
    source = scene.opened()
    settled(source, drain(source, 3))
    source.close()

    scene.set_offset(0, 1)

    assert scene.broker.groups()[0].waiting == 2
    assert [delivery.receipt for delivery in drain(scene.opened(), 2)] == [1, 2]


def test_a_group_beyond_the_end_stops_and_says_what_to_do(scene: Scene) -> None:
    scene.register()
    scene.produce(0, b"0", b"1")
    scene.set_offset(0, 1_000)
    source = scene.opened()
    give_up = time.monotonic() + PATIENCE_SECONDS

    with pytest.raises(PositionLost, match=r"ends at 2.*--from 0:2"):  # noqa: PT012 -- as above
        while time.monotonic() < give_up:
            source.receive(10, 0.1)
    source.close()

    scene.broker.rewind("orders", "search", "0:1")
    assert [delivery.receipt for delivery in drain(scene.opened(), 1)] == [1]


def test_a_group_whose_offsets_kafka_has_forgotten_stands_where_it_began(scene: Scene) -> None:
    scene.produce(0, b"before")
    scene.register("now")
    scene.produce(0, b"1", b"2")
    source = scene.opened()
    settled(source, drain(source, 2))
    source.close()
    scene.admin.delete_consumer_groups([scene.name])[scene.name].result(PATIENCE_SECONDS)

    found = drain(scene.opened(), 2)

    assert [delivery.message.data for delivery in found] == [b"1", b"2"]


def test_a_session_that_the_brokers_do_not_allow_is_told(scene: Scene) -> None:
    scene.register()
    source = KafkaBroker(Cluster.at(scene.url, prefix=scene.prefix), lease_seconds=0.5).source("orders", "search")
    source.open(None, lambda _partitions: None)

    assert "lease_seconds is 0.5" in outage(source)


def test_a_process_that_was_forked_does_not_touch_its_parents_consumer(scene: Scene) -> None:
    scene.register()
    scene.send(3)
    source = scene.opened()
    found = drain(source, 3)

    child = os.fork()
    if child == 0:
        try:
            source.receive(1, 0)
        except ConnectionLost:
            source.close()
            os._exit(7)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    settled(source, found)


# --- the cluster ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", ["kill", "pause"])
def test_a_cluster_that_is_away_is_told_and_nothing_is_lost(away: str) -> None:
    with PrivateKafka() as kafka:
        scene = Scene(kafka.url)
        scene.register()
        scene.send(20, keys=5)
        source = scene.opened()
        found = drain(source, 20)
        settled(source, found[:5])
        getattr(kafka, away)()

        outage(source)
        if away == "pause":
            kafka.resume()
        else:
            kafka.start()
        again = drain(scene.opened(), 15)

        assert sorted(ids(again)) == sorted(ids(found[5:]))
        scene.leave()
