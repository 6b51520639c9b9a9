"""Runs one history from its seed to its end."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec.structs import replace

from tests.simulation.footprint import remembered
from tests.simulation.lanes import SimBell, SteppedLane
from tests.simulation.record import Record, Sent, Terms
from tests.simulation.rows import RowSource, SimOutboxRows, SimRows
from tests.simulation.scenario import FLOW, Scenario
from tests.simulation.scripts import Handler, Script, SimSink, scripts
from tests.simulation.scripts import Kind as ScriptKind
from tests.simulation.sources import SimLog, SimSource
from tests.simulation.store import Entry, SimSession, SimStore
from tests.simulation.world import FOREVER, Process, World
from yeondong.core.delivery import Delivery
from yeondong.core.message import Kind, Message, order_key
from yeondong.core.store import Control, Held
from yeondong.core.traits import Order, Partitions
from yeondong.engine.dispatch import Dispatch
from yeondong.engine.flow import Flow
from yeondong.engine.handling import Grouped, Plain
from yeondong.engine.keeper import Keeper
from yeondong.engine.lane import Halt, Lane, Report, Work
from yeondong.engine.plan import Scope, Surroundings
from yeondong.engine.sending import Sending
from yeondong.outbox.holding import RowHolding

SENT_AS: dict[ScriptKind, ScriptKind] = {
    "fails": "works", "forever": "parks", "asks": "slow", "away": "cut", "exits": "works", "undecodable": "works",
    "unknown": "works", "unwanted": "works",
}  # fmt: skip
CHANNEL = "orders"
MOST_STEPS = 60_000
MOST_SECONDS = 900.0
GRACE_SECONDS = 3.0


@dataclass(slots=True)
class Sim:
    """One history under way."""

    scenario: Scenario
    world: World
    store: SimStore
    log: SimLog
    record: Record
    scripts: dict[str, Script]
    rewound: int = 0
    workers: dict[str, SimWorker] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Begin another life of this worker."""
        life = self.lives[name] = self.lives.get(name, 0) + 1
        self.workers[name] = SimWorker(self, Process(self.world, f"{name}{life}"), name)

    def ended(self, name: str) -> None:
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.observe()
        self.world.at(self.world.time + 0.05 + self.world.chance() * 2, lambda: self.start(name))


