"""Works, their sides, and the rounds in which they alternate.

A side is a process of its own, in a fresh interpreter: nothing that one side loads, warms or leaves behind reaches
another. Within a round the sides run one after the other, and the next round begins with another one, so that a machine
that becomes slower meanwhile is slower for all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from benchmarks.peers.environment import PeerMissing, python_with
from benchmarks.servers import bring_up, room

ROOT: Final = Path(__file__).resolve().parent.parent
SIDE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Side:
    """One contender: ``module`` is run with the name of a function and its options, and prints figures as JSON.

    ``needs`` are servers: each run gets a database and topics of its own there. ``peer`` names the locked requirements
    of the environment that it needs, if it is not ours. ``differs`` says what it promises less, or more, than ours.
    """

    name: str
    module: str
    function: str
    options: Mapping[str, Any]
    needs: Collection[str] = ()
    peer: str | None = None
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What the figure should be.

    At least so many times the best peer's or the limit's; at most a value of its own unit; or at most so much
    ``above limit``.
    """

    than: Literal["peer", "limit", "at most", "above limit"]
    value: float


@dataclass(frozen=True, slots=True)
class Part:
    """One figure of a work; ``figure`` is its name in what the sides print. Of times the shortest is the best."""

    name: str
    unit: str
    figure: str
    targets: Sequence[Target] = ()

    @property
    def best(self) -> Callable[[Iterable[float]], float]:
        return min if self.unit == "ms" else max


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The same work for ours, the peers and the limit; ``limit_is`` says exactly what the limit does."""

    name: str
    parts: Sequence[Part]
    ours: Side
    peers: Sequence[Side] = ()
    limit: Side | None = None
    limit_is: str
    settings: Mapping[str, Any]
    rounds: int = 5

    @property
    def sides(self) -> Sequence[Side]:
        """The limit first, then ours."""
        return [*([] if self.limit is None else [self.limit]), self.ours, *self.peers]


@dataclass(slots=True, kw_only=True)
class Line:
    """One line of the table: medians of all rounds. ``missing`` says why a peer has no figure."""

    part: Part
    work: Work
    ours: float
    peers: Mapping[str, float]
    limit: float | None
    missing: Mapping[str, str]
    rounds: int

    @property
    def name(self) -> str:
        return self.part.name

    def ratio(self, than: str) -> float | None:
        """Ours by the best peer's, or by the limit's."""
        best = self.part.best(self.peers.values()) if self.peers else None
        other = self.limit if than == "limit" else best
        return self.ours / other if other else None

    def met(self, target: Target) -> bool | None:
        """Whether a target is met; None if there is nothing to compare with."""
        if target.than == "at most":
            return self.ours <= target.value
        if target.than == "above limit":
            return None if self.limit is None else self.ours - self.limit <= target.value
        ratio = self.ratio(target.than)
        return None if ratio is None else ratio >= target.value

    def figures(self, machine: Mapping[str, str]) -> dict[str, Any]:
        """Return the line as others read it."""
        return {
            "work": self.name,
            "unit": self.part.unit,
            "ours": self.ours,
            "peers": dict(self.peers),
            "limit": self.limit,
            "limit_is": self.work.limit_is,
            "settings": {
                **self.work.settings,
                "rounds": self.rounds,
                "differs": {side.name: side.differs for side in self.work.peers if side.differs},
                "missing": dict(self.missing),
                "machine": dict(machine),
            },
        }


Tell: TypeAlias = Callable[[str], None]


@dataclass(slots=True)
class _Runs:
    figures: list[Mapping[str, float]] = field(default_factory=list)

    def median(self, figure: str) -> float:
        return statistics.median(run[figure] for run in self.figures)

    def has(self, figure: str) -> bool:
        return all(figure in run for run in self.figures)


def measure(works: Sequence[Work], *, rounds: int | None, install: bool, tell: Tell) -> list[Line]:
    """Run all sides of all works; ``rounds`` counts instead of the works' own where those are more than one."""
    bring_up({need for work in works for side in work.sides for need in side.needs})
    return [line for work in works for line in _measure_one(work, rounds, install, tell)]


def _measure_one(work: Work, rounds: int | None, install: bool, tell: Tell) -> list[Line]:  # noqa: FBT001
    count = work.rounds if rounds is None or work.rounds == 1 else rounds
    missing: dict[str, str] = {}
    pythons: dict[str, str] = {}
    for side in work.sides:
        try:
            pythons[side.name] = sys.executable if side.peer is None else python_with(side.peer, install=install)
        except PeerMissing as reason:
            missing[side.name] = str(reason)
            tell(f"{work.name}: without {side.name}: {reason}")
    sides = [side for side in work.sides if side.name in pythons]
    runs = {side.name: _Runs() for side in sides}
    for number in range(count):
        tell(f"{work.name}: round {number + 1} of {count}")
        first = number % len(sides)
        for side in sides[first:] + sides[:first]:
            with room(side.needs) as told:
                runs[side.name].figures.append(run_side(side, pythons[side.name], told))
    return [
        Line(
            part=part,
            work=work,
            ours=runs[work.ours.name].median(part.figure),
            peers={side.name: runs[side.name].median(part.figure) for side in work.peers if side.name in runs},
            limit=_limit(work, runs, part.figure),
            missing=missing,
            rounds=count,
        )
        for part in work.parts
    ]


def _limit(work: Work, runs: Mapping[str, _Runs], figure: str) -> float | None:
    """Return the limit's median; None for a figure that it does not have."""
    if work.limit is None or not runs[work.limit.name].has(figure):
        return None
    return runs[work.limit.name].median(figure)


def run_side(side: Side, python: str, told: Mapping[str, str]) -> Mapping[str, float]:
    """Run one side once, with its options and what it is ``told`` about the servers, and return its figures."""
    command = [python, "-m", side.module, side.function, json.dumps({**side.options, **told})]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=SIDE_SECONDS, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
    figures: Mapping[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def environment() -> dict[str, str]:
    """Return this environment without settings of ours: all is measured with the defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith("YEONDONG_")}
