"""Engines and stores with one rule left out. The checker has to notice each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from tests.simulation.sources import SimLog, SimSource
from tests.simulation.store import SimFlows, SimHeld, SimInbox, SimStore, SimSuspects, SimTransaction
from tests.simulation.world import FOREVER
from yeondong.core.delivery import UNHANDLED, Delivery, Retry, Settled, Unhandled
from yeondong.core.fence import Fence
from yeondong.core.store import Hold
from yeondong.engine.handling import Grouped, Plain
from yeondong.engine.intake import Intake
from yeondong.engine.lane import Halt
from yeondong.engine.orphans import Orphans
from yeondong.engine.settling import Window
from yeondong.engine.tenure import Tenure
from yeondong.engine.waiting import Waits
from yeondong.errors import ConnectionLost


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is left out, and the methods to replace for it. ``assigned``: where a broker assigns partitions."""

    name: str
    replacements: tuple[tuple[type, str, Any], ...]
    assigned: bool = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, method, replacement in self.replacements:
                stack.enter_context(patch.object(owner, method, replacement))
            yield


# --- settling and taking over -----------------------------------------------------------------------------------------


def everything_settled(window: Window) -> list[Delivery]:
    """Tell the source of what is finished behind a gap."""
    finished = [delivery for delivery in window.open if delivery.receipt in window.settled]
    for delivery in finished:
        window.open.remove(delivery)
    window.settled.clear()
    return finished


def put_late(held: SimHeld, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
    """Commit a moment later, when the source was told already."""
    process = held.session.process
    process.gate("store", "held.put")
    process.world.at(process.world.time + 0.01, lambda: None if process.dead else held.commit(flow, holds, fences))


ORIGINAL_COMMIT = SimTransaction.commit
ORIGINAL_PLAIN = Plain.__call__
ORIGINAL_GROUPED = Grouped.__call__
ORIGINAL_DUE = SimHeld.due
ORIGINAL_CHECK = SimStore.check
ORIGINAL_ARRIVE = Intake.arrive


def commit_hoped_for(transaction: SimTransaction) -> None:
    """Take a commit that did not return for one that did."""
    try:
        ORIGINAL_COMMIT(transaction)
    except ConnectionLost:
        return


# --- fences -----------------------------------------------------------------------------------------------------------


def unfenced(halt: Halt, delivery: Delivery) -> bool:
    return halt.everything or delivery.partition in halt.partitions


# --- outages ----------------------------------------------------------------------------------------------------------


def counting(original: Callable[..., Iterator[Settled]]) -> Callable[..., Iterator[Settled]]:
    """Let an outage count as an attempt."""

    def run(work: Any, deliveries: Sequence[Delivery], halt: Halt) -> Iterator[Settled]:
        for settled in original(work, deliveries, halt):
            if isinstance(settled.outcome, Unhandled) and settled.outcome.outage is not None:
                yield Settled(Retry(), settled.deliveries[:1], settled.outcome.outage)
                yield Settled(UNHANDLED, settled.deliveries[1:])
            else:
                yield settled

    return run


# --- partitions that a broker assigns ---------------------------------------------------------------------------------


def due_for_everybody(
    held: SimHeld, flow: str, limit: int, partitions: Collection[str] | None = None
) -> Sequence[Delivery]:
    return ORIGINAL_DUE(held, flow, limit)


def unclaimed(store: SimStore, fences: Sequence[Fence]) -> None:
    """Let whoever lost a partition write for it."""
    ORIGINAL_CHECK(store, [fence for fence in fences if fence.partition is None])


def keys_as_they_were(intake: Intake, deliveries: Sequence[Delivery]) -> None:
    """Go on with the keys that were blocked before the partition came."""
    known = intake._keys_known
    ORIGINAL_ARRIVE(intake, deliveries)
    intake._keys_known = known


def for_ever(_tenure: Tenure) -> float:
    return FOREVER


def always(*_anything: Any) -> bool:
    return True


def nothing(*_anything: Any) -> None:
    return None


def _nothing_known(held: SimHeld, flow: str, ids: Collection[str]) -> set[str]:
    return set()


def _no_keys(held: SimHeld, flow: str) -> Mapping[tuple[str, ...], int]:
    return {}


def _all_new(inbox: SimInbox, tx: Any, group: str, ids: Sequence[str]) -> set[str]:
    return set(ids)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("the watermark ignores gaps", ((Window, "prefix", everything_settled),)),
    Mutant("settled before what is taken over is committed", ((SimHeld, "put", put_late),)),
    Mutant(
        "no epoch is checked",
        ((SimStore, "check", nothing), (SimLog, "check", nothing)),
    ),
    Mutant("no inbox", ((SimInbox, "claim", _all_new),)),
    Mutant("a retry does not block its key", ((Waits, "get", nothing),)),
    Mutant("done before the commit returned", ((SimTransaction, "commit", commit_hoped_for),)),
    Mutant("blocked keys are not loaded", ((SimHeld, "keys", _no_keys),)),
    Mutant("new loans are not looked up in held", ((SimHeld, "known", _nothing_known),)),
    Mutant("a redelivery does not attach to what was done", ((Orphans, "pop", nothing),)),
    Mutant("lanes don't look at the fence", ((Halt, "covers", unfenced),)),
    Mutant(
        "an outage counts an attempt",
        ((Plain, "__call__", counting(ORIGINAL_PLAIN)), (Grouped, "__call__", counting(ORIGINAL_GROUPED))),
    ),
    Mutant("suspects are not written down", ((SimSuspects, "begin", nothing),)),
    Mutant("no claim is checked", ((SimStore, "check", unclaimed),), assigned=True),
    Mutant("what is due is not asked for by partition", ((SimHeld, "due", due_for_everybody),), assigned=True),
    Mutant(
        "keys are not loaded for a new partition",
        ((Intake, "gain", nothing), (Intake, "arrive", keys_as_they_were)),
        assigned=True,
    ),
    Mutant("the broker does not confirm a claim", ((SimSource, "confirm", always),), assigned=True),
    Mutant("lanes don't look at the session", ((Tenure, "until", for_ever),), assigned=True),
    Mutant("a replay that began is not noted", ((SimFlows, "begin_replay", nothing),), assigned=True),
)
