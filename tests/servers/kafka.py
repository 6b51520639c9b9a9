"""A Kafka of one test's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic

from scripts.servers import kafka
from scripts.servers.kafka import Kafka
from scripts.servers.process import launch
from scripts.servers.table import SERVICES
from tests.servers.certificates import Certificate, certificate
from tests.servers.private import Private, free_port, one_at_a_time
from tests.servers.shared import missing

USER = "app"
PASSWORD = "app-secret"  # noqa: S105 - of a server that lives as long as one test
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

# Compiled lightly, and with the classes read from one file, it starts in 1.2 seconds instead of 2.8.
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms128m", "-Xmx512m")
# After a kill the controller lets a broker come back only when it has given up the one that was.
_SESSIONS = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "300"}
_BACK_SECONDS = 20.0
_LOGGING = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"


class PrivateKafka(Private):
    """Starts in about 1.5 seconds.

    Operators reach it in the clear at ``bootstrap``, with all rights. A second listener, at ``client_bootstrap``, asks
    for what was chosen by ``sasl`` and ``tls_host``; ``client_settings`` has what librdkafka needs for it. Clients know
    the server as ``localhost``: a certificate for another name is a wrong one. With ``authorizer`` the user ``app`` may
    do only what was allowed.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        sasl: Mechanism | None = None,
        tls_host: str | None = None,
        authorizer: bool = False,
    ) -> None:
        jars = kafka.jars_of(SERVICES)
        if not jars.exists():
            missing("Kafka's jars are not here; fetch them: scripts/services install kafka")
        super().__init__("kafka")
        self._sasl = sasl
        self._certificate: Certificate | None = None
        if tls_host is not None:
            self._certificate = certificate(self.folder / "tls", tls_host)
        port, controller, self._client_port = free_port(), free_port(), free_port()
        template = _template(jars)
        listeners = _listeners(port, controller, self._client_port, sasl, self._certificate)
        rights = _AUTHORIZER if authorizer else {}
        self._server = Kafka(
            self.folder,
            port,
            controller=controller,
            jars=jars,
            settings={**_SESSIONS, **listeners, **rights, **(settings or {})},
            options=(*_QUICK, _LOGGING, f"-XX:SharedArchiveFile={template / 'classes.jsa'}", "-Xshare:auto"),
        )
        shutil.copytree(template / "data", self.folder / "data")

    @property
    def server(self) -> Kafka:
        return self._server

    @property
    def url(self) -> str:
        return self._server.address

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._server.port}"

    @property
    def client_bootstrap(self) -> str:
        return f"localhost:{self._client_port}"

    @property
    def authority(self) -> Path:
        """The certificate by which clients know the server."""
        assert self._certificate is not None, "this server was made without tls_host"
        return self._certificate.authority

    @property
    def client_settings(self) -> dict[str, str]:
        """What librdkafka needs for the second listener, the right password included."""
        settings = {"bootstrap.servers": self.client_bootstrap, "security.protocol": self._protocol}
        if self._sasl is not None:
            settings |= {"sasl.mechanism": self._sasl, "sasl.username": USER, "sasl.password": PASSWORD}
        if self._certificate is not None:
            settings["ssl.ca.location"] = str(self._certificate.authority)
        return settings

    def admin(self) -> AdminClient:
        """A client of the operators, who may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def resume(self) -> None:
        """As any server; the controller may have given up the broker meanwhile, and takes a moment to have it back."""
        self.go_on()
        admin, deadline = self.admin(), time.monotonic() + _BACK_SECONDS
        while not all(leader >= 0 for leader in _leaders(admin)):
            assert time.monotonic() < deadline, f"the broker was not taken back within {_BACK_SECONDS:g} s"
            time.sleep(0.05)

    def create_topic(self, name: str, partitions: int = 1, **settings: str) -> None:
        admin = self.admin()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        admin.create_topics([topic])[name].result(20)

    def delete_topic(self, name: str) -> None:
        admin = self.admin()
        admin.delete_topics([name])[name].result(20)

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Allow the user ``app`` these operations, or all of them, on one topic or one group."""
        admin = self.admin()
        literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        rights = [
            AclBinding(kind, name, literal, f"User:{USER}", "*", operation, allow)
            for operation in operations or [AclOperation.ALL]
        ]
        for allowed in admin.create_acls(rights).values():
            allowed.result(20)

    @property
    def _protocol(self) -> str:
        return _protocol(self._sasl, self._certificate)


_AUTHORIZER: Mapping[str, str] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # operators, and the server itself: whoever comes in the clear
}


def _leaders(admin: AdminClient) -> list[int]:
    """The broker that leads each partition; -1 where none does."""
    topics = admin.list_topics(timeout=_BACK_SECONDS).topics
    return [partition.leader for topic in topics.values() for partition in topic.partitions.values()]


def _protocol(sasl: Mechanism | None, tls: Certificate | None) -> str:
    if sasl is None:
        return "PLAINTEXT" if tls is None else "SSL"
    return "SASL_PLAINTEXT" if tls is None else "SASL_SSL"


def _listeners(
    port: int, controller: int, client: int, sasl: Mechanism | None, tls: Certificate | None
) -> dict[str, str]:
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CLIENT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},CLIENT://localhost:{client}",
        "listener.security.protocol.map": (f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:{_protocol(sasl, tls)}"),
        "inter.broker.listener.name": "PLAINTEXT",
    }
    if sasl is not None:
        mechanism = sasl.lower()
        login = f"{_PLAIN_LOGIN} required user_{USER}='{PASSWORD}';"
        settings |= {
            "listener.name.client.sasl.enabled.mechanisms": sasl,
            f"listener.name.client.{mechanism}.sasl.jaas.config": login
            if sasl == "PLAIN"
            else f"{_SCRAM_LOGIN} required;",
        }
    if tls is not None:
        settings |= {
            "listener.name.client.ssl.keystore.type": "PEM",
            "listener.name.client.ssl.keystore.certificate.chain": _one_line(tls.chain),
            "listener.name.client.ssl.keystore.key": _one_line(tls.key),
        }
    return settings


def _one_line(file: Path) -> str:
    """A file's text as one value of a properties file."""
    return file.read_text().strip().replace("\n", "\\n")


def _template(jars: Path) -> Path:
    """A formatted data folder and the JVM's archive of classes, made once: copies of them serve each private server."""
    template = SERVICES / f"template-{jars.name}"
    with one_at_a_time(SERVICES / "template-kafka.lock"):
        if template.exists():
            return template
        part = template.with_name(template.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        archive = part / "classes.jsa"
        options = (*_QUICK, _LOGGING, f"-XX:ArchiveClassesAtExit={archive}")
        users = [
            word
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ]
        server = Kafka(part, free_port(), controller=free_port(), jars=jars, options=options, format_options=users)
        server.prepare()
        shutil.copytree(part / "data", part / "formatted")
        process = launch(
            server.command(), log=part / "log", account=None, answers=server.answers, wait_seconds=server.wait_seconds
        )
        process.end(server.stop_signal, server.wait_seconds)
        shutil.rmtree(part / "data")
        (part / "formatted").rename(part / "data")
        part.rename(template)
    return template
