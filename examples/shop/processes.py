"""The programs of the demo, as processes that are killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


class Program:
    """One command. Its output goes to NAME.log in the demo's folder, where it also runs."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again if it ran before."""
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
            )

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether it was started, and has ended since."""
        return self._process is not None and self._process.poll() is not None

    def say(self, line: bytes) -> None:
        """Write to its standard input; one that has just ended does not hear it."""
        pipe: IO[bytes] | None = self._started.stdin
        try:
            if pipe is not None:
                pipe.write(line)
        except BrokenPipeError:
            pass

    def freeze(self) -> None:
        """Hold it where it is, until ``thaw`` or ``kill``."""
        self._started.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        self._started.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self._started.kill()
        self._started.wait()
        self._hang_up()

    def stop(self, patience_seconds: float) -> tuple[int, float]:
        """Ask it to stop; return its exit code and how long it took. Killed when the patience is over."""
        asked = time.monotonic()
        self._started.send_signal(signal.SIGTERM)
        try:
            self._started.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._hang_up()
        return self._started.returncode, time.monotonic() - asked

    def last_line(self) -> str:
        """Return the last that it said."""
        said = (self._folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return said[-1] if said else "it said nothing"

    def peak_bytes(self) -> int | None:
        """Return the most memory that it has had; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except OSError:
            return None
        peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
        return None if peak is None else int(peak) * 1024

    def _hang_up(self) -> None:
        if self._started.stdin is not None:
            self._started.stdin.close()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process
