"""`python -m tests.simulation --seed N [--histories M]`: study one history, or run many."""

# ruff: noqa: T201 - it tells its findings
from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.checker import problems
from tests.simulation.history import run
from tests.simulation.scenario import Scenario, scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the history, or the first of many")
    parser.add_argument("--histories", type=int, default=1, help="how many; one is told step by step")
    parser.add_argument("--quiet", action="store_true", help="tell only what is wrong")
    parser.add_argument("--assigned", action="store_true", help="several workers share what a broker assigns")
    chosen = parser.parse_args()
    if chosen.histories == 1:
        return tell(scenario(chosen.seed, assigned=chosen.assigned), quiet=chosen.quiet)
    return many(range(chosen.seed, chosen.seed + chosen.histories), assigned=chosen.assigned)


def tell(drawn: Scenario, *, quiet: bool) -> int:
    print(drawn.describe())
    record = run(drawn, note=None if quiet else print)
    found = problems(record)
    print(f"{record.steps} steps, {record.seconds:.1f} s, {record.disturbances} disturbances")
    for problem in found:
        print(problem)
    return 1 if found else 0


def many(seeds: range, *, assigned: bool) -> int:
    began = time.process_time()
    wrong: Counter[str] = Counter()
    disturbed = steps = 0
    for seed in seeds:
        record = run(scenario(seed, assigned=assigned))
        disturbed += record.disturbances > 0
        steps += record.steps
        found = problems(record)
        if found:
            wrong[found[0].partition(":")[0]] += 1
            print(f"seed {seed}: {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))
    took = time.process_time() - began
    print(
        f"{len(seeds)} histories in {took:.1f} s of processor time ({len(seeds) / took * 60:.0f} a minute), "
        f"{disturbed} with faults, {steps / len(seeds):.0f} steps each; {sum(wrong.values())} wrong {dict(wrong)}"
    )
    return 1 if wrong else 0


sys.exit(main())
