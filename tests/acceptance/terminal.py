"""A terminal in which the commands of a page are typed as a reader would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, Self

from tests.pages import Block, Page

PATIENCE_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2
END: Final = "----- end of the command, status"


@dataclass(frozen=True, slots=True)
class Typed:
    """One command of a page, and the lines that the page shows below it; ``…`` stands for anything."""

    command: str
    shown: Sequence[str]
    again: bool


def commands(block: Block) -> Iterator[Typed]:
    """Give the commands of a console block. One whose block is marked ``again`` is to be typed until it shows this."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    for command, shown in found:
        yield Typed(command, shown, "again" in block.words)


def shows(printed: str, shown: Sequence[str]) -> bool:
    """Whether the lines stand in what was printed, in this order; what is printed besides does not matter."""
    lines = iter(printed.splitlines())
    return all(any(_like(line, wanted) for line in lines) for wanted in shown if wanted != "…")


def _like(line: str, wanted: str) -> bool:
    pattern = ".*".join(r"\s+".join(map(re.escape, part.split(" "))) for part in wanted.split("…"))
    return re.fullmatch(rf"{pattern}\s*", line) is not None


class Terminal:
    """A shell in a folder, with the tested yeondong and python first on its path."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("YEONDONG_")}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**kept, "PATH": path, "COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind: all that were started here are of one session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()

    def read(self, page: Page, change: Callable[[str], str] = lambda text: text) -> None:
        """Do what the page says, block by block: write its files, type its commands. ``change`` adapts their text."""
        for block in page.blocks:
            if block.file is not None:
                (self._folder / block.file).write_text(change(block.text), encoding="utf-8")
            elif block.language == "console" and "skip" not in block.words:
                for typed in commands(block):
                    self._follow(typed, change(typed.command), f"{page.name}, below line {block.line}")

    def type(self, command: str) -> tuple[int, str]:
        """Type a command and return its status and what it printed."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\nprintf '\\n%s %s\\n' '{END}' $?\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                raise AssertionError(f"{command} has not ended; it printed:\n{''.join(printed)}") from None
            if line.startswith(END):
                return int(line.removeprefix(END)), "".join(printed)
            printed.append(line)

    def look(self, command: str, shown: Sequence[str]) -> tuple[int, str]:
        """Type a command until it shows these lines, or patience ends."""
        until = time.monotonic() + PATIENCE_SECONDS
        status, printed = self.type(command)
        while not shows(printed, shown) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)  # a reader looks again after a while too
            status, printed = self.type(command)
        assert shows(printed, shown), _told(command, status, printed, shown)
        return status, printed

    def _follow(self, typed: Typed, command: str, where: str) -> None:
        status, printed = self.look(command, typed.shown) if typed.again else self.type(command)
        told = f"{where}: {_told(command, status, printed, typed.shown)}"
        assert shows(printed, typed.shown), told
        assert status == 0 or typed.shown, told
        assert "Traceback" not in printed, told

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._lines.put(line)


def _told(command: str, status: int, printed: str, shown: Sequence[str]) -> str:
    wanted = "\n".join(shown)
    return f"$ {command}\nprinted (status {status}):\n{printed}\nand not:\n{wanted}"
