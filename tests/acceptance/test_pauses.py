"""A process that stood still beyond its lease is replaced, and does nothing more with what it had."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable

import pytest

from tests.acceptance import orders
from tests.acceptance.checker import findings
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import LEASE_SECONDS, Process, World, until, until_none
from yeondong import Yeondong
from yeondong.core import failpoint

CUSTOMERS = [f"c{number:02}" for number in range(12)]
FLOWS = {
    "handlers": ("orders/search", "orders/statistics", "orders/letters", "points/orders"),
    "relay": ("outbox",),
}
EVERY_FLOW = FLOWS["relay"] + FLOWS["handlers"]
# Where a thread goes straight to a write that its old epoch is refused.
WRITING = (failpoint.HOLDING, failpoint.SETTLING)
# How often a standby looks for leases that have ended.
POLL_SECONDS = LEASE_SECONDS / 4
# For a machine that does something else at the same time.
NOISE_SECONDS = 3.0
MARKINGS: dict[str, tuple[str, Callable[[], Yeondong]]] = {
    "status": ("tests.acceptance.orders:make", orders.make),
    "position": ("tests.acceptance.orders:by_position", orders.by_position),
}


@pytest.mark.parametrize(
    "point",
    [
        f"{failpoint.RECEIVED}:2",
        f"{failpoint.COMMITTED}:4",
        f"{failpoint.HOLDING}:1",
        f"{failpoint.HELD}:1",
        f"{failpoint.SETTLING}:2",
        f"{failpoint.SETTLED}:2",
    ],
)
def test_a_worker_that_stood_still_at(world: World, point: str) -> None:
    replaced(world, "handlers", "relay", point, "status")


@pytest.mark.parametrize(
    ("point", "marking"),
    [
        (f"{failpoint.RECEIVED}:1", "status"),
        (f"{failpoint.SENDING}:1", "status"),
        (f"{failpoint.SENT}:1", "status"),
        (f"{failpoint.SETTLING}:1", "status"),
        (f"{failpoint.SENT}:1", "position"),
        (f"{failpoint.SETTLING}:1", "position"),
    ],
)
def test_a_relay_that_stood_still_at(world: World, point: str, marking: str) -> None:
    replaced(world, "relay", "handlers", point, marking)
    repeated = len(world.rows("SELECT message_id FROM yeondong_broker_log GROUP BY message_id HAVING count(*) > 1"))
    if point.startswith((failpoint.RECEIVED, failpoint.SENDING)):
        assert repeated == 0, "it handed over after its deadline"


@pytest.mark.parametrize("moment", range(3))
def test_a_process_that_stood_still_at_any_moment(world: World, moment: int) -> None:
    app = orders.make()
    orders.prepare(app)
    first = world.start("all").ready()
    until(lambda: world.holds(first, *EVERY_FLOW), "the first has all leases")
    second = world.start("all").ready()
    for number in range(6):
        orders.place(app, [OrderPlaced(customer, number, trouble(customer, number)) for customer in CUSTOMERS])

    until(lambda: world.one("SELECT count(*) FROM effects") > 20 * moment, "it is at work")
    stand_still(world, first)
    taken_over(world, second, EVERY_FLOW)
    until_none(lambda: wrong(world))
    first.go_on()
    until(lambda: all(f"lease.lost name='{flow}'" in first.log() for flow in EVERY_FLOW), "it has seen its loss")
    assert first.stop() == 0
    world.stop()
    assert wrong(world) == []


def replaced(world: World, parts: str, others: str, point: str, marking: str) -> None:
    factory, make = MARKINGS[marking]
    flows = FLOWS[parts]
    app = make()
    orders.prepare(app)
    world.start(others, factory=factory)
    first = world.start(parts, "--pause", point, factory=factory).ready()
    until(lambda: world.holds(first, *flows), "the first has all leases")
    second = world.start(parts, factory=factory).ready()

    for number in range(4):
        orders.place(app, [OrderPlaced(customer, number, trouble(customer, number)) for customer in CUSTOMERS])
    first.paused()
    taken_over(world, second, flows)
    until_none(lambda: wrong(world))
    epochs = {flow: world.leases()[flow] for flow in flows}
    last_effect = world.one("SELECT max(id) FROM effects")

    first.go_on()
    until(lambda: all(f"lease.lost name='{flow}'" in first.log() for flow in flows), "it has seen its loss")
    if point.startswith(WRITING):
        until(lambda: "no longer held under epoch" in first.log(), "its write was refused")
    for number in range(4, 6):
        orders.place(app, [OrderPlaced(customer, number) for customer in CUSTOMERS])
    until_none(lambda: wrong(world))
    assert first.stop() == 0
    assert {flow: world.leases()[flow] for flow in flows} == epochs, "it took something from its successor"
    if parts == "handlers":
        assert world.rows("SELECT DISTINCT pid FROM effects WHERE id > ?", last_effect) == [(second.pid,)]
    world.stop()
    assert wrong(world) == []


def trouble(customer: str, number: int) -> str:
    return {("c02", 1): "flaky", ("c09", 2): "flakier"}.get((customer, number), "")


def taken_over(world: World, successor: Process, flows: Iterable[str]) -> None:
    """Wait for the promised time, and no longer, until the successor has the leases of another's flows."""
    until(
        lambda: world.holds(successor, *flows),
        "the second has all leases",
        seconds=LEASE_SECONDS + POLL_SECONDS + NOISE_SECONDS,
    )


def stand_still(world: World, process: Process) -> None:
    """Stop a process at a moment when it does not hold the file's only write lock, which would stop all others too."""
    deadline = time.monotonic() + 10
    while True:
        process.pause()
        try:
            with contextlib.closing(sqlite3.connect(world.database, timeout=0.1, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            assert time.monotonic() < deadline, "it never let go of the write lock"
            process.go_on()
        else:
            return


def wrong(world: World) -> list[str]:
    return findings(world.database, letters=orders.LETTERS)
