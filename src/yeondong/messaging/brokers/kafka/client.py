"""How librdkafka's clients are set, and what their errors mean here."""

# ruff: noqa: SLF001 - librdkafka's own error codes begin with an underscore

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from yeondong.errors import ConnectionLost, SettingsError, StoreError

log = logging.getLogger("yeondong.kafka")

SYSTEM: Final = "broker"
PORT: Final = 9092
ASK_SECONDS: Final = 10.0
"""How long the cluster may take to answer a question about topics, groups or offsets."""

LOOK_SECONDS: Final = 0.05
PATIENCE_SECONDS: Final = 3.0
"""How long an answer is awaited although no broker can be reached: one may just be starting."""

KEEP_SECONDS: Final = 10.0
"""How long what was said in the background is taken for the cause of what fails."""

OURS: Final = {
    "bootstrap.servers": "the broker's URL",
    "metadata.broker.list": "the broker's URL",
    "security.protocol": "kafka_security",
    "sasl.username": "kafka_username",
    "sasl.password": "kafka_password",
    "ssl.ca.location": "kafka_ca",
    "ssl.certificate.location": "kafka_certificate",
    "ssl.key.location": "kafka_key",
    "ssl.key.password": "kafka_key_password",
    "message.max.bytes": "kafka_message_bytes",
}
"""Options that have a setting, or a place, of their own."""

KEPT: Final = frozenset(
    {
        "acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "retries",
        "message.send.max.retries", "max.in.flight", "max.in.flight.requests.per.connection", "message.timeout.ms",
        "delivery.timeout.ms", "delivery.report.only.error", "partitioner", "transactional.id", "batch.size",
        "queue.buffering.max.messages", "queue.buffering.max.kbytes",
        "group.id", "group.protocol", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset",
        "partition.assignment.strategy", "enable.partition.eof", "isolation.level", "allow.auto.create.topics",
    }
)  # fmt: skip
"""Options on which the promises rest: no-loss, key-order, topics made only when asked for."""

REFUSED_LOGIN: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)

T = TypeVar("T")


