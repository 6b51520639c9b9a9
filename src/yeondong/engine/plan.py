"""What was declared about one flow, and what its surroundings give it."""

from __future__ import annotations

import random as chance
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from yeondong.core.backoff import Backoff
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.failpoint import Failpoint, never
from yeondong.engine.lane import LaneMaker, ThreadLane
from yeondong.engine.suspicion import Turn

OnFailure: TypeAlias = Literal["park", "hold_key", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a flow.

    ``in_flight`` messages and ``in_flight_bytes`` may be on loan at once: that is the backpressure. A retry waits in
    memory for ``memory_wait_seconds``, and all of them for a quarter of ``in_flight``; ``held`` entries may be held.
    """

    in_flight: int = 1_000
    in_flight_bytes: int = 64 * 1024 * 1024
    held: int = 10_000
    memory_wait_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One flow as declared.

    ``exclusive``: under a lease; ``suspicious``: it looks for a message that kills its process. ``rewind`` goes back
    for a replay. ``repeats``, where an inbox knows repeats, counts what that would repeat: for nothing it is not done.
    """

    name: str
    on_failure: OnFailure = "hold_key"
    on_failure_in: Mapping[str, OnFailure] = field(default_factory=dict)
    attempts: int = 10
    backoff: Backoff = field(default_factory=Backoff)
    limits: Limits = field(default_factory=Limits)
    exclusive: bool = True
    suspicious: bool = True
    repeats: Callable[[str], int] | None = None
    rewind: Callable[[str], int] | None = None

    def policy(self, channel: str) -> OnFailure:
        """Say what a failure of this channel does: a relay carries several."""
        return self.on_failure_in.get(channel, self.on_failure)


class Bell(Protocol):
    """What a flow waits on when it waits for its lanes; threading.Event is one."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Time, chance, names and threads as parameters, so that a simulation can give its own."""

    owner: str
    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[], float] = chance.random
    failpoint: Failpoint = never
    make_lane: LaneMaker = ThreadLane
    make_bell: Callable[[], Bell] = threading.Event
    turn: Turn = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Scope:
    """Under which name the inbox counts a flow's messages; a replay moves to the next generation."""

    flow: str
    generation: int = 0

    @property
    def name(self) -> str:
        return self.flow if self.generation == 0 else f"{self.flow}~{self.generation}"
