"""The servers there are, by name. MariaDB, Redis, RabbitMQ and SFTP take their rows here when their drivers come."""

import os
import shutil
import signal
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.servers import kafka, pgbouncer, postgresql
from scripts.servers.kafka import Kafka
from scripts.servers.pgbouncer import Pgbouncer
from scripts.servers.postgresql import Postgresql

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / ".services"  # what is downloaded, which processes were started


class Server(Protocol):
    """A server with its own folder and port, which can be prepared, started, and asked whether it answers."""

    name: str
    folder: Path
    port: int
    account: str | None
    stop_signal: signal.Signals
    wait_seconds: float

    @property
    def address(self) -> str: ...
    def prepare(self) -> None:
        """Make the folder's contents where they are missing; calling twice is fine."""

    def command(self) -> list[str | Path]: ...
    def answers(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One server: where it listens, what it needs, how it is made for a folder."""

    port: int
    port_variable: str
    programs: Mapping[str, Callable[[], bool]]  # Debian package, whether what it brings is there
    make: Callable[[Path, int], Server]

    def chosen_port(self) -> int:
        return int(os.environ.get(self.port_variable, self.port))


def on_path(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is not None


def _pgbouncer(folder: Path, port: int) -> Pgbouncer:
    return Pgbouncer(folder, port, behind=TABLE["postgresql"].chosen_port())


def _kafka(folder: Path, port: int) -> Kafka:
    return Kafka(folder, port, controller=port + 1, jars=kafka.jars_of(SERVICES))


# In the order of starting: PgBouncer needs PostgreSQL.
TABLE: Mapping[str, Row] = {
    "postgresql": Row(15432, "YEONDONG_POSTGRESQL_PORT", {"postgresql": postgresql.installed}, Postgresql),
    "pgbouncer": Row(16432, "YEONDONG_PGBOUNCER_PORT", {"pgbouncer": pgbouncer.installed}, _pgbouncer),
    "kafka": Row(
        19092,
        "YEONDONG_KAFKA_PORT",
        {"openjdk-17-jre-headless": on_path("java"), "maven": on_path("mvn"), "kcat": on_path("kcat")},
        _kafka,
    ),
}

# For tests of a clock that jumps.
TOOLS: Mapping[str, Callable[[], bool]] = {
    "faketime": on_path("faketime"),
    "gcc": on_path("cc"),
    "libc6-dev": Path("/usr/include/threads.h").exists,
}


def make(name: str) -> Server:
    row = TABLE[name]
    return row.make(place() / name, row.chosen_port())


def place() -> Path:
    """Where the servers' folders stand: here, or where an account other than root's may enter.

    A checkout below /root is closed to the account that PostgreSQL runs as.
    """
    if postgresql.account() is None or all(folder.stat().st_mode & 0o001 for folder in (ROOT, *ROOT.parents)):
        return SERVICES
    return Path(tempfile.gettempdir()) / f"yeondong-services-{zlib.crc32(bytes(ROOT)):08x}"
