"""Three relays and three workers on PostgreSQL and Kafka: killed, paused, joining and leaving, all under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from examples.shop.checker import show
from examples.shop.ledger import Ledger, Line, Trail
from examples.shop.on_kafka import KafkaLog
from tests.acceptance import orders
from tests.acceptance.checker import broken, judged, state
from tests.acceptance.orders import LEDGER, LETTERS, OrderPlaced
from tests.acceptance.outages import Site
from tests.acceptance.world import Process, until, until_none
from yeondong import Yeondong
from yeondong.core import failpoint

pytestmark = pytest.mark.timeout(120)

CUSTOMERS = [f"c{number:02}" for number in range(15)]
LEASE_SECONDS = 2.0  # of a worker's session too
POLL_SECONDS = LEASE_SECONDS / 4
REBALANCE_SECONDS = 3.0  # a cooperative one takes two rounds, each a heartbeat long
NOISE_SECONDS = 5.0
IN_FLIGHT = 100
EACH = 3  # effects of an order: the search index, the statistics, the points
MARKINGS: dict[str, tuple[str, Callable[[], Yeondong]]] = {
    "status": ("tests.acceptance.orders:make", orders.make),
    "position": ("tests.acceptance.orders:by_position", orders.by_position),
}


class Several(Site):
    """A site whose processes are counted by kind, and a recorder that reads its topics beside them."""

    def __init__(self, folder: Path, store: str, broker: str, prefix: str) -> None:
        self._client: dict[str, Any] = {"bootstrap.servers": broker.removeprefix("kafka://"), "log_level": 0}
        self._prefix = prefix
        super().__init__(folder, store, broker, prefix)
        self.set(kafka_partitions=6, lease_seconds=LEASE_SECONDS, relay_in_flight=IN_FLIGHT)
        self.factory = ""
        self.app = orders.make()
        self.running: dict[str, list[Process]] = {"relay": [], "handlers": []}
        self._rounds = 0

    def open(
        self, marking: str, *, factory: str = "", relays: int = 3, workers: int = 3, pause: str | None = None
    ) -> None:
        """Make what is needed, start the processes, and wait until they are at work; relays ``pause`` at a point."""
        named, make = MARKINGS[marking]
        self.factory = factory or named
        self.app = make()
        orders.prepare(self.app)
        self.log = KafkaLog(self._client, self._prefix, _names)
        options = () if pause is None else ("--pause", pause)
        self.running["relay"] = [self.start("relay", *options, factory=self.factory) for _ in range(relays)]
        self.running["handlers"] = [self.start("handlers", factory=self.factory) for _ in range(workers)]
        for process in (*self.running["relay"], *self.running["handlers"]):
            process.ready()
        if pause is not None:
            return
        self.place()
        until(lambda: self.effects() == EACH * len(CUSTOMERS), "they are at work", seconds=60)

    def place(self, rounds: int = 1, pause_seconds: float = 0.0) -> None:
        """Place an order of every customer, and roll one back, as often as asked."""
        for _ in range(rounds):
            orders.place_and_fail(self.app, [OrderPlaced("phantom", self._rounds)])
            orders.place(self.app, [
                OrderPlaced(customer, self._rounds, "flaky" if (self._rounds + at) % 40 == 7 else "")
                for at, customer in enumerate(CUSTOMERS)
            ])  # fmt: skip
            self._rounds += 1
            time.sleep(pause_seconds)

    def place_while(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> float:
        """Place orders, ten rounds a second at most, as long as the condition holds; return how long that was."""
        began = time.monotonic()
        while condition():
            assert time.monotonic() < began + seconds, f"after {seconds:g} s still: {what}"
            self.place(pause_seconds=0.1)
        return time.monotonic() - began

    def active_relay(self) -> Process:
        """Return the one that has the lease."""
        relays = self.running["relay"]
        return until(lambda: [one for one in relays if self.holds(one, "outbox")], "one of the relays is active")[0]

    def claims(self, process: Process) -> int:
        """Count the partitions that are a worker's."""
        return self.count("yeondong_partitions", "owner LIKE %s", f"%-{process.pid}-%")

    def kill(self, kind: str, victim: Process) -> None:
        """Kill one, start another one, and see that what it had is taken over in time."""
        had = self.has_work(kind, victim)
        victim.kill()
        self.running[kind].remove(victim)
        seconds = self.place_while(lambda: self.has_work(kind, victim), f"nobody took over from {victim.name}")
        self.running[kind].append(self.start(kind, factory=self.factory))
        if had:
            self.note(kind, "SIGKILL", seconds)

    def has_work(self, kind: str, process: Process) -> bool:
        return self.holds(process, "outbox") if kind == "relay" else self.claims(process) > 0

    def note(self, kind: str, blow: str, seconds: float) -> None:
        """Write into the ledger how long it took until others went on."""
        most = LEASE_SECONDS + (POLL_SECONDS if kind == "relay" else REBALANCE_SECONDS) + NOISE_SECONDS
        ledger = Ledger(LEDGER, by="test")
        ledger.write("recovered", of=kind, blow=blow, seconds=seconds, most=most)
        ledger.close()

    def wrong(self) -> list[str]:
        """Return what is wrong by the ledger, and by what stands in tables and topics now."""
        return broken([*Trail(LEDGER).follow(), *self.state()], letters=LETTERS)

    def state(self) -> list[Line]:
        """Return what stands in tables and topics now, as lines of a ledger."""
        sent: list[Line] = [
            {"what": "sent", "where": one.channel, "message": one.message, "order": one.order, "key": one.key,
             "partition": one.partition, "offset": one.offset}
            for one in self.log.everything()
        ]  # fmt: skip
        return [*sent, *state(self.rows, LETTERS)]

    def close(self) -> None:
        """Stop everybody, write what there is into the ledger, and let the ledger alone be judged."""
        self.stop()
        ledger = Ledger(LEDGER, by="recorder")
        ledger.write_all(self.state())
        ledger.close()
        findings = judged(Trail(LEDGER).follow(), letters=LETTERS)
        show(findings, Console(width=120))
        assert all(finding.kept for finding in findings)

    def written_by_relays(self) -> list[Any]:
        """Return the versions of all rows that relays write: one that is written again has another one."""
        return self.rows(
            "SELECT 'outbox', id::text, status, xmin::text FROM yeondong_outbox UNION ALL "
            "SELECT 'positions', name, position, xmin::text FROM yeondong_positions UNION ALL "
            "SELECT 'leases', name, owner || epoch, '' FROM yeondong_leases WHERE name = 'outbox' ORDER BY 1, 2"
        )

    def repeated(self) -> list[str]:
        """Return the messages that were sent more than once, in the order of their first copies."""
        ids = [one.message for one in self.log.everything()]
        return [id for id in dict.fromkeys(ids) if ids.count(id) > 1]


