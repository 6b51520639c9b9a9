"""The figures as one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.measuring import Line, Target

COLUMNS = ("work", "unit", "ours", "peer", "limit", "ours / peer", "ours / limit", "target")


def draw_table(lines: Sequence[Line], machine: Mapping[str, str]) -> RenderableType:
    """Draw one line for each figure, and below it what is compared."""
    table = Table(caption=" · ".join(f"{name}: {value}" for name, value in machine.items()))
    for name in COLUMNS[:2]:
        table.add_column(name, no_wrap=True)
    for name in COLUMNS[2:-1]:
        table.add_column(name, justify="right")
    table.add_column(COLUMNS[-1])
    for line in lines:
        verdict = Text("\n".join(targets_of(line)), style="red" if missed(line) else "")
        table.add_row(*cells_of(line), verdict)
    return Group(table, *(Text(note) for note in notes_of(lines)))


def cells_of(line: Line) -> list[str]:
    """Return a line's cells, without its targets."""
    peers = "\n".join([*(f"{shown(value)} {name}" for name, value in line.peers.items()), *line.missing])
    return [
        line.name,
        line.part.unit,
        shown(line.ours),
        peers,
        "" if line.limit is None else shown(line.limit),
        _ratio(line.ratio("peer")),
        _ratio(line.ratio("limit")),
    ]


def targets_of(line: Line) -> list[str]:
    """Say each target and whether it is met."""
    verdicts = {True: "met", False: "missed", None: "not compared"}
    return [f"{_target(target, line.part.unit)}: {verdicts[line.met(target)]}" for target in line.part.targets]


def missed(line: Line) -> bool:
    """Whether a target is missed."""
    return any(line.met(target) is False for target in line.part.targets)


def notes_of(lines: Sequence[Line]) -> Iterator[str]:
    """Say, once for each work, what its limit is, what differs and what is missing."""
    for work, line in {line.work.name: (line.work, line) for line in lines}.values():
        settings = {**work.settings, "rounds": line.rounds}
        listed = ", ".join(f"{name} {value}" for name, value in settings.items())
        yield f"{work.name}: {listed}. Limit: {work.limit_is}"
        for side in work.peers:
            if side.differs:
                yield f"  {side.name} differs: {side.differs}"
        for name, reason in line.missing.items():
            yield f"  {name} is missing: {reason}"


def shown(value: float) -> str:
    """Write a figure with as many digits as mean something."""
    if value >= 1_000:
        return f"{round(value, -2 if value >= 10_000 else -1):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _target(target: Target, unit: str) -> str:
    if target.than == "at most":
        return f"at most {target.value:g} {unit}"
    if target.than == "above limit":
        return f"at most {target.value:g} {unit} above limit"
    return f"{target.value:g} of limit" if target.than == "limit" else f"{target.value:g} times peer"
