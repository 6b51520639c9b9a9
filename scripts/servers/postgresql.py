"""PostgreSQL as a private instance: own port, own folder, everyone on loopback is the superuser ``postgres``."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from scripts.servers.answers import postgresql_answers

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path to a socket may have 107 characters only
    "wal_level": "logical",
    "max_connections": "300",
    "timezone": "UTC",
}


_INITIAL = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")


def account() -> str | None:
    """As whom PostgreSQL runs: it refuses root."""
    return "postgres" if os.geteuid() == 0 else None


class Postgresql:
    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast": open sessions are ended, their transactions rolled back
    wait_seconds = 60.0
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path, port: int, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = port
        self.account = account()
        self._settings = {**SETTINGS, **(settings or {})}

    @property
    def address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        if self.account:
            shutil.chown(self.data, self.account, self.account)
        subprocess.run(
            [programs() / "initdb", *_INITIAL, "--pgdata", self.data],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            user=self.account,
            group=self.account,
            extra_groups=None if self.account is None else [],
        )

    def command(self) -> list[str | Path]:
        settings = {"port": str(self.port), **self._settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [programs() / "postgres", "-D", self.data, *options]

    def answers(self) -> bool:
        return postgresql_answers(self.port)


def installed() -> bool:
    return bool(list(_versions()))


def programs() -> Path:
    """The folder of the newest version: Debian keeps the server's programs off the path."""
    return max(_versions(), key=lambda folder: float(folder.parent.name))


def _versions() -> list[Path]:
    return [program.parent for program in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
