"""What one seed stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Literal, TypeAlias

from tests.simulation.sources import ASSIGNED_PREFIX, LEASED_EACH, LEASED_PREFIX, SHARED_EACH
from tests.simulation.world import Faults
from yeondong.core.backoff import Backoff
from yeondong.core.failpoint import COMMITTED, HELD, NAMES, SETTLING
from yeondong.core.traits import Order, Partitions, Traits
from yeondong.engine.plan import Limits, OnFailure, Plan

FLOW = "flow"
# Where a crash leaves two places that must agree, more often.
FAILPOINTS = (*NAMES, HELD, HELD, HELD, SETTLING, SETTLING, COMMITTED)
ALL_TRAITS = (LEASED_PREFIX, LEASED_EACH, ASSIGNED_PREFIX, SHARED_EACH)
PARTITION_STEPS = ("claims.claim", "source.confirm", "held.put", "held.settle", "held.due", "commit")
WRITES = ("held.put", "held.put", "held.settle", "source.settle", "commit", "suspects.begin")
Mode: TypeAlias = Literal["grouped", "plain", "mixed", "sending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is decided before a history begins."""

    seed: int
    traits: Traits
    rows: bool
    mode: Mode
    plan: Plan
    workers: int
    lanes: int
    partitions: int
    keys: int
    messages: int
    publish_seconds: float
    fault_seconds: float
    lease_seconds: float
    faults: Faults
    crashes: int
    freezes: int
    steals: int
    restarts: int
    outages: int
    revocations: int
    expulsions: int
    replays: int
    pauses: int
    person_seconds: float
    repairs: bool
    odd: float
    kills: int
    commits: bool
    crash_at: tuple[str, int] | None
    freeze_at: tuple[str, int] | None

    def describe(self) -> str:
        plan = self.plan
        source = f"{self.traits.partitions.value} {self.traits.settles.value} source{' of rows' if self.rows else ''}"
        return (
            f"seed {self.seed}: {source}, {self.partitions} "
            f"partitions, {self.keys} keys, {self.messages} messages; {self.mode} handlers on {self.lanes} lanes, "
            f"{self.workers} workers; on_failure {plan.on_failure}, {plan.attempts} attempts, {plan.limits}, "
            f"{plan.backoff}; {self.faults}, {self.crashes} crashes, {self.freezes} freezes, {self.steals} steals, "
            f"{self.expulsions} expulsions, {self.replays} replays"
        )


def scenario(seed: int, *, assigned: bool = False) -> Scenario:
    """Draw a scenario; most have faults, and a tenth has none.

    With ``assigned`` several workers share a group, and more happens to its partitions.
    """
    drawn = _draw(seed, (ASSIGNED_PREFIX,) if assigned else ALL_TRAITS)
    if not assigned or drawn.fault_seconds == 0:
        return drawn
    random = Random(seed + 3)
    replays = random.choice((0, 0, 1, 2))
    return replace(
        drawn,
        workers=random.choice((2, 3)),
        revocations=random.choice((2, 6, 12)),
        expulsions=random.choice((0, 2, 4)),
        freezes=random.choice((0, 1, 3)),
        replays=replays,
        kills=random.choice((0, 0, 0, 1)),
        odd=random.choice((0.15, 0.3, 0.5)),
        crash_at=("flows.replayed", 0) if replays and random.random() < 0.3 else drawn.crash_at,
        freeze_at=(random.choice(PARTITION_STEPS), random.randint(0, 6)) if random.random() < 0.6 else drawn.freeze_at,
    )


