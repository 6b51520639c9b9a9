"""PostgreSQL's snapshots: which transactions had ended at some moment, told by their ids."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

_TEXT: Final = re.compile(r"(\d+):(\d+):((?:\d+(?:,\d+)*)?)")


class Snapshot(Struct, frozen=True):
    """One moment: ``text`` is what PostgreSQL writes and reads.

    All transactions below ``first`` (its xmax) had begun by then, and all have ended but those in ``running``.
    """

    text: str
    first: str
    running: tuple[str, ...]

    def precedes(self, other: Snapshot) -> bool:
        """Whether the other one can be a later moment of the same server."""
        return int(self.first) <= int(other.first)


def snapshot(text: str) -> Snapshot:
    """Read one. Raises ``ValueError``."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no snapshot of PostgreSQL")
    return Snapshot(text, found[2], tuple(found[3].split(",")) if found[3] else ())


# Sees nothing: before the first transaction of any server.
BEGINNING: Final = snapshot("1:1:")
