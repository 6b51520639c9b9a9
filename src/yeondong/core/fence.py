"""The right to run an exclusive flow, or to write for one partition of a shared one."""

from __future__ import annotations

from msgspec import Struct


class Fence(Struct, frozen=True):
    """A lease, or a claim to a ``partition``, as its holder knows it.

    A lease ends at its ``deadline``, in seconds of ``Clock.elapsed``, counted from before the renewal. A claim has
    none: it ends when another worker claims the partition.
    """

    name: str
    owner: str
    epoch: int
    deadline: float = float("inf")
    partition: str | None = None