class SimWorker:
    """One process: a flow, its lanes, a keeper."""

    def __init__(self, sim: Sim, process: Process, name: str) -> None:
        self.process = process
        self._sim = sim
        self._world = sim.world
        self._sleep_until = 0.0
        self._stopping = False
        self._ending = False
        scenario, plan = sim.scenario, sim.scenario.plan
        if scenario.crash_at is not None and sim.lives[name] == 1:
            process.crash_at = dict([scenario.crash_at])
        if scenario.freeze_at is not None and sim.lives[name] == 1:
            process.freeze_at = dict([scenario.freeze_at])
        source = RowSource if isinstance(sim.log, SimRows) else SimSource
        self.source = source(sim.log, process, self.ring, self._sleep, scenario.lease_seconds)
        surroundings = Surroundings(
            owner=process.name,
            clock=process.clock,
            random=sim.world.chance,
            failpoint=process.failpoint,
            make_lane=self._lane,
            make_bell=lambda: SimBell(process, self._sleep, lambda: self.source.blocking or self._ending),
        )
        self.keeper = Keeper(
            SimSession(sim.store, process),  # type: ignore[arg-type]
            owner=process.name,
            clock=process.clock,
            lease_seconds=scenario.lease_seconds,
            failpoint=process.failpoint,
        )
        session = SimSession(sim.store, process)
        scope = Scope(FLOW)
        self._party = process.party("flow", self._turn)
        self.flow = Flow(
            dataclasses.replace(
                plan, rewind=lambda _start: sim.log.rewind(process), repeats=lambda _start: sim.log.repeats(process)
            ),
            self.source,
            [self._work(scope) for _ in range(scenario.lanes)],
            session=session,  # type: ignore[arg-type]
            held=self._held(session),
            fences=self.keeper.fence,
            scope=scope,
            surroundings=surroundings,
        )
        if plan.exclusive:
            self.keeper.keep(self.flow)
            process.party("keeper", self._keep)
        process.on_death(lambda: sim.ended(name))

    def _held(self, session: SimSession) -> Held:
        if isinstance(self._sim.log, SimRows):
            return RowHolding(SimOutboxRows(session, self._sim.log, FLOW))
        return session.held

    def _deadline(self) -> float:
        if not self._sim.scenario.plan.exclusive:
            return FOREVER
        fence = self.keeper.fence(FLOW)
        return fence.deadline if fence is not None else -FOREVER

    def _work(self, scope: Scope) -> Work:
        sim, process, plan = self._sim, self.process, self._sim.scenario.plan
        if sim.scenario.mode == "sending":
            sink = SimSink(process, sim.record, sim.scripts, scope, deadline=self._deadline)
            return Sending(sink, failpoint=process.failpoint)
        # A group asks for its fence once; the inbox and the commit are what it relies on.
        assigned = self.source.traits.partitions is Partitions.ASSIGNED
        fenced, transactional = sim.scenario.mode == "plain", sim.scenario.mode != "plain"

        def objection(delivery: Delivery) -> str | None:
            id = delivery.message.id
            if fenced and self.source.expired:
                return f"session: {process.name} begins {id} after its session has expired"
            if fenced and assigned and delivery.partition not in self.source.partitions:
                return f"partition: {process.name} begins {id} of {delivery.partition}, which it does not have"
            # A group asks once, when it is gathered.
            reads = fenced and self.flow.report().state == "running" and not self.source.expelled
            if scope.generation < sim.rewound and reads and not self._ending:
                return f"replay: {process.name} handles {id} as if it were before the replay"
            if plan.exclusive and self.keeper.fence(FLOW) is None:
                return f"fence: {process.name} begins {id} after its lease has run out" if fenced else None
            if plan.exclusive and any(entry.message.id == id for entry in sim.store.failures(FLOW)):
                return f"one failure: {process.name} handles {id}, which waits for a person"
            return None

        handlers = {
            "Placed": Handler(
                process, sim.record, sim.scripts, scope, transactional=transactional, objection=objection
            ),
            "Noted": Handler(process, sim.record, sim.scripts, scope, transactional=False, objection=objection),
        }
        dispatch = Dispatch(handlers, passed_over=frozenset({"Unwanted"}))
        if sim.scenario.mode == "plain":
            return Plain(dispatch, clock=process.clock.elapsed)
        session = SimSession(sim.store, process)
        return Grouped(
            dispatch,
            session,  # type: ignore[arg-type]
            scope,
            failpoint=process.failpoint,
            clock=process.clock.elapsed,
        )

    def _lane(self, name: str, work: Work, halt: Halt, report: Report) -> Lane:
        return SteppedLane(name, work, halt, report, process=self.process, flow=self)

    def ring(self) -> None:
        self._party.wake_at = 0.0

    def _sleep(self, seconds: float) -> None:
        self._sleep_until = self._world.time + seconds

    def _turn(self) -> float:
        if self._stopping:
            self._end()
            return FOREVER
        self._sleep_until = 0.0
        try:
            self.flow.round()
        except Exception as error:
            self._sim.record.problems.append(f"fault: {error!r}")
            raise
        self.observe()
        return self._sleep_until

    def _keep(self) -> float:
        self.keeper.tick()
        return self._world.time + min(1.0, self._sim.scenario.lease_seconds / 4)

    def stop(self) -> None:
        """Ask for a safe stop."""
        self._stopping = True
        self.ring()

    def _end(self) -> None:
        self._world.note("%s stops safely", self.process.name)
        self._ending = True
        self.flow.stop()
        self.flow.run(GRACE_SECONDS)
        self.keeper.release(FLOW)
        self.process.kill("it has stopped")

    def observe(self) -> None:
        """Note the most of what is to be bounded."""
        record, report = self._sim.record, self.flow.report()
        record.most_in_flight = max(record.most_in_flight, report.in_flight)
        record.most_waiting = max(record.most_waiting, report.retrying)


