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

    def group_runs(self) -> bool:
        """Also the children count: a postmaster that was killed leaves its backends for a moment."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return any(_in_group(self.pid))

    def send(self, number: signal.Signals) -> None:
        if self.runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def send_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, number: signal.Signals, wait_seconds: float) -> None:
        """Ask with that signal, and kill the whole group when the time is over."""
        self.send(number)
        if not _wait(lambda: not self.runs(), wait_seconds):
            self.send_group(signal.SIGKILL)
            _wait(lambda: not self.runs(), wait_seconds)


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


def _in_group(group: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None and int(fields[2]) == group and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members
