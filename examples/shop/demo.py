"""The demo: the shop as processes, struck again and again.

Relays and workers, killed in mid-work; customers that all order at once; a partner that goes away; an order that only
a person can repair. Everything happens when the orders have come far enough, so that a slow machine sees the same
story. What happens is written into ``ledger.jsonl``; the checker judges afterwards.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.shop.crowd import Crowd
from examples.shop.customers import UNTITLED
from examples.shop.evidence import Progress
from examples.shop.ledger import Ledger, Trail
from examples.shop.place import Place
from examples.shop.processes import Program
from examples.shop.screen import Screen

ROOT = Path(__file__).parents[2]
LEDGER = "ledger.jsonl"
YEONDONG = ("-m", "yeondong")

LOOK_SECONDS = 0.002
AIM_SECONDS = 3.0
SERVER_SECONDS = 0.02  # a server still carries out what it was told before
STOP_SECONDS = 10.0
COMMAND_SECONDS = 20.0
FIRST_STRIKE, LAST_STRIKE, NO_MORE_STRIKES = 0.10, 0.60, 0.84
OUTAGE_AT = 0.62
START_SECONDS = 3.0  # a new process has to be started and to import its libraries
SLOWER = 3.0  # it may take so many times as long as the first one took on this machine
POLL_SECONDS = 1.0
OUTAGE_SECONDS = 6.0  # at most 5 s between two tries


class Hung(Exception):
    """Something did not happen before the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is to happen. ``app`` is the module with the app and ``place_order``."""

    orders: int = 300
    customers: int = 4
    relays: int = 1
    workers: int = 1
    kills: int = 3
    outage_seconds: float = 3.0
    relay_lease_seconds: float = 2.0
    worker_lease_seconds: float = 2.0
    deadline_seconds: float = 90.0
    seed: int = 1
    app: str = "examples.shop.app"

    @property
    def members(self) -> int:
        """So few that each has several orders."""
        return max(4, self.orders // 15)

    @property
    def crowd(self) -> int:
        """Orders that are under way at most: so few that no strike comes too late, so many that each strikes work."""
        return max(8, self.orders // 12)


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens to a program once this part of the orders is through."""

    at: float
    victim: str
    blow: signal.Signals


def strikes(kills: int) -> list[Strike]:
    """Return the kills, relay and worker in turn, and in their midst one safe stop of each."""
    blows = [(victim, signal.SIGKILL) for _ in range(kills) for victim in ("relay", "worker")]
    blows[kills:kills] = [("worker", signal.SIGTERM), ("relay", signal.SIGTERM)]
    step = (LAST_STRIKE - FIRST_STRIKE) / (len(blows) - 1)
    return [Strike(FIRST_STRIKE + i * step, victim, blow) for i, (victim, blow) in enumerate(blows)]