def messages(scenario: Scenario, random: Random) -> tuple[dict[str, Script], list[tuple[str, Message, str | None]]]:
    """Write all messages with their partitions and flaws, in sending order, and their scripts."""
    ids = [f"m{number:03}" for number in range(scenario.messages)]
    written = scripts(
        random,
        ids,
        odd=scenario.odd,
        attempts=scenario.plan.attempts,
        kills=scenario.kills,
        commits=scenario.commits and scenario.mode == "grouped",
    )
    if scenario.mode == "sending":
        for script in written.values():
            script.kind = SENT_AS.get(script.kind, script.kind)
    sent: list[tuple[str, Message, str | None]] = []
    for id in ids:
        number = random.randrange(scenario.keys)
        key = f"k{number}" if random.random() < 0.95 else None
        kind = written[id].kind
        wanted = "Noted" if scenario.mode == "mixed" and random.random() < 0.4 else "Placed"
        name = {"unknown": "Unknown", "unwanted": "Unwanted"}.get(kind, wanted)
        content = b"broken" if kind == "undecodable" else id.encode()
        message = Message(id, name, Kind.EVENT, CHANNEL, key, content)
        sent.append((f"p{number % scenario.partitions}", message, "no envelope" if kind == "flawed" else None))
    return written, sent


def undisturbed(scenario: Scenario) -> bool:
    """Whether one process handles everything from start to end, so that only lines may drop."""
    deaths = (
        scenario.crashes
        or scenario.crash_at
        or scenario.freeze_at
        or scenario.freezes
        or scenario.steals
        or scenario.kills
        or scenario.restarts
    )
    return scenario.workers == 1 and scenario.mode != "sending" and not deaths and not scenario.revocations


def expected(script: Script) -> Any:
    if script.kind == "unwanted":
        return "nothing"
    return "effect" if script.mends else "failure"


def run(scenario: Scenario, note: Callable[[str], None] | None = None) -> Record:
    """Run the history of this scenario and return what happened."""
    plan = scenario.plan
    world = World(scenario.seed, scenario.faults, note=note)
    world.crashes_left = scenario.crashes + (scenario.crash_at is not None)
    world.steals_left = scenario.steals
    world.freezes_left = scenario.freezes + (scenario.freeze_at is not None)
    world.freeze_seconds = scenario.lease_seconds * 2.5
    written, sent = messages(scenario, Random(scenario.seed + 1))
    terms = Terms(
        on_failure=plan.on_failure,
        attempts=plan.attempts,
        keeps_order=scenario.traits.order is not Order.NONE,
        transactional=scenario.mode == "grouped",
        undisturbed=undisturbed(scenario),
        in_flight=plan.limits.in_flight,
        # Each worker of a flow without a lease counts by itself what it adds.
        held=plan.limits.held * (1 if plan.exclusive else scenario.workers),
        waiting=plan.limits.in_flight // 4 + plan.limits.in_flight,
        remembered=6 * plan.limits.in_flight + 40,
    )
    record = Record(terms)
    store = SimStore(world)
    names = [f"p{n}" for n in range(scenario.partitions)]
    log = SimRows(store, FLOW, names, scenario.traits) if scenario.rows else SimLog(world, names, scenario.traits)
    sim = Sim(scenario, world, store, log, record, written)

    _observe(sim)
    _plan_events(sim, sent)
    with watched(record, note):
        for number in range(scenario.workers):
            sim.start("ABC"[number])
        try:
            _until_quiet(sim)
        except Exception as error:  # noqa: BLE001 -- a fault of the engine is a finding like any other
            record.problems.append(f"fault: {error!r}")
        _conclude(sim)
    return record


def _observe(sim: Sim) -> None:
    """Write down what happens where it happens, whatever the engine says of it."""
    record, world, store, log = sim.record, sim.world, sim.store, sim.log

    def effect(id: str, by: str, generation: int) -> None:
        record.add("effect", id, generation)
        world.note("%s: effect of %s", by, id)

    def failed(entry: Entry) -> None:
        record.add("failed", entry.message.id, entry.attempt, blocks=entry.blocks)

    def wrote(what: str, epoch: int, newest: int) -> None:
        if epoch < newest:
            record.problems.append(f"fence: {what} was written under epoch {epoch}, and the newest is {newest}")

    def rewound() -> None:
        """From now on everything is to be handled again, under the next generation."""
        sim.rewound = store.controls[FLOW].generation + 1
        for partition in log.partitions.values():
            record.replayed.update(dict.fromkeys((one.id for one in partition.messages), sim.rewound))

    store.effect, store.failed, log.rewound = effect, failed, rewound

    def failed_twice(entry: Entry) -> None:
        if entry.message.id not in record.replayed:
            record.problems.append(f"one failure: {entry.message.id} is given up by a second process")

    store.failed_twice = failed_twice
    store.put = lambda entry: record.add("held", entry.message.id)
    store.wrote = log.wrote = wrote


