"""Kafka as one process in KRaft mode, from its jars: broker and controller, no ZooKeeper, no replication."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from scripts.servers.answers import kafka_answers
from scripts.servers.packages import copy_jars

VERSION = "4.1.0"
_CLUSTER = "eWVvbmRvbmctdGVzdHMtMQ"  # any 16 bytes
_JAVA = shutil.which("java") or "java"
_FORMAT = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER)
_OPTIONS = ("-Xms256m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_POM = Path(__file__).with_name("kafka-pom.xml")

SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",  # as in production: a wrong name shall be an error, not a new topic
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",  # tests wait for members that were killed
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


class Kafka:
    name = "kafka"
    account: str | None = None  # it runs as whoever started it
    stop_signal = signal.SIGTERM
    wait_seconds = 60.0
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        controller: int,
        jars: Path,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = _OPTIONS,
        format_options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = port
        self._jars = jars
        self._options = options
        self._format_options = format_options
        self._settings = {
            **SETTINGS,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "log.dirs": str(folder / "data"),
            **(settings or {}),
        }

    @property
    def address(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        configuration = self.folder / "server.properties"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        if not (self.folder / "data" / "meta.properties").exists():
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            format_storage(self._jars, configuration, self._format_options)

    def command(self) -> list[str | Path]:
        return [_JAVA, *self._options, "-cp", f"{self._jars}/*", "kafka.Kafka", self.folder / "server.properties"]

    def answers(self) -> bool:
        return kafka_answers(self.port)


def format_storage(jars: Path, configuration: Path, options: Sequence[str]) -> None:
    """Write a new data folder. It names no port: a copy of it serves any other instance."""
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [_JAVA, "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", *_FORMAT, "-c", configuration, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"kafka.tools.StorageTool could not format: {output.read().decode(errors='replace')}")


def jars_of(folder: Path) -> Path:
    return folder / f"kafka-{VERSION}"


def bring_jars(folder: Path) -> None:
    copy_jars(_POM, jars_of(folder))
