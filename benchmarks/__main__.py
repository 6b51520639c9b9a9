"""``python -m benchmarks METHOD``: ours, the peers and the physical limit on the same work, in the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks import engine, messaging, outbox, outbox_postgresql
from benchmarks.machine import describe_machine
from benchmarks.measuring import Work, measure
from benchmarks.page import write_page
from benchmarks.table import draw_table

WORKS: Final[Mapping[str, Callable[[bool], Sequence[Work]]]] = {
    "engine": engine.works,
    "outbox": lambda quick: [*outbox.works(quick), *outbox_postgresql.works(quick)],
    "messaging": messaging.works,
}
PAPER_COLUMNS: Final = 150


@click.command(context_settings={"max_content_width": 120})
@click.argument("method", type=click.Choice([*WORKS, "all"]))
@click.option("--only", metavar="WORK", help="Run the works whose names begin with this.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures as JSON too.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each side runs; the median counts.")
@click.option("--quick", is_flag=True, help="Small sizes and one round: shows that it works, not how fast it is.")
@click.option("--no-install", is_flag=True, help="Leave out the peers whose environment is not there yet.")
@click.option("--page", is_flag=True, help="Write the figures of METHOD into docs/reference/benchmarks.md.")
def main(
    *, method: str, only: str | None, file: Path | None, rounds: int | None, quick: bool, no_install: bool, page: bool
) -> None:
    """Measure the works of METHOD and print one table."""
    methods = list(WORKS) if method == "all" else [method]
    works = [work for name in methods for work in WORKS[name](quick)]
    chosen = [work for work in works if only is None or work.name.startswith(only)]
    if not chosen:
        known = ", ".join(work.name for work in works)
        raise click.BadParameter(f"no work named {only!r}; known: {known}", param_hint="--only")
    if page and (quick or only is not None):
        raise click.UsageError("--page writes all figures of a method, measured in full: leave --quick and --only out")
    machine = describe_machine()
    console = Console(stderr=True)
    lines = measure(chosen, rounds=1 if quick else rounds, install=not no_install, tell=console.print)
    out = Console()
    out = out if out.is_terminal else Console(width=PAPER_COLUMNS)
    out.print(draw_table(lines, machine))
    figures = [line.figures(machine) for line in lines]
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    if page:
        for name in methods:
            mine = [line for line in lines if line.name.split(".")[0] == name]
            console.print(f"wrote {write_page(name, mine, machine, rounds)}")


if __name__ == "__main__":
    main()
