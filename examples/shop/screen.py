"""What the demo shows while it runs: bars on a terminal, short lines in a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.shop import evidence


class Screen:
    """Bars for how far the orders are, and a line for each thing that happens."""

    def __init__(self, console: Console, orders: int) -> None:
        self._console = console
        self._began = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description:>15}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._placed, self._indexed, self._counted, self._granted = (
            self._bars.add_task(name, total=orders, note="")
            for name in ("placed", "indexed", "counted", "points granted")
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, progress: evidence.Progress) -> None:
        """Show how far the orders are."""
        note = f"{progress.placed - progress.done} under way"
        self._bars.update(self._placed, completed=progress.placed, note=note)
        self._bars.update(self._indexed, completed=progress.indexed)
        self._bars.update(self._counted, completed=progress.counted)
        self._bars.update(self._granted, completed=progress.granted)

    def say(self, what: str) -> None:
        """Write a line that stays."""
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/]  {what}", highlight=False, soft_wrap=True)
