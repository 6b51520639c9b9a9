"""The customers as the demo sees them: processes that order as fast as they are let in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.shop.evidence import Progress, Trail
from examples.shop.processes import Program

AHEAD = 2


@dataclass(slots=True)
class Customer:
    """One process, its journal, and how many orders it was let in for."""

    program: Program
    journal: Trail
    let_in: int = 0

    def outstanding(self) -> int:
        """Count the orders that it may still place, or is placing."""
        if not self.program.alive:
            return 0
        return self.let_in - len([line for line in self.journal.follow() if line["what"] != "tries"])


class Crowd:
    """Lets customers in while fewer than ``most`` orders are under way.

    So the orders keep step with what happens to relay and worker: a kill finds work in flight, on a fast machine and on
    a slow one, and the last order is not placed before the last kill.
    """

    def __init__(self, programs: Sequence[Program], folder: Path, most: int) -> None:
        self._customers = [Customer(program, Trail(folder / f"{program.name}.jsonl")) for program in programs]
        self._most = most

    def start(self) -> None:
        """Start all customers."""
        for customer in self._customers:
            customer.program.start()

    @property
    def gone(self) -> bool:
        """Whether everybody has got what they came for."""
        return not any(customer.program.alive for customer in self._customers)

    def admit(self, progress: Progress) -> None:
        """Let customers in, in turn, as long as there is room."""
        outstanding = {id(customer): customer.outstanding() for customer in self._customers}
        room = self._most - (progress.placed - progress.done) - sum(outstanding.values())
        for customer in sorted(self._customers, key=lambda one: outstanding[id(one)]):
            if room > 0 and customer.program.alive and outstanding[id(customer)] < AHEAD:
                customer.program.say(b"\n")
                customer.let_in += 1
                room -= 1

    def told(self) -> Counter[str]:
        """Count what the customers were told."""
        return Counter(line["what"] for customer in self._customers for line in customer.journal.follow())