def _draw(seed: int, choice: Sequence[Traits]) -> Scenario:
    random = Random(seed)
    traits = random.choices(choice, (36, 32, 23, 9)[: len(choice)])[0]
    rows = traits is LEASED_EACH and random.random() < 0.6
    exclusive = traits.partitions is Partitions.LEASED
    assigned = traits.partitions is Partitions.ASSIGNED
    mode: Mode = random.choices(("grouped", "plain", "mixed", "sending"), (45, 30, 12, 13))[0]
    policies: tuple[OnFailure, ...] = (
        ("hold_key", "park", "stop") if traits.order is not Order.NONE else ("park", "stop")
    )
    on_failure = random.choices(policies, (50, 35, 15)[: len(policies)])[0]
    attempts = random.randint(3, 5)
    temper = random.choices(("calm", "lines drop", "anything"), (10, 15, 75))[0]
    calm, wild = temper == "calm", temper == "anything"
    in_flight = random.choice((6, 12, 24, 48))
    plan = Plan(
        name=FLOW,
        on_failure=on_failure,
        attempts=attempts,
        backoff=Backoff(
            timedelta(seconds=random.choice((0.0, 0.02, 0.2, 1.0))), timedelta(seconds=random.choice((0.5, 3.0, 20.0)))
        ),
        limits=Limits(
            in_flight=in_flight,
            held=random.choice((in_flight + 4, 60, 200, 200)),
            memory_wait_seconds=random.choice((0.0, 0.5, 4.0, 30.0)),
        ),
        exclusive=exclusive,
        suspicious=True,
    )
    faults = Faults(preempt=random.choice((0.01, 0.05, 0.15)))
    if temper == "lines drop":
        faults = Faults(preempt=faults.preempt, lose=random.choice((0.01, 0.03)))
    elif not calm:
        faults = Faults(
            preempt=faults.preempt,
            lose=random.choice((0.0, 0.003, 0.015)),
            crash=random.choice((0.0, 0.001, 0.004)),
            freeze=random.choice((0.0, 0.0, 0.002)),
            steal=random.choice((0.0, 0.0, 0.002)),
        )
    drawn = Scenario(
        seed=seed,
        traits=traits,
        rows=rows,
        mode=mode,
        plan=plan,
        workers=1
        if temper == "lines drop"
        else random.choice((1, 1, 2))
        if exclusive
        else random.choice((1, 2, 2, 3) if assigned else (1, 2, 2)),
        lanes=random.randint(1, 4),
        partitions=random.randint(2, 4),
        keys=random.randint(10, 16),
        messages=random.randint(100, 130),
        publish_seconds=random.choice((0.0, 2.0, 6.0)),
        fault_seconds=0.0 if calm else random.choice((6.0, 12.0)),
        lease_seconds=60.0 if temper == "lines drop" else random.choice((2.0, 4.0)),
        faults=faults,
        crashes=random.randint(0, 3) if wild else 0,
        freezes=random.randint(0, 2) if wild else 0,
        steals=random.randint(0, 2) if wild and exclusive else 0,
        restarts=0 if temper == "lines drop" else random.choice((0, 0, 1, 2)),
        outages=0 if calm else random.choice((0, 0, 1, 2)),
        expulsions=random.choice((0, 0, 1, 2)) if assigned and wild else 0,
        replays=random.choice((0, 0, 0, 1, 2)) if assigned and temper != "lines drop" else 0,
        revocations=random.choice((0, 1, 3, 6)) if assigned and temper != "lines drop" else 0,
        pauses=random.choice((0, 0, 0, 1, 2)),
        person_seconds=random.choice((0.5, 2.0, 1000.0)),
        repairs=random.random() < 0.5,
        odd=random.choice((0.0, 0.05, 0.15, 0.3)),
        kills=random.choice((0, 0, 0, 1)) if exclusive and temper == "anything" else 0,
        commits=random.random() < 0.3,
        crash_at=(random.choice(FAILPOINTS), random.choice((0, 0, 1, 2, 4, 8)))
        if wild and random.random() < 0.5
        else None,
        freeze_at=(random.choice(WRITES), random.randint(0, 6)) if wild and random.random() < 0.4 else None,
    )
    # A handler that commits by itself exposes those behind it to whoever looks before the engine has mended it, so this
    # is drawn only where nobody else can.
    alone = (
        exclusive and not wild and not (drawn.crashes or drawn.freezes or drawn.steals or drawn.restarts or drawn.kills)
    )
    return drawn if alone else replace(drawn, commits=False)
