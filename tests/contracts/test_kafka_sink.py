"""What is sent to Kafka, as others see it, and what happens when Kafka refuses it or is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import Message as Record
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from msgspec.structs import replace

from tests.contracts.kafka_brokers import broker_at, new_prefix, read, remove
from tests.servers.certificates import certificate
from tests.servers.kafka import PASSWORD, USER, PrivateKafka
from tests.servers.shared import missing
from yeondong.core.clock import SystemClock
from yeondong.core.message import Kind, Message
from yeondong.core.sink import Refused, Sink
from yeondong.errors import ConnectionLost, SchemaMissing, StoreError
from yeondong.messaging.brokers.kafka import Cluster, KafkaBroker, topics
from yeondong.testing.broker_suite.scene import ids, message, messages, soon

PLACED = Message(
    "주문-1",
    "order.placed",
    Kind.EVENT,
    "orders",
    "k1",
    b'{"total":3}',
    {"traceparent": "00-abc"},
    "/shop",
    datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC),
)
LARGE = bytes(5_000)
STRICT = {"message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": "0"}


class Scene:
    """One broker with a prefix of its own, a sink, and a plain program that reads."""

    def __init__(self, url: str) -> None:
        self.bootstrap = url.removeprefix("kafka://")
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self.prefix = new_prefix()
        self.place = f"{url} {self.prefix}"
        self.broker = broker_at(self.place)
        self.broker.create(["orders", "refunds"])
        self.sink = self.broker.sink()

    def records(self, channel: str = "orders") -> list[Record]:
        return read(self.bootstrap, self.prefix + channel)

    def arrived(self, channel: str = "orders") -> list[str]:
        return [headers(record)["ce_id"].decode() for record in self.records(channel)]

    def make(self, channel: str, *, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        cluster, name = Cluster(self.bootstrap), self.prefix + channel
        assert topics.make(cluster, self.admin, name, partitions=partitions, replication=1, config=config)

    def delete(self, channel: str) -> None:
        name = self.prefix + channel
        self.admin.delete_topics([name])[name].result(10)

    def limit(self, byte_count: int, channel: str = "orders") -> None:
        entry = ConfigEntry("max.message.bytes", str(byte_count), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.prefix + channel, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result(10)

    def close(self) -> None:
        self.sink.close()
        self.broker.close()
        remove(self.place)


@pytest.fixture
def scene(kafka: str) -> Iterator[Scene]:
    scene = Scene(kafka)
    yield scene
    scene.close()


def headers(record: Record) -> dict[str, bytes]:
    return {name: value or b"" for name, value in cast("list[tuple[str, bytes | None]]", record.headers() or [])}


def told(refused: object) -> list[tuple[str, bool]]:
    assert isinstance(refused, list)
    assert all(isinstance(one, Refused) and one.reason for one in refused)
    return [(one.message.id, one.behind) for one in refused]


# --- what others read -------------------------------------------------------------------------------------------------


def test_a_plain_program_reads_the_message_as_it_is_described(scene: Scene) -> None:
    scene.sink.send([PLACED], soon())

    (record,) = scene.records()
    assert (record.key(), record.value()) == (b"k1", b'{"total":3}')
    assert record.headers() == [
        ("ce_specversion", b"1.0"),
        ("ce_id", "주문-1".encode()),
        ("ce_type", b"order.placed"),
        ("ce_source", b"/shop"),
        ("ce_time", b"2026-02-03T04:05:06.789000Z"),
        ("content-type", b"application/json"),
        ("traceparent", b"00-abc"),
    ]


def test_a_command_says_that_it_is_one_and_a_tombstone_has_no_value(scene: Scene) -> None:
    scene.sink.send([replace(PLACED, kind=Kind.COMMAND, data=None, headers={})], soon())

    (record,) = scene.records()
    assert record.value() is None
    assert headers(record)["ce_kind"] == b"command"


def test_the_sdk_of_cloudevents_reads_it(scene: Scene) -> None:
    scene.sink.send([PLACED], soon())

    (record,) = scene.records()
    event = from_binary_event(KafkaMessage(headers(record), record.key(), record.value() or b""), JSONFormat())

    assert event.get_data() == {"total": 3}
    assert (event.get_id(), event.get_type(), event.get_source()) == ("주문-1", "order.placed", "/shop")
    assert (event.get_time(), event.get_datacontenttype()) == (PLACED.occurred_at, "application/json")
    assert event.get_extension("partitionkey") == "k1"


def test_kcat_reads_it(scene: Scene) -> None:
    scene.sink.send([PLACED], soon())
    command = ["kcat", "-C", "-b", scene.bootstrap, "-t", f"{scene.prefix}orders", "-o", "beginning", "-e", "-q"]

    try:
        printed = subprocess.run([*command, "-f", "%k|%s|%h"], capture_output=True, text=True, check=True, timeout=20)
    except FileNotFoundError:
        missing("kcat is not here; fetch it: scripts/services install kafka")

    key, data, written = printed.stdout.split("|")
    assert (key, data) == ("k1", '{"total":3}')
    assert written.startswith("ce_specversion=1.0,ce_id=주문-1,ce_type=order.placed,ce_source=/shop,ce_time=2026-02-")


# Keys and hashes from the tests of Kafka's own clients.
HASHES = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


def test_a_key_goes_where_the_java_clients_send_it(scene: Scene) -> None:
    scene.make("many", partitions=17)

    scene.sink.send([message(key, key=key, channel="many") for key in HASHES], soon())

    arrived = {(record.key() or b"").decode(): record.partition() for record in scene.records("many")}
    assert arrived == {key: (hashed & 0x7FFFFFFF) % 17 for key, hashed in HASHES.items()}


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_too_large_is_refused_with_what_stands_behind_it(scene: Scene) -> None:
    too_large = message("too large", key="a", data=bytes(1_000_000))
    before, other, behind = message("a1", key="a"), message("b1", key="b"), message("a2", key="a")
    sent = [before, too_large, other, behind, message("none", key=None)]

    refused = scene.sink.send(sent, soon())

    assert told(refused) == [("too large", False), ("a2", True)]
    assert sorted(scene.arrived()) == ["a1", "b1", "none"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": 7}, "key is int, not text"),
        ({"key": "\ud800"}, "cannot be written as UTF-8"),
        ({"id": None}, "id is NoneType, not text"),
        ({"data": "text"}, "data is str, not bytes"),
        ({"channel": "with space"}, "channel .*with space' cannot be a topic of Kafka"),
        ({"channel": "주문"}, "cannot be a topic of Kafka"),
        ({"channel": "x" * 250}, "cannot be a topic of Kafka"),
        ({"occurred_at": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001 - what is refused
        ({"headers": {"a": 1}}, "header 'a' is int"),
        ({"headers": {"ce_id": "x"}}, "header 'ce_id' is the message's own"),
        ({"headers": {"a\0b": "x"}}, "is no name of a header"),
        ({"headers": {"a": "x" * 1_000_000}}, "more than the limit of 1000000"),
    ],
)
def test_what_no_topic_takes_is_known_without_asking(change: dict[str, object], reason: str) -> None:
    sink = broker_at("kafka://127.0.0.1:1 ").sink()
    assert sink.check(PLACED) is None
    wrong: Message = replace(PLACED, **change)

    with pytest.raises(AssertionError, match=reason):
        assert sink.check(wrong) is None, sink.check(wrong)


def test_the_largest_message_of_all_fits(scene: Scene) -> None:
    room = scene.broker.traits.max_bytes
    assert room is not None
    full = replace(PLACED, data=os.urandom(room), key="k" * 7_000, headers={"h": "v" * 8_000})
    assert scene.sink.check(full) is None

    assert scene.sink.send([full, message("next", key="k" * 7_000)], soon()) == []

    assert scene.arrived() == ["주문-1", "next"]


def test_a_topic_that_is_not_there_refuses_its_messages_and_is_not_made(scene: Scene) -> None:
    sent = [message("1", channel="odrers"), message("2"), message("3", channel="odrers")]

    refused = scene.sink.send(sent, soon())

    assert told(refused) == [("1", False), ("3", False)]
    assert refused[0].reason.startswith(f"there is no topic '{scene.prefix}odrers'")
    assert "yeondong db create" in refused[0].reason
    assert scene.arrived() == ["2"]
    assert f"{scene.prefix}odrers" not in scene.admin.list_topics(timeout=10).topics


def test_a_limit_that_was_lowered_refuses_by_message_and_keeps_the_order(scene: Scene) -> None:
    scene.sink.send([message("first")], soon())
    scene.limit(2_000)
    small = messages(30, keys=1, prefix="s")

    assert scene.sink.send(small, soon()) == []
    large = [replace(small[0], id="large", data=LARGE), replace(small[0], id="behind"), message("other", key="x")]
    refused = scene.sink.send([replace(small[0], id="before"), *large], soon())

    assert told(refused) == [("large", False), ("behind", True)]
    assert [id for id in scene.arrived() if id not in ("first", "other")] == [*ids(small), "before"]
    assert "other" in scene.arrived()


def test_a_batch_that_is_refused_lets_no_later_one_of_its_key_pass(scene: Scene) -> None:
    scene.sink.send([message("first", key=None)], soon())
    scene.limit(300_000)
    sent = [message(f"m{i}", data=os.urandom(250_000)) for i in range(4)]  # three fill a batch, the last passes

    assert scene.sink.send(sent, soon()) == []

    arrived = [id for id in scene.arrived() if id != "first"]
    assert list(dict.fromkeys(arrived)) == ids(sent)


def test_what_a_broker_finds_invalid_is_refused_alone(scene: Scene) -> None:
    scene.make("states", config={"cleanup.policy": "compact"})
    sent = [message("a", channel="states", key="k"), message("no key", key=None, channel="states")]

    refused = scene.sink.send([*sent, message("b", channel="states", key="k")], soon())

    assert told(refused) == [("no key", False)]
    assert scene.arrived("states") == ["a", "b"]


# --- outages ----------------------------------------------------------------------------------------------------------


def test_a_topic_that_was_deleted_is_an_outage_and_is_not_made_again() -> None:
    with PrivateKafka(settings={"auto.create.topics.enable": "true"}) as server:
        scene = Scene(server.url)
        scene.sink.send([message("lost")], soon())
        scene.delete("orders")

        with pytest.raises(ConnectionLost, match=f"there is no topic '{scene.prefix}orders'"):
            scene.sink.send([message("waits")], soon())
        assert f"{scene.prefix}orders" not in scene.admin.list_topics(timeout=10).topics
        assert scene.broker.create(["orders"]) == [f"{scene.prefix}orders"]

        assert scene.sink.send([message("waits")], soon()) == []
        assert scene.arrived() == ["waits"]
        scene.close()


def test_a_clock_that_the_brokers_do_not_believe_is_an_outage(scene: Scene) -> None:
    scene.make("strict", config=STRICT)

    with pytest.raises(ConnectionLost, match="timestamp"):
        scene.sink.send(messages(3_000, channel="strict"), soon())  # it takes more than a millisecond

    assert scene.sink.send([message("elsewhere")], soon()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_sends_through_a_connection_of_its_own(scene: Scene) -> None:
    scene.sink.send([message("before")], soon())

    child = os.fork()
    if child == 0:
        try:
            refused = scene.sink.send([message("child")], soon())
            os._exit(0 if refused == [] else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    scene.sink.send([message("parent")], soon())
    assert scene.arrived() == ["before", "child", "parent"]


def test_many_messages_of_many_keys_keep_their_order(scene: Scene) -> None:
    sent = messages(20_000, keys=50)

    assert scene.sink.send(sent, soon()) == []

    arrived = scene.records()
    for key in {one.key for one in sent}:
        assert [headers(record)["ce_id"].decode() for record in arrived if record.key() == (key or "").encode()] == [
            one.id for one in sent if one.key == key
        ]


def test_a_sink_without_much_time_says_so_and_later_has_it_again(scene: Scene) -> None:
    for seconds in (0.5, 0.4, 20.0, 0.5):
        assert scene.sink.send([message(f"{seconds}", key="k")], SystemClock().elapsed() + seconds) == []

    assert scene.arrived() == ["0.5", "0.4", "20.0", "0.5"]


def test_what_an_outage_cut_off_is_sent_again_in_order() -> None:
    with PrivateKafka() as server:
        scene = Scene(server.url)
        scene.sink.send([message("first", key=None)], soon())
        sent = messages(100, keys=1)
        server.pause()
        began = time.monotonic()
        with pytest.raises(ConnectionLost):
            scene.sink.send(sent, soon())
        assert time.monotonic() - began < 4  # half a lease, which is 4 s here, and a second to explain it
        server.resume()

        assert scene.sink.send(sent, soon()) == []
        scene.sink.send(messages(10, keys=1, prefix="later "), soon())

        arrived = [headers(record)["ce_id"].decode() for record in scene.records() if record.key() == b"key 0"]
        assert list(dict.fromkeys(arrived)) == [*ids(sent), *ids(messages(10, prefix="later "))]
        scene.close()


STOPPED = """
import sys
from tests.contracts.kafka_brokers import broker_at
from yeondong.core.clock import SystemClock
from yeondong.errors import ConnectionLost
from yeondong.testing.broker_suite.scene import message