def _plan_events(sim: Sim, sent: list[tuple[str, Message, str | None]]) -> None:
    scenario, world, random = sim.scenario, sim.world, Random(sim.scenario.seed + 2)
    times = sorted(random.random() * scenario.publish_seconds for _ in sent)
    for time, (partition, message, flaw) in zip(times, sent, strict=True):
        script = sim.scripts[message.id]
        sim.record.sent.append(
            Sent(message.id, message.key, expected(script), script.failures, script.kind == "flawed")
        )
        if time <= 0:
            sim.log.publish(partition, message, flaw)
        else:
            world.at(time, lambda p=partition, m=message, f=flaw: sim.log.publish(p, m, f))  # type: ignore[misc]
    busy = max(scenario.fault_seconds, 3.0)
    for _ in range(scenario.restarts):
        world.at(random.random() * busy, lambda: _restart(sim))
    for _ in range(scenario.outages):
        system = random.choice(("store", "log"))
        start, seconds = random.random() * busy, random.choice((0.5, 2.0, 5.0))
        world.at(start, lambda s=system, t=start + seconds: _outage(sim, s, t))  # type: ignore[misc]
    for _ in range(scenario.revocations):
        world.at(random.random() * busy, sim.log.rebalance)
    for _ in range(scenario.expulsions):
        world.at(random.random() * busy, lambda: _expel(sim))
    for _ in range(scenario.replays):
        world.at(1.0 + random.random() * busy, lambda: _ask_replay(sim))
    for _ in range(scenario.pauses):
        start, seconds = random.random() * busy, random.choice((0.01, 0.5, 3.0))
        world.at(start, lambda: _control(sim, paused="a person asked"))
        world.at(start + seconds, lambda: _control(sim, paused=None))
    world.at(scenario.fault_seconds, lambda: _calm(sim))
    for time in (1.0, scenario.fault_seconds + 1.0):
        world.at(time, lambda: _person(sim))
    world.steal = lambda: _steal(sim)


def _restart(sim: Sim) -> None:
    for worker in list(sim.workers.values())[:1]:
        worker.stop()


def _outage(sim: Sim, system: str, until: float) -> None:
    sim.world.note("%s is away", system)
    sim.world.disturbances += 1
    sim.world.away[system] = until


def _control(sim: Sim, paused: str | None) -> None:
    sim.world.note("the flow is to %s", "pause" if paused else "go on")
    before = sim.store.controls.get(FLOW, Control())
    sim.store.controls[FLOW] = replace(before, paused=paused)


def _expel(sim: Sim) -> None:
    members = sim.log.members
    if members and not sim.world.calm:
        sim.world.disturbances += 1
        sim.world.ends += 1
        member = members[int(sim.world.chance() * len(members))]
        sim.world.note("the broker expels a reader")
        sim.log.expel(member)


def _ask_replay(sim: Sim) -> None:
    sim.world.note("a person asks for a replay")
    before = sim.store.controls.get(FLOW, Control())
    sim.store.controls[FLOW] = replace(before, replay="start")


def _calm(sim: Sim) -> None:
    sim.world.note("--- the faults are over")
    sim.world.calm = True
    sim.world.away.clear()


def _steal(sim: Sim) -> None:
    lease = sim.store.leases.get(FLOW)
    if lease is not None and sim.scenario.plan.exclusive:
        sim.world.note("somebody takes the lease")
        lease.owner, lease.epoch, lease.until = "thief", lease.epoch + 1, sim.world.time + 1 + sim.world.chance() * 2


def _person(sim: Sim) -> None:
    """Look at the flow and its failures, and do something about them."""
    world, store = sim.world, sim.store
    seconds = min(sim.scenario.person_seconds, 2.0 if world.calm else 1000.0)
    world.at(world.time + seconds * (0.5 + world.chance()), lambda: _person(sim))
    control = store.controls.get(FLOW, Control())
    if control.stopped is not None:
        _resume(sim, control)
    failures = store.failures(FLOW)
    full = any("messages are held" in (w.flow.report().reason or "") for w in sim.workers.values())
    if failures and (full or not world.calm):
        _decide(sim, failures[int(world.chance() * len(failures))], give_up=world.chance() < 0.3)


