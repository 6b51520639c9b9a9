"""The ledger: a file of JSON lines in which everybody writes what happened, and nobody changes what stands there.

Customers, the partner, the demo and the recorder append to one file, each line with one write: the order of the lines
is the order in which things were written down.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Line: TypeAlias = Mapping[str, Any]


class Ledger:
    """The pen of one writer. What it has written survives its process; with ``durable`` it is on the disk."""

    def __init__(self, path: Path, by: str, *, durable: bool = True) -> None:
        self._file = path.open("ab", buffering=0)
        self._by = by
        self._durable = durable

    def write(self, what: str, **facts: Any) -> None:
        """Append one line."""
        self.write_all([{"what": what, **facts}])

    def write_all(self, lines: Iterable[Line]) -> None:
        """Append lines that belong together."""
        head = {"at": time.time(), "by": self._by}
        text = b"".join(json.dumps({**head, **line}).encode() + b"\n" for line in lines)
        # With one write to a file that is open for appending, no two writers' lines are mixed.
        if self._file.write(text) != len(text):
            raise OSError(f"{self._file.name} takes no more: the disk is full, and its last line is cut")
        if self._durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Put the pen down."""
        self._file.close()


class Trail:
    """The ledger as it is read while others write. A line that is not yet complete is not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.lines: list[Line] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many lines there are by (by, what)."""

    def follow(self) -> Sequence[Line]:
        """Read what is new; return all lines."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                new = [json.loads(line) for line in whole.splitlines()]
                self.lines += new
                self.counts.update((line["by"], line["what"]) for line in new)
                self._read += len(whole) + 1
        return self.lines