class Demo:
    """One run in one folder. Whatever happens, no process is left behind."""

    def __init__(self, plan: Plan, place: Place, folder: Path, console: Console) -> None:
        self._plan = plan
        self._place = place
        self._folder = folder
        self._ledger = Ledger(folder / LEDGER, by="demo")
        self._evidence = place.evidence(folder / LEDGER)
        self._screen = Screen(console, plan.orders)
        self._began = time.monotonic()
        self._environment = {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **place.environment,
        }
        self._app = f"{plan.app}:app"
        self._outside = self._program(
            "outside", "-m", "examples.shop.outside", "--ledger", LEDGER, "--address", "address.txt"
        )
        self._programs = {
            "relay": self._alike("relay", plan.relays, plan.relay_lease_seconds, *YEONDONG, "relay", self._app),
            "worker": self._alike(
                "worker", plan.workers, plan.worker_lease_seconds, *YEONDONG, "run", self._app, "--no-relay"
            ),
        }
        self._turns = itertools.cycle(self._programs["worker"])
        self._customers = [self._customer(number) for number in range(1, plan.customers + 1)]
        self._crowd = Crowd(self._customers, Trail(folder / LEDGER), plan.crowd)
        self._opened = False
        self._start_seconds = START_SECONDS
        self._gate = plan.crowd
        self._under_way = 0

    def run(self) -> None:
        """Tell the story; what goes wrong in it is part of it."""
        self._note("planned", **asdict(self._plan), crowd=self._plan.crowd, place=self._place.told)
        try:
            with self._screen:
                self._open()
                self._sell()
                self._repair()
                self._close()
        except Hung as hung:
            self._tell(f"[red]hung: {hung}[/]", "hung", reason=str(hung))
        finally:
            for program in (*self._customers, *self._all_programs, self._outside):
                if program.alive:
                    program.kill()
            if self._opened:
                self._evidence.record(self._folder / LEDGER)
            self._evidence.close()
            self._note("files", bytes=sum(path.stat().st_size for path in self._folder.glob("*.db*")))
            self._note("ended", most_under_way=self._under_way)
            self._ledger.close()

    # --- the story ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        plan = self._plan
        began = time.monotonic()
        self._yeondong("db", "create", self._app, right=(0,))
        self._start_seconds = max(START_SECONDS, SLOWER * (time.monotonic() - began))
        self._run("-m", "examples.shop.tables", "--members", str(plan.members), "--stock", str(plan.orders), right=(0,))
        self._opened = True
        self._outside.start()
        address = self._folder / "address.txt"
        self._wait_for(address.exists, "the partner serves")
        self._partner = address.read_text(encoding="ascii")
        self._environment["SHOP_PARTNER"] = self._partner
        for program in self._all_programs:
            program.start()
        self._wait_for(self._evidence.is_complete, "relay and worker are at work")
        self._crowd.start()
        who = [f"{plan.customers} customers", _number(plan.relays, "relay"), _number(plan.workers, "worker")]
        self._tell(f"the shop is open: {', '.join(who)}, one partner; with {self._place.told}", "opened")

    def _sell(self) -> None:
        outage_to_come = self._plan.outage_seconds > 0
        for strike in strikes(self._plan.kills):
            self._let_in_until(strike)
            if outage_to_come and strike.at > OUTAGE_AT:
                self._send_partner_away()
                outage_to_come = False
            self._strike(strike)
        self._gate = sys.maxsize
        if outage_to_come:  # after the last kill: what piles up meanwhile would let too many orders through before it
            self._send_partner_away()

    def _let_in_until(self, strike: Strike) -> None:
        """Keep customers from running ahead, but never all: whether work goes on is seen by new orders alone."""
        placed = self._evidence.progress().placed
        self._gate = max(self._orders_at(strike.at) + self._plan.crowd, placed + self._plan.crowd // 2)

    def _strike(self, strike: Strike) -> None:
        self._until(lambda now: now.done >= self._orders_at(strike.at), f"{strike.at:.0%} of the orders are through")
        plan, program = self._plan, self._victim(strike.victim)
        if strike.blow is signal.SIGKILL:
            self._catch(strike.victim, program)
            struck = time.monotonic()
            self._kill(strike.victim, program)
        else:
            struck = time.monotonic()
            self._stop(strike.victim, program)
        after, pid = self._evidence.progress_now(), program.pid
        self._gate = after.placed + self._plan.crowd // 2
        program.start()
        self._until(
            lambda now: self._has_recovered(strike.victim, pid, after, now) or self._nothing_to_do(),
            f"the {strike.victim} works again",
        )
        seconds = time.monotonic() - struck
        lease = plan.relay_lease_seconds if strike.victim == "relay" else plan.worker_lease_seconds
        most = lease + POLL_SECONDS + self._start_seconds
        self._tell(f"  the {strike.victim}'s work goes on after {seconds:.1f} s", "recovered",
                   of=strike.victim, blow=strike.blow.name, seconds=seconds, most=round(most, 1))  # fmt: skip

    def _victim(self, kind: str) -> Program:
        """Return the one that has the lease; where nobody has one, each in turn."""
        owner = self._evidence.owner("outbox" if kind == "relay" else "orders/search")
        holders = [program for program in self._programs[kind] if f"-{program.pid}-" in owner]
        if holders:
            return holders[0]
        return self._programs["relay"][0] if kind == "relay" else next(self._turns)

    def _has_recovered(self, victim: str, pid: int, before: Progress, now: Progress) -> bool:
        if not self._evidence.is_replaced(pid):
            return False
        if victim == "relay":
            return now.sent > before.sent
        # Not what is granted: the partner still answers a call of the worker that is dead.
        return now.counted > before.counted and self._evidence.is_settled(before.sent)

    def _catch(self, victim: str, program: Program) -> None:
        """Freeze a program between an effect and its note, where a kill hurts most; or anywhere, if that takes long."""
        give_up = time.monotonic() + AIM_SECONDS
        self._gate = self._orders_at(NO_MORE_STRIKES)

        def caught(now: Progress) -> bool:
            late = time.monotonic() > give_up or now.done >= self._orders_at(NO_MORE_STRIKES)
            if not late and not self._in_between(victim, program):
                return False
            program.freeze()
            time.sleep(SERVER_SECONDS)
            if late or self._in_between(victim, program):
                return True
            program.thaw()
            return False

        self._until(caught, f"the {victim} is at work")

    def _kill(self, victim: str, program: Program) -> None:
        peak = program.peak_bytes()
        share = self._evidence.progress().done / self._plan.orders
        program.kill()
        left = self._in_between(victim, program)
        self._tell(f"[red]killed {program.name}[/] at {share:.0%} of the orders, messages in its hands: {left}",
                   "killed", victim=victim, program=program.name, share=share, left=left, peak_bytes=peak)  # fmt: skip

    def _stop(self, victim: str, program: Program) -> None:
        peak = program.peak_bytes()
        code, seconds = program.stop(STOP_SECONDS)
        # What others of its kind have in their hands is not its.
        alone = not any(other.alive for other in self._programs[victim])
        left = self._in_between(victim, program) if alone else 0
        self._tell(f"stopped {program.name} with SIGTERM: exit code {code} after {seconds:.1f} s", "stopped",
                   victim=victim, program=program.name, code=code, seconds=seconds, left=left,
                   peak_bytes=peak)  # fmt: skip

    def _send_partner_away(self) -> None:
        self._until(lambda now: now.done >= self._orders_at(OUTAGE_AT), f"{OUTAGE_AT:.0%} of the orders are through")
        seconds = self._plan.outage_seconds
        _post(self._partner, "/outage", {"seconds": seconds})
        back = time.monotonic() + seconds
        self._tell(f"[yellow]the partner is away[/] for {seconds:g} s", "outage", seconds=seconds)
        before = self._until(lambda _: time.monotonic() >= back, "the partner is back")
        self._until(lambda now: now.granted > before.granted or self._nothing_to_do(), "points are granted again")
        waited = time.monotonic() - back
        failed = self._evidence.failed()
        self._tell(f"  points are granted again {waited:.1f} s after it came back", "recovered",
                   of="points", blow="outage", seconds=waited, most=OUTAGE_SECONDS, failed=failed)  # fmt: skip

    def _repair(self) -> None:
        self._until(lambda _: self._crowd.gone, "all orders are placed")
        placed = self._evidence.progress().placed
        self._until(
            lambda now: (
                now.done >= placed and now.indexed + self._evidence.held() >= placed and self._evidence.failed() > 0
            ),
            "every order is through, or waits for a person",
        )
        self._look_at_status()
        failures = json.loads(self._yeondong("failures", "list", self._app, "--json"))["failures"]
        for failure in failures:
            error = failure["error"].partition("\n")[0]
            self._tell(f"[yellow]{failure['flow']} failed[/], messages behind it: {failure['behind']}; {error}",
                       "failure", **failure)  # fmt: skip
        self._evidence.mend(UNTITLED, "Mystery box")
        for failure in failures:
            self._yeondong("failures", "retry", self._app, failure["id"], "--yes")
        self._tell("a person gave the product its title and retried the failure", "retried")
        self._until(lambda now: now.indexed >= placed and not self._evidence.held(), "the repaired order is indexed")
        self._until(lambda _: not self._evidence.unsettled(), "everything is noted as done")

    def _close(self) -> None:
        self._look_at_status()
        for victim, programs in self._programs.items():
            for program in programs:
                self._stop(victim, program)
        code, _ = self._outside.stop(STOP_SECONDS)
        self._note("partner stopped", code=code)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[Progress], bool], what: str) -> Progress:
        """Let customers in until the condition holds. Raises ``Hung`` at the deadline."""
        while True:
            now = self._evidence.progress()
            self._crowd.admit(now, self._gate)
            self._screen.show(now)
            self._under_way = max(self._under_way, now.placed - now.done)
            if condition(now):
                return now
            self._look_again(what)

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        while not condition():
            self._look_again(what)

    def _look_again(self, what: str) -> None:
        for program in (self._outside, *self._all_programs):
            if program.ended:
                raise Hung(f"{program.name} ended by itself, while waiting until {what}: {program.last_line()}")
        if time.monotonic() - self._began > self._plan.deadline_seconds:
            raise Hung(f"after {self._plan.deadline_seconds:g} s still waiting until {what}")
        time.sleep(LOOK_SECONDS)

    def _orders_at(self, share: float) -> int:
        return int(self._plan.orders * share)

    def _in_between(self, victim: str, program: Program) -> int:
        """Count what has had its effect and is not noted yet: a kill now makes these come twice."""
        if victim == "relay":
            return self._evidence.sent_but_not_marked()
        return self._evidence.handled_but_not_settled(program.pid)

    def _nothing_to_do(self) -> bool:
        return self._crowd.gone and not self._evidence.unsettled()

    # --- programs -----------------------------------------------------------------------------------------------------

    @property
    def _all_programs(self) -> list[Program]:
        return [program for programs in self._programs.values() for program in programs]

    def _alike(self, name: str, count: int, lease_seconds: float, *arguments: str) -> list[Program]:
        names = [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
        lease = {"YEONDONG_LEASE_SECONDS": str(lease_seconds)}
        return [self._program(each, *arguments, environment=lease) for each in names]

    def _program(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Program:
        # What is put into the demo's environment later, the partner's address, they are told too.
        told = ChainMap({} if environment is None else dict(environment), self._environment)
        return Program(name, (sys.executable, *arguments), self._folder, told)

    def _customer(self, number: int) -> Program:
        plan = self._plan
        share = plan.orders // plan.customers + (number <= plan.orders % plan.customers)
        options = {"customer": number, "orders": share, "members": plan.members, "seed": plan.seed, "shop": plan.app}
        spelled = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return self._program(f"customer-{number}", "-m", "examples.shop.customers", *spelled)

    def _yeondong(self, *words: str, right: Collection[int] = (0, 1)) -> str:
        """Run the command line as a person would; return what it printed. It ends with 1 where a person is needed."""
        return self._run(*YEONDONG, *words, right=right)

    def _run(self, *words: str, right: Collection[int]) -> str:
        ran = subprocess.run(
            (sys.executable, *words),
            cwd=self._folder,
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        self._note("command", words=words, code=ran.returncode, error=ran.stderr)
        if ran.returncode not in right:
            raise Hung(f"{' '.join(words)} ended with {ran.returncode}: {ran.stderr.strip()}")
        return ran.stdout

    def _look_at_status(self) -> None:
        status = json.loads(self._yeondong("status", self._app, "--json"))
        self._note("status", exit=status["exit"], flows=status["flows"])

    # --- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, sentence: str, what: str, **facts: Any) -> None:
        self._screen.say(sentence)
        self._note(what, **facts)

    def _note(self, what: str, **facts: Any) -> None:
        self._ledger.write(what, seconds_in=time.monotonic() - self._began, **facts)


def _number(count: int, noun: str) -> str:
    return f"one {noun}" if count == 1 else f"{count} {noun}s"


def _post(address: str, path: str, content: dict[str, Any]) -> None:
    partner = http.client.HTTPConnection(address, timeout=5)
    try:
        partner.request("POST", path, json.dumps(content))
        if partner.getresponse().status != HTTPStatus.OK:
            raise RuntimeError(f"the partner at {address} refused {path}")
    finally:
        partner.close()
