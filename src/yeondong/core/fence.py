"""The right to run an exclusive flow, for a while."""

from __future__ import annotations

from msgspec import Struct


class Fence(Struct, frozen=True):
    """A lease as its holder knows it.

    ``deadline`` is in seconds of ``Clock.elapsed``, counted from before the renewal.
    """

    name: str
    owner: str
    epoch: int
    deadline: float