def _names(content: Mapping[str, Any]) -> tuple[str, str]:
    return f"{content['customer']}/{content['number']}", str(content["customer"])


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, kafka: str, kafka_prefix: str
) -> Iterator[Several]:
    monkeypatch.chdir(tmp_path)
    site = Several(tmp_path, database, kafka, kafka_prefix)
    try:
        yield site
    finally:
        site.end()


@pytest.mark.parametrize("marking", MARKINGS)
def test_processes_that_are_killed_at_random(site: Several, marking: str) -> None:
    random = Random(marking)
    site.open(marking)
    kinds = ["relay", "relay", "handlers", "handlers"]
    random.shuffle(kinds)

    for kind in kinds:
        site.place(random.randrange(1, 6))
        victim = site.active_relay() if kind == "relay" else random.choice(site.running[kind])
        site.kill(kind, victim)

    until_none(site.wrong)
    site.close()


@pytest.mark.parametrize(
    ("marking", "point"),
    [
        ("status", None),
        ("status", f"{failpoint.SETTLING}:3"),
        ("position", f"{failpoint.SENT}:3"),
        ("position", f"{failpoint.SETTLING}:3"),
    ],
)
def test_a_relay_that_stood_still_beyond_its_lease(site: Several, marking: str, point: str | None) -> None:
    site.open(marking, relays=1, workers=1, pause=point)
    [first] = site.running["relay"]
    site.running["relay"] += [site.start("relay", factory=site.factory).ready() for _ in range(2)]
    if point is None:
        site.place(10)
        first.pause()
    else:
        site.place_while(lambda: not first.stands_still(), "it came to that point")
    before = site.count("placed")
    site.note("relay", "SIGSTOP", site.place_while(lambda: site.holds(first, "outbox"), "nobody took over"))
    until_none(site.wrong)
    written = site.written_by_relays()

    first.go_on()
    until(lambda: "lease.lost name='outbox'" in first.log(), "it has seen its loss")
    if point is not None and point.startswith(failpoint.SETTLING):
        until(lambda: "no longer held under epoch" in first.log(), "its write was refused")
    assert first.alive()
    assert site.written_by_relays() == written, "it marked, or stored, under an old epoch"
    site.place(5)
    until_none(site.wrong)
    site.close()

    # What it had fetched before it stood still it may send once more, and nothing that came later.
    fetched = {
        one.message for one in site.log.everything() if int(one.order.rpartition("/")[2]) * len(CUSTOMERS) < before
    }
    repeated = site.repeated()
    assert set(repeated) <= fetched
    assert len(repeated) <= IN_FLIGHT


def test_a_worker_that_stood_still_beyond_its_session(site: Several) -> None:
    site.open("status", relays=1)
    first = next(one for one in site.running["handlers"] if site.claims(one))
    site.place(5)
    first.pause()
    seconds = site.place_while(lambda: site.claims(first) > 0, "nobody took its partitions over")
    site.note("handlers", "SIGSTOP", seconds)
    until_none(site.wrong)
    last = site.one("SELECT max(id) FROM effects")

    first.go_on()
    site.place(5)
    until(lambda: site.claims(first) > 0, "it has joined again", seconds=LEASE_SECONDS + 20)
    site.place(5)
    until(lambda: site.count("effects", "id > %s AND pid = %s", last, first.pid) > 0, "it works again")
    until_none(site.wrong)
    site.close()


def test_workers_that_join_and_leave(site: Several) -> None:
    site.open("status", relays=1)
    workers = site.running["handlers"]
    for turn in range(6):
        site.place(10, pause_seconds=0.1)
        if turn % 2:
            workers.append(site.start("handlers", factory=site.factory).ready())
        else:
            assert workers.pop(0).stop() == 0

    until_none(site.wrong)
    site.close()


def test_without_the_inbox_a_killed_worker_leaves_its_effect_twice(site: Several) -> None:
    site.open("status", factory="tests.acceptance.variants.orders_without_inbox:make", relays=1, workers=2)
    doomed = site.start("handlers", "--kill", "handler.after_commit:3", factory=site.factory).ready()
    site.place_while(doomed.alive, "it came to that point")
    assert doomed.killed_itself()

    until_none(lambda: [each for each in site.wrong() if each.startswith(("no-loss", "true-accounts"))])
    site.stop()
    assert [each for each in site.wrong() if each.startswith("one-effect")] != []
