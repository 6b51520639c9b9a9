"""What happened in one history, as an outside observer saw it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

What: TypeAlias = Literal["invoked", "effect", "failed", "retried", "discarded", "killed", "held"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was sent. ``expects`` is what its script leads to if nobody interferes."""

    id: str
    key: str | None
    expects: Literal["effect", "failure", "either", "nothing"]
    failures: int
    flawed: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """``number`` is the attempt of what was invoked, and the generation of an effect: how many replays came before it.

    ``blocks`` says whether a failure keeps its key.
    """

    what: What
    id: str
    number: int = 0
    blocks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was promised for this history."""

    on_failure: Literal["park", "hold_key", "stop"]
    attempts: int
    keeps_order: bool
    transactional: bool
    undisturbed: bool
    in_flight: int
    held: int
    waiting: int
    remembered: int


@dataclass(slots=True)
class Record:
    """Grows while the history runs; the checker reads it afterwards.

    ``ends`` counts how often a flow lost its owner: by a crash, a pause beyond its lease, a lease that was taken away.
    ``replayed`` says for each message in which generation it is to be handled once more.
    """

    terms: Terms
    sent: list[Sent] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    replayed: dict[str, int] = field(default_factory=dict)
    left_failed: list[str] = field(default_factory=list)
    left_waiting: list[tuple[str, bool]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    disturbances: int = 0
    ends: int = 0
    steps: int = 0
    seconds: float = 0.0
    most_in_flight: int = 0
    most_held: int = 0
    most_waiting: int = 0
    most_remembered: int = 0

    def add(self, what: What, id: str, number: int = 0, *, blocks: bool = False) -> None:
        self.events.append(Event(what, id, number, blocks))