class Reasons:
    """The last that librdkafka said in the background: why it can't connect is told there alone."""

    def __init__(self) -> None:
        self._latest: tuple[float, KafkaError] | None = None

    def note(self, error: KafkaError) -> None:
        """Take what ``error_cb`` brings; that all brokers are down is no cause of anything."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._latest = (time.monotonic(), error)
        log.debug("kafka.error code=%s reason=%r", error.name(), error.str())

    def latest(self, since: float) -> KafkaError | None:
        """Return the cause that was told last, if it was told since then, by ``time.monotonic``."""
        return None if self._latest is None or self._latest[0] < since else self._latest[1]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster is, and what all clients of it are told.

    >>> cluster = Cluster.at("kafka://kafka-1,kafka-2:9093", options=("client.id=shop",))
    >>> cluster.address
    'kafka-1:9092,kafka-2:9093'
    """

    address: str
    prefix: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    reasons: Reasons = field(default_factory=Reasons, repr=False, compare=False)

    @classmethod
    def at(
        cls,
        url: str,
        *,
        prefix: str = "",
        security: Mapping[str, str | None] | None = None,
        options: Sequence[str] = (),
    ) -> Cluster:
        """Read a URL, ``kafka://host:port[,host:port]``, and further options, each ``name=value``.

        ``prefix`` begins the names of all topics and groups. ``security`` are librdkafka's options about TLS and
        login. Raises ``SettingsError``.
        """
        given = {name: value for name, value in (security or {}).items() if value is not None}
        return cls(_servers(url), prefix, {**given, **_further(options)})

    def topic(self, channel: str) -> str:
        """Return the topic of a channel: its name behind our prefix."""
        return self.prefix + channel

    def group(self, channel: str, group: str) -> str:
        """Return the consumer group of a group: the flow's name behind our prefix, as progress is by channel too."""
        return f"{self.prefix}{channel}/{group}"

    def consumer(self, options: Mapping[str, Any]) -> Consumer:
        """Make a consumer. Raises ``SettingsError`` for an option that librdkafka does not take."""
        return self._made(Consumer, {**self._settings(options), "logger": _Quiet()})

    def producer(self, options: Mapping[str, Any]) -> Producer:
        """Make a producer. Raises ``SettingsError`` for an option that librdkafka does not take."""
        return self._made(Producer, {**self._settings(options), "logger": _Quiet()})

    def admin(self) -> AdminClient:
        """Make a client that asks about topics and groups, and makes or removes them."""
        return self._made(AdminClient, self._settings({}))

    def answer(self, admin: AdminClient, future: Future[T]) -> T:
        """Wait for an answer; not long once librdkafka has said why none will come.

        Raises ``KafkaException`` for what the brokers answer, ``ConnectionLost`` and ``StoreError`` where they don't.
        """
        since = time.monotonic()
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except FutureTimeout:
                admin.poll(0)  # brings the causes
                cause = self.reasons.latest(since)
                if cause is None:
                    continue
                if cause.code() in REFUSED_LOGIN:
                    raise self.translated(cause) from None
                if cause.code() == KafkaError._SSL or time.monotonic() - since > PATIENCE_SECONDS:
                    raise self.lost(cause) from None

    def lost(self, error: object) -> ConnectionLost:
        """Say that the cluster is away, with what librdkafka told in the background, which is mostly the cause."""
        text = error.str() if isinstance(error, KafkaError) else str(error)
        latest = self.reasons.latest(time.monotonic() - KEEP_SECONDS)
        cause = None if latest is None else latest.str()
        return ConnectionLost(SYSTEM, self.address, f"{text} ({cause})" if cause and cause not in text else text)

    def translated(self, error: KafkaException | KafkaError) -> ConnectionLost | StoreError:
        """Turn an error of librdkafka into ours: mostly the cluster is away; a login that it refused stays refused."""
        cause = error.args[0] if isinstance(error, KafkaException) else error
        if isinstance(cause, KafkaError) and cause.code() in REFUSED_LOGIN:
            return StoreError(
                f"the broker at {self.address} refuses this login or certificate: {cause.str()}; "
                "look at the settings kafka_security, kafka_username and kafka_password"
            )
        return self.lost(cause)

    def _settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.address,
            "log_level": 0,
            "error_cb": self.reasons.note,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,  # an outage is over within 10 s of the server's return
            **self.options,
            **options,
        }

    def _made(self, make: Callable[[dict[str, Any]], T], settings: dict[str, Any]) -> T:
        try:
            return make(settings)
        except (KafkaException, ValueError, TypeError) as error:
            cause = error.args[0] if isinstance(error, KafkaException) else error
            text = cause.str() if isinstance(cause, KafkaError) else str(cause)
            raise SettingsError(
                f"librdkafka cannot be set up for {self.address}: {text}; look at the settings that begin with kafka_"
            ) from error


class _Quiet:
    """Where librdkafka's log goes: what goes wrong is raised too, with its cause, and stands on stderr but once."""

    def log(self, _level: int, text: str, *parts: object) -> None:
        log.debug(text, *parts)


def _servers(url: str) -> str:
    rest = url.removeprefix("kafka://").removesuffix("/")
    if rest == url or not rest or any(sign in rest for sign in "/?#@ "):
        raise SettingsError(
            f"{_without_login(url)!r} names no Kafka cluster; write kafka://host:9092, or kafka://host1:9092,host2:9092"
            " (who logs in, and TLS, stand in settings that begin with kafka_)"
        )
    return ",".join(_server(part, url) for part in rest.split(","))


def _server(part: str, url: str) -> str:
    host, colon, port = part.rpartition(":")
    if not colon or part.endswith("]"):  # no port, maybe an IPv6 address
        host, port = part, str(PORT)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:  # noqa: PLR2004 - ports
        raise SettingsError(f"{part!r} in {url!r} is no host with a port; write e.g. {host or 'kafka'}:{PORT}")
    return f"{host}:{port}"


def _without_login(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    return f"{scheme}{colon}***@{rest.rpartition('@')[2]}" if "@" in rest else url


def _further(options: Sequence[str]) -> dict[str, str]:
    found = {}
    for option in options:
        name, equals, value = (part.strip() for part in option.partition("="))
        if not name or not equals:
            raise SettingsError(f"{name!r} in kafka_options is no option; write name=value, e.g. compression.type=lz4")
        if name in OURS:
            raise SettingsError(f"{name} in kafka_options has a place of its own: {OURS[name]}")
        if name in KEPT:
            raise SettingsError(f"{name} in kafka_options cannot be set: the promises about loss and order rest on it")
        found[name] = value
    return found
