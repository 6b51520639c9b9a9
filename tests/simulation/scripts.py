"""What a handler does with each message, as the seed wrote it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Literal, TypeAlias

from tests.simulation.record import Record
from tests.simulation.store import SimTransaction
from tests.simulation.world import Crash, Process
from yeondong.core.delivery import DONE, Delivery, Outcome, Park, Retry
from yeondong.core.message import Message
from yeondong.core.sink import Refused
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.engine.plan import Scope
from yeondong.errors import ConnectionLost, Unavailable

Kind: TypeAlias = Literal[
    "works", "fails", "forever", "parks", "asks", "away", "cut", "slow", "kills", "exits", "commits",
    "flawed", "undecodable", "unknown", "unwanted",
]  # fmt: skip

ODD: tuple[Kind, ...] = (
    "fails", "fails", "fails", "fails", "forever", "forever", "parks", "asks", "asks", "away", "cut", "slow", "slow",
    "exits", "flawed", "undecodable", "unknown", "unwanted",
)  # fmt: skip


@dataclass(slots=True)
class Script:
    """``times`` it goes wrong before it works; ``seconds`` it takes, or asks to wait."""

    kind: Kind = "works"
    times: int = 0
    seconds: float = 0.0
    tries: int = 0

    @property
    def mends(self) -> bool:
        """Whether it works in the end, with nobody's doing."""
        return self.kind in ("works", "fails", "asks", "away", "cut", "slow", "commits", "unwanted", "exits")

    @property
    def failures(self) -> int:
        """How many counted attempts go wrong."""
        return self.times if self.kind in ("fails", "asks", "exits") else 0

    def repair(self) -> None:
        self.kind, self.times = "works", 0


def scripts(
    random: Random, ids: list[str], *, odd: float, attempts: int, kills: int, commits: bool
) -> dict[str, Script]:
    """Write the scripts of all messages; ``odd`` is the share of those that don't simply work."""
    written: dict[str, Script] = {}
    kinds = (*ODD, "commits") if commits else ODD
    for id in ids:
        if random.random() >= odd:
            written[id] = Script()
            continue
        kind: Kind = random.choice(kinds)
        times = random.randint(1, attempts - 1)
        if kind in ("away", "cut"):
            times = random.randint(1, 6)
        seconds = (
            random.choice((0.0, 0.0, 0.01, 0.2, 1.0, 4.0)) if kind == "asks" else random.choice((0.1, 0.6, 2.0, 7.0))
        )
        written[id] = Script(kind, times, seconds)
    for id in random.sample(ids, kills):
        written[id] = Script("kills")
    return written


class Broken(Exception):
    """The handler does not get along with this message."""


class Handler:
    """A bound handler of one process, that follows the scripts and lets the world interfere."""

    def __init__(
        self,
        process: Process,
        record: Record,
        scripts: dict[str, Script],
        scope: Scope,
        *,
        transactional: bool,
        objection: Callable[[Delivery], str | None],
    ) -> None:
        self.name = "transactional" if transactional else "plain"
        self.direct = None
        self.transactional = transactional
        self._process = process
        self._record = record
        self._scripts = scripts
        self._scope = scope
        self._objection = objection

    def decode(self, data: bytes) -> str:
        if data == b"broken":
            raise ValueError("broken")
        return data.decode()

    def invoke(self, payload: str, delivery: Delivery, tx: Any) -> Outcome | None:
        process, world = self._process, self._process.world
        objection = self._objection(delivery)
        if objection is not None:
            self._record.problems.append(objection)
        process.gate("", f"handling {payload}")
        script = self._scripts[payload]
        script.tries += 1
        self._record.add("invoked", payload, delivery.attempt)
        world.note("%s handles %s, attempt %d", process.name, payload, delivery.attempt)
        world.time += world.chance() * 0.006
        if script.kind == "slow" and script.tries == 1 and not world.deep:
            world.spend(world.time + script.seconds, lambda: process.dead)
        elif script.kind == "kills":
            self._record.add("killed", payload)
            process.kill(f"{payload} kills it")
        if process.dead:
            raise Crash
        outcome = self._follow(script, payload, tx)
        if outcome is None:
            if tx is not None:
                tx.effects.append(payload)
            else:
                self._record.add("effect", payload, self._scope.generation)
                world.note("%s: effect of %s", process.name, payload)
            process.gate("", f"handled {payload}")
            return DONE if world.chance() < 0.3 else None
        return outcome

    def _follow(self, script: Script, id: str, tx: SimTransaction | None) -> Outcome | None:
        wrong = script.tries <= script.times
        match script.kind:
            case "forever":
                raise Broken(id)
            case "fails" if wrong:
                raise Broken(id)
            case "exits" if wrong:
                raise SystemExit(id)
            case "parks":
                return Park("it says so")
            case "asks" if wrong:
                return Retry(timedelta(seconds=script.seconds))
            case "away" if wrong:
                raise Unavailable(id)
            case "cut" if wrong:
                raise ConnectionLost("partner", "sim", "cut")
            case "commits" if script.tries == 1 and tx is not None:
                tx.effects.append(id)
                tx.commit_at_once()
                return DONE
            case _:
                return None


class SimSink:
    """A broker that takes messages one after the other; what was taken before the line dropped, stays taken."""

    traits = Traits(durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.SHARED)

    def __init__(
        self,
        process: Process,
        record: Record,
        scripts: dict[str, Script],
        scope: Scope,
        *,
        deadline: Callable[[], float],
    ) -> None:
        self._process = process
        self._record = record
        self._scripts = scripts
        self._scope = scope
        self._deadline = deadline
        self._open = False

    def open(self) -> None:
        self._process.gate("broker", "sink.open")
        self._open = True

    def check(self, message: Message) -> str | None:
        return "too large" if self._scripts[message.id].kind == "parks" else None

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        process, world = self._process, self._process.world
        if not self._open:
            raise AssertionError("the sink is not open")
        if deadline > self._deadline():
            self._record.problems.append(f"fence: {process.name} may send beyond its lease")
        process.gate("broker", "sink.send")
        for message in messages:
            id = message.id
            if process.clock.elapsed() >= deadline:
                raise ConnectionLost("broker", "sim", "the deadline has passed")
            script = self._scripts[id]
            script.tries += 1
            world.time += world.chance() * 0.004
            if script.kind == "kills":
                self._record.add("killed", id)
                process.kill(f"{id} kills it")
            if process.dead:
                raise Crash
            if script.kind == "cut" and script.tries <= script.times:
                raise ConnectionLost("broker", "sim", "cut")
            self._record.add("effect", id, self._scope.generation)
            world.note("%s sends %s", process.name, id)
            if script.kind == "slow" and script.tries == 1 and not world.deep:
                world.spend(world.time + script.seconds, lambda: process.dead)
            process.gate("broker", f"sent {id}")
        return []

    def close(self) -> None:
        self._open = False
