"""Processes of one test in its own folder, and what can be seen of them from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.acceptance import program
from yeondong import Yeondong
from yeondong.app.assembly import Parts, make_worker
from yeondong.engine.worker import Worker

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30.0
LEASE_SECONDS = 1.0
SETTINGS = {
    "lease_seconds": LEASE_SECONDS,
    "heartbeat_seconds": 0.5,
    "grace_seconds": 5.0,
    "backoff_first_seconds": 0.05,
    "backoff_most_seconds": 0.2,
    # Shorter than the second wait, so that retries are seen in memory and in the store.
    "memory_wait_seconds": 0.09,
    "lanes": 2,
}


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Return what the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.02)
    return found


def until_none(found: Callable[[], list[str]], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until nothing is found any more; what is still found then is what the test says."""
    deadline = time.monotonic() + seconds
    while remaining := found():
        assert time.monotonic() < deadline, "\n".join(remaining)
        time.sleep(0.02)


class Process:
    """A process that the test has started. Its output is in a file, so that no full pipe can stop it."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
            )
        self.pid = self._process.pid

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def alive(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> Process:
        """Wait until its flows have been started."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "ready\n" not in self.log() and self.alive():
            if time.monotonic() > deadline:
                self._process.send_signal(signal.SIGABRT)  # it tells where it hangs
                self._process.wait()
            time.sleep(0.02)
        assert self.alive(), f"{self.name} did not start:\n{self.log()}"
        return self

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end, and return how it ended: an exit code, or a signal's number, negative."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # it tells where it hangs
            self._process.wait()
            raise AssertionError(f"{self.name} is still there after {seconds:g} s:\n{self.log()}") from None

    def killed_itself(self) -> bool:
        """Wait until the process has ended, and say whether SIGKILL did it, which nobody else has sent."""
        return self.ended() == -signal.SIGKILL

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end safely, and return how it ended."""
        self._process.terminate()
        return self.ended()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self.paused()

    def paused(self) -> None:
        """Wait until it has been stopped, by whomever."""
        until(lambda: self.stands_still() or not self.alive(), f"{self.name} stands still")
        assert self.alive(), self.log()

    def stands_still(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class World:
    """One folder with its settings, databases and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "orders.db"
        self.processes: list[Process] = []
        self.set()

    def set(self, **settings: Any) -> None:
        """Write the settings that the app has here, in this process and in those that are started later."""
        text = "".join(f"{name} = {value!r}\n" for name, value in {**SETTINGS, **settings}.items())
        (self.folder / "yeondong.toml").write_text(text)

    def start(self, parts: str, *options: str, factory: str = "tests.acceptance.orders:make") -> Process:
        """Start a worker with ``all`` flows, the ``relay`` or the ``handlers``; do not wait for it."""
        return self.run(parts, "-P", program.__file__, factory, parts, *options)

    def run(self, name: str, *arguments: str) -> Process:
        """Start a Python process."""
        process = Process(f"{len(self.processes)}-{name}", list(arguments), self.folder)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """Stop every process that is alive, and see that each comes to a safe end."""
        alive = [process for process in self.processes if process.alive()]
        assert [process.stop() for process in alive] == [0] * len(alive)

    def end(self) -> None:
        """Leave nothing behind; tell what happened, which pytest shows if the test has failed."""
        for process in self.processes:
            process.kill()
            print(f"--- {process.name} ---\n{process.log()[-6_000:]}")  # noqa: T201

    @contextlib.contextmanager
    def reading(self, database: Path | None = None) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(database or self.database, isolation_level=None)) as connection:
            yield connection

    def rows(self, statement: str, *values: Any, database: Path | None = None) -> list[Any]:
        with self.reading(database) as connection:
            return connection.execute(statement, values).fetchall()

    def one(self, statement: str, *values: Any, database: Path | None = None) -> Any:
        """Return the first column of the first row."""
        return self.rows(statement, *values, database=database)[0][0]

    def leases(self) -> dict[str, tuple[str, int]]:
        """Return owner and epoch of each lease that has been taken."""
        rows = self.rows("SELECT name, owner, epoch FROM yeondong_leases")
        return {name: (owner, epoch) for name, owner, epoch in rows}

    def count(self, table: str, where: str = "true", *values: Any) -> int:
        """Count the rows of a table."""
        count: int = self.one(f"SELECT count(*) FROM {table} WHERE {where}", *values)
        return count

    def holds(self, process: Process, *flows: str) -> bool:
        """Whether the process has the leases of these flows."""
        leases = self.leases()
        return all(pid_of(leases.get(flow, ("", 0))[0]) == process.pid for flow in flows)


@contextlib.contextmanager
def working(app: Yeondong, parts: Parts = "all") -> Iterator[Worker]:
    """Run a worker in this process, where nothing is killed."""
    app.store.prepare()
    app.broker.prepare(app.channels())
    app.register()
    worker = make_worker(app, parts)
    worker.start()
    try:
        yield worker
    finally:
        assert worker.stop()


def pid_of(owner: str) -> int | None:
    """Read the process id in a worker's name."""
    parts = owner.rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 else None