sink = broker_at(sys.argv[1]).sink()
sink.send([message("first")], SystemClock().elapsed() + 20)
print("ready", flush=True)
sys.stdin.readline()
try:
    sink.send([message(f"m{i}", data=bytes(10_000)) for i in range(3_000)], SystemClock().elapsed() + 3)
except ConnectionLost as lost:
    print(lost, flush=True)
sink.close()
"""


def test_a_process_that_was_stopped_hands_nothing_over_when_it_goes_on_too_late() -> None:
    with PrivateKafka() as server:
        scene = Scene(server.url)
        with running(scene.place) as sender:
            server.pause()
            tell(sender)
            time.sleep(0.5)  # by then librdkafka has it, and the sockets as much as they hold
            sender.send_signal(signal.SIGSTOP)
            server.resume()
            time.sleep(3)  # longer than the deadline
            before = len(scene.arrived())
            sender.send_signal(signal.SIGCONT)
            said = sender.communicate(timeout=20)[0]

        assert "is not available" in said
        assert before < 3_000
        assert len(scene.arrived()) == before
        scene.close()


@contextmanager
def running(place: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, place], stdin=pipe, stdout=pipe, text=True, env=path
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_killed_broker_is_an_outage_and_is_used_again_when_it_is_back() -> None:
    with PrivateKafka() as server:
        scene = Scene(server.url)
        scene.sink.send([message("before")], soon())
        server.kill()
        with pytest.raises(ConnectionLost, match="refused"):
            scene.sink.send([message("after")], soon())
        with pytest.raises(ConnectionLost):
            scene.sink.open()
        server.start()

        scene.sink.open()
        assert scene.sink.send([message("after")], soon()) == []
        assert sorted(scene.arrived()) == ["after", "before"]
        scene.close()


# --- who may ----------------------------------------------------------------------------------------------------------


def secured(server: PrivateKafka, **security: str | None) -> KafkaBroker:
    return KafkaBroker(Cluster.at(f"kafka://{server.client_bootstrap}", security=security), lease_seconds=4)


def login(server: PrivateKafka, **other: str | None) -> dict[str, str | None]:
    return {**{name: value for name, value in server.client_settings.items() if name != "bootstrap.servers"}, **other}


def test_without_the_right_to_write_a_topic_refuses_its_messages() -> None:
    with PrivateKafka(sasl="SCRAM-SHA-512", authorizer=True) as server:
        for name in ("yeondong-receivers", "orders", "refunds", "secret"):
            server.create_topic(name)
        server.allow(ResourceType.TOPIC, "orders", AclOperation.DESCRIBE, AclOperation.WRITE)
        server.allow(ResourceType.TOPIC, "refunds", AclOperation.DESCRIBE)
        sink: Sink = secured(server, **login(server)).sink()

        refused = sink.send(
            [message("1"), message("2", channel="refunds"), message("3", channel="secret"), message("4")], soon()
        )

        assert told(refused) == [("2", False), ("3", False)]
        assert "refunds" in refused[0].reason
        assert "ACL" in refused[0].reason
        assert "secret" in refused[1].reason
        assert [headers(record)["ce_id"] for record in read(server.bootstrap, "orders")] == [b"1", b"4"]
        sink.close()


def test_tls_and_a_password_by_settings() -> None:
    with PrivateKafka(sasl="PLAIN", tls_host="localhost") as server:
        broker = secured(server, **login(server))
        broker.create(["orders"])
        broker.prepare(["orders"])
        sink = broker.sink()
        assert sink.send([message("safe")], soon()) == []
        sink.close()

        with pytest.raises(StoreError, match=r"refuses this login.*kafka_password") as refused:
            secured(server, **login(server, **{"sasl.password": "wrong"})).prepare(["orders"])
        assert PASSWORD not in str(refused.value)
        assert USER == "app"


def test_a_certificate_of_our_own_where_the_brokers_ask_for_one(tmp_path: Path) -> None:
    own = certificate(tmp_path, "shop.test")
    asking = {
        "listener.name.client.ssl.client.auth": "required",
        "listener.name.client.ssl.truststore.type": "PEM",
        "listener.name.client.ssl.truststore.certificates": own.authority.read_text().strip().replace("\n", "\\n"),
    }
    with PrivateKafka(tls_host="localhost", settings=asking) as server:
        security = login(server, **{"ssl.certificate.location": str(own.chain), "ssl.key.location": str(own.key)})
        broker = secured(server, **security)
        broker.create(["orders"])
        assert broker.sink().send([message("known")], soon()) == []

        with pytest.raises(ConnectionLost):
            secured(server, **login(server)).prepare(["orders"])


def test_a_certificate_for_another_host_is_refused() -> None:
    with PrivateKafka(tls_host="elsewhere.test") as server, pytest.raises(ConnectionLost, match="certificate"):
        secured(server, **login(server)).prepare(["orders"])


def test_a_cluster_without_our_topics_says_how_to_make_them(kafka: str) -> None:
    place = f"{kafka} {new_prefix()}"
    with pytest.raises(SchemaMissing, match="yeondong db create"):
        broker_at(place).prepare(["orders"])
    broker_at(place).create([])
    with pytest.raises(SchemaMissing, match=r"orders'.*yeondong db create"):
        broker_at(place).prepare(["orders"])
    remove(place)