def _resume(sim: Sim, control: Control) -> None:
    named = re.search(r"message (m\d+)", control.stopped or "")
    if named is not None and (sim.world.calm or sim.world.chance() < 0.5):
        _repair(sim, named[1])
    if named is not None:
        sim.record.add("retried", named[1])
    sim.world.note("a person lets the flow go on")
    sim.store.controls[FLOW] = replace(control, stopped=None)


def _repair(sim: Sim, id: str) -> None:
    """Deploy a handler that gets along with this message, data and envelope included."""
    sim.world.note("a person repairs %s", id)
    sim.scripts[id].repair()
    for partition in sim.log.partitions.values():
        for offset, message in enumerate(partition.messages):
            if message.id == id:
                partition.flaws.pop(offset, None)
                partition.messages[offset] = Message(id, "Placed", message.kind, CHANNEL, message.key, id.encode())


def _decide(sim: Sim, entry: Entry, *, give_up: bool) -> None:
    id = entry.message.id
    if give_up:
        sim.world.note("a person gives %s up", id)
        sim.record.add("discarded", id)
        sim.store.discard(FLOW, entry)
        return
    if sim.world.calm or sim.world.chance() < 0.5:
        _repair(sim, id)
        message = entry.message
        entry.message = Message(id, "Placed", message.kind, CHANNEL, message.key, id.encode())
    sim.world.note("a person retries %s", id)
    sim.record.add("retried", id)
    sim.store.retry(entry)


def _quiet(sim: Sim) -> bool:
    """Whether nothing is left to be done without a person."""
    control = sim.store.controls.get(FLOW, Control())
    if not sim.world.calm or control.stopped is not None or control.replay is not None or not sim.log.drained():
        return False
    if sum(len(p.messages) for p in sim.log.partitions.values()) < len(sim.record.sent):
        return False
    return all(behind for _, behind in _waiting(sim))


def _waiting(sim: Sim) -> list[tuple[str, bool]]:
    """Return what waits in held, and whether it does so behind a failure."""
    blocked: set[tuple[str, ...]] = set()
    waiting: list[tuple[str, bool]] = []
    for entry in sim.store.entries(FLOW):
        key = order_key(entry.message)
        if entry.failed and entry.blocks:
            blocked.add(key)
        elif not entry.failed:
            waiting.append((entry.message.id, key in blocked))
    if isinstance(sim.log, SimRows):
        waiting = []
    return waiting + [(id, True) for id in sim.log.behind()]


def _until_quiet(sim: Sim) -> None:
    world = sim.world
    while True:
        for _ in range(10):
            world.step()
        if _quiet(sim):
            failures = sim.store.failures(FLOW)
            if not sim.scenario.repairs or not failures:
                return
            for entry in failures:
                _decide(sim, entry, give_up=False)
        if world.steps > MOST_STEPS or world.time > MOST_SECONDS:
            states = ", ".join(f"{w.process.name} is {w.flow.report()}" for w in sim.workers.values())
            log = {p.name: (p.position, len(p.settled), len(p.messages)) for p in sim.log.partitions.values()}
            sim.record.problems.append(f"stuck: after {world.time:.0f} s and {world.steps} steps; {states}; {log}")
            return


def _conclude(sim: Sim) -> None:
    record, world = sim.record, sim.world
    for worker in sim.workers.values():
        worker.observe()
    record.left_failed = [entry.message.id for entry in sim.store.failures(FLOW)]
    record.left_waiting = _waiting(sim)
    record.disturbances, record.ends = world.disturbances, world.ends
    record.steps, record.seconds = world.steps, world.time
    record.most_remembered = max((remembered(worker.flow) for worker in sim.workers.values()), default=0)
    record.most_in_flight = max(record.most_in_flight, sim.log.most_on_loan)
    record.most_held = sim.store.most_held
    if world.away:
        record.disturbances += 1


class _Faults(logging.Handler):
    """The engine logs what it survives but should never see."""

    def __init__(self, record: Record, note: Callable[[str], None] | None) -> None:
        super().__init__()
        self._record = record
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info is not None:
            self._record.problems.append(f"fault: {text} {record.exc_info[1]!r}")
        elif self._note is not None:
            self._note(f"{'':12}{text}")


@contextmanager
def watched(record: Record, note: Callable[[str], None] | None) -> Iterator[None]:
    """Listen to the engine's log."""
    logger = logging.getLogger("yeondong")
    before, propagate = logger.level, logger.propagate
    handler = _Faults(record, note)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if note is not None else logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate
