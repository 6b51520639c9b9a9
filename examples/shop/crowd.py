"""The customers as the demo sees them: processes that order as fast as they are let in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from examples.shop.evidence import Progress
from examples.shop.ledger import Trail
from examples.shop.processes import Program

AHEAD = 2
TOLD = ("placed", "rolled back", "unknown")


@dataclass(slots=True)
class Customer:
    """One process, and how many orders it was let in for."""

    program: Program
    let_in: int = 0

    def outstanding(self, ledger: Trail) -> int:
        """Count the orders that it may still place, or is placing."""
        if not self.program.alive:
            return 0
        return self.let_in - sum(ledger.counts[self.program.name, what] for what in TOLD)


class Crowd:
    """Lets customers in while fewer than ``most`` orders are under way.

    So the orders keep step with what happens to relay and worker: a kill finds work in flight, on a fast machine and on
    a slow one, and the last order is not placed before the last kill.
    """

    def __init__(self, programs: Sequence[Program], ledger: Trail, most: int) -> None:
        self._customers = [Customer(program) for program in programs]
        self._ledger = ledger
        self._most = most

    def start(self) -> None:
        """Start all customers."""
        for customer in self._customers:
            customer.program.start()

    @property
    def gone(self) -> bool:
        """Whether everybody has got what they came for."""
        return not any(customer.program.alive for customer in self._customers)

    def admit(self, progress: Progress, gate: int) -> None:
        """Let customers in, in turn, as long as there is room, and fewer than ``gate`` orders have been placed."""
        self._ledger.follow()
        outstanding = {id(customer): customer.outstanding(self._ledger) for customer in self._customers}
        room = min(self._most - (progress.placed - progress.done), gate - progress.placed) - sum(outstanding.values())
        for customer in sorted(self._customers, key=lambda one: outstanding[id(one)]):
            if room > 0 and customer.program.alive and outstanding[id(customer)] < AHEAD:
                customer.program.say(b"\n")
                customer.let_in += 1
                room -= 1
