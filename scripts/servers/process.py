"""A server process that outlives the program that started it, known by its id and the moment when it began."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

_KILL_WAIT_SECONDS = 10.0


class NotStarted(Exception):
    """A server ended, or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process id says little after the process has ended: the kernel gives it to another one.

    ``began`` is the start in clock ticks since boot, which /proc tells of every process.
    """

    pid: int
    began: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        fields = _stat(pid)
        return None if fields is None else cls(pid, int(fields[19]))

    @classmethod
    def recorded(cls, file: Path) -> Self | None:
        """The process that a file names, if it still runs."""
        try:
            process = cls(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return process if process.runs() else None

    def record(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    def runs(self) -> bool:
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.began and fields[0] not in "ZX"

    def send(self, number: signal.Signals) -> None:
        if self.runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def family(self) -> list["Process"]:
        """This process and those that it has started itself: PostgreSQL's backends leave its process group."""
        children = [
            Process(int(entry.name), int(fields[19]))
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and (fields := _stat(int(entry.name))) and int(fields[1]) == self.pid
        ]
        return [self, *children]

    def end(self, number: signal.Signals, wait_seconds: float) -> None:
        """Ask with that signal, kill it with all that it has started when the time is over, and wait for their end."""
        self.send(number)
        if not _wait(lambda: not self.runs(), wait_seconds):
            self.kill()
        self._reap()

    def kill(self) -> None:
        """End it with all that it has started, as a power cut does, and wait until nothing of it is left."""
        family = self.family()
        for process in family:
            process.send(signal.SIGKILL)
        _wait(lambda: not any(process.runs() for process in family), _KILL_WAIT_SECONDS)
        self._reap()

    def _reap(self) -> None:
        """If it is a child of this program, nobody else asks how it ended."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def launch(
    command: Sequence[str | Path],
    *,
    log: Path,
    account: str | None,
    answers: Callable[[], bool],
    wait_seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start a server in a session of its own, as that account, and return when it answers."""
    with log.open("ab") as output:
        began_at = output.tell()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **(environment or {})},
            user=account,
            group=account,
            extra_groups=None if account is None else [],
        )
    process = Process.of(child.pid)
    if process is not None and _wait(lambda: child.poll() is not None or answers(), wait_seconds):
        if child.poll() is None:
            child.returncode = 0  # it shall outlive us: without this, Popen warns about it when it is forgotten
            return process
        what = f"ended with status {child.returncode}"
    else:
        what = f"does not answer after {wait_seconds:g} seconds"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    tail = log.read_bytes()[began_at:].decode(errors="replace").splitlines()[-15:]
    raise NotStarted("\n".join([f"{Path(command[0]).name} {what}; the end of {log}:", *tail]))


def _wait(condition: Callable[[], bool], wait_seconds: float) -> bool:
    deadline = time.monotonic() + wait_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def _stat(pid: int) -> list[str] | None:
    """What /proc says of a process, from its state on: its name before that may hold spaces and parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
