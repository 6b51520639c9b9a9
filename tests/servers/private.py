"""A server of one test's own, to be harmed: its own port and folder, ended with the test whatever happens."""

from __future__ import annotations

import fcntl
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.servers.process import Process, launch
from scripts.servers.table import Server

# The kernel gives clients ports from 32768 on: what a server leaves for a moment must not be taken meanwhile.
_PORTS = range(20_000, 30_000)
_STOP_WAIT_SECONDS = 20.0


class Private:
    """The life of one private server. As a context manager it starts it, and in the end removes all of it.

    Start it on a test's main thread: the kernel kills it when the thread that started it ends, so that nothing is left
    where a test run is killed.
    """

    def __init__(self, name: str) -> None:
        # Not in pytest's folder, which is closed to the account that PostgreSQL runs as.
        self.folder = Path(tempfile.mkdtemp(prefix=f"yeondong-{name}-"))
        self.folder.chmod(0o755)
        self._process: Process | None = None

    @property
    def server(self) -> Server:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, on the data that it left, and return when it answers."""
        assert self._process is None or not self._process.runs(), f"{self.server.name} still runs"
        self.server.prepare()
        self._process = launch(
            ["setpriv", "--pdeathsig", "KILL", *self.server.command()],
            log=self.folder / "log",
            account=self.server.account,
            answers=self.server.answers,
            wait_seconds=self.server.wait_seconds,
        )

    def stop(self) -> None:
        """End it as an operator does."""
        self.go_on()
        self.process.end(self.server.stop_signal, _STOP_WAIT_SECONDS)

    def kill(self) -> None:
        """End it at once, with all that it has started, as a power cut does."""
        self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it stand still, with all that it has started: it accepts connections and answers nothing."""
        for process in self.process.family():
            process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, and return when it serves again."""
        self.go_on()

    def go_on(self) -> None:
        for process in self.process.family():
            process.send(signal.SIGCONT)

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.server.name} was never started"
        return self._process

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            print(f"--- {self.server.name} ---\n{self.log()[-4_000:]}")  # noqa: T201 - shown where the test has failed
        self.remove()

    def remove(self) -> None:
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Two test processes may need the same thing made for the first time."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
