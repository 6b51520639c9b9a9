"""no-loss, one-effect, key-order: a process is killed at each point where a crash matters, and started again."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from tests.acceptance import orders
from tests.acceptance.checker import Order, findings
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import World, until, until_none
from yeondong import Yeondong
from yeondong.core import failpoint
from yeondong.core.store import FailureFilter

CUSTOMERS = [f"c{number:02}" for number in range(12)]
EVERY = [(customer, number) for number in range(12) for customer in CUSTOMERS]
BROKEN, PARKED, LARGE = ("c03", 7), ("c05", 6), ("c07", 5)
FLAKY = {("c01", 2): "flaky", ("c02", 5): "flaky", ("c03", 1): "flaky", ("c08", 8): "flaky", ("c09", 3): "flakier"}
# The broker takes 1 MiB. The app refuses more at once, but a row may be older than the bound.
ENLARGE = """
UPDATE yeondong_outbox SET payload = CAST(json_set(payload, '$.text', hex(zeroblob(600000))) AS BLOB)
WHERE key = ? AND json_extract(payload, '$.number') = ?
"""

MARKINGS: dict[str, tuple[str, Callable[[], Yeondong]]] = {
    "status": ("tests.acceptance.orders:make", orders.make),
    "position": ("tests.acceptance.orders:by_position", orders.by_position),
}
# Which passing is deadly: late enough that work is under way, early enough that it always comes to it.
PASSINGS = {failpoint.HANDLED: 5, failpoint.COMMITTED: 5, failpoint.SETTLING: 3, failpoint.SETTLED: 3}
OF_HANDLERS = [n for n in failpoint.NAMES if n not in (failpoint.SENDING, failpoint.SENT, failpoint.SUSPECTED)]
OF_RELAY = [n for n in failpoint.NAMES if n not in (failpoint.HANDLED, failpoint.COMMITTED, failpoint.SUSPECTED)]


def test_every_failpoint_is_in_a_test() -> None:
    assert {*OF_HANDLERS, *OF_RELAY, failpoint.SUSPECTED} == {*failpoint.NAMES}


@pytest.mark.parametrize(
    "points", [[point] for point in OF_HANDLERS] + [[failpoint.COMMITTED, failpoint.SUSPECTED]], ids="-".join
)
def test_a_worker_that_is_killed(world: World, points: list[str]) -> None:
    factory, make = MARKINGS["status"]
    app = make()
    orders.prepare(app)
    place_workload(world, app, {**FLAKY, BROKEN: "broken", PARKED: "parked"})
    world.start("relay", factory=factory)

    kill_at_each(world, "handlers", points, factory)
    world.start("handlers", factory=factory)

    until(lambda: applied(world, "search") == without(BROKEN, PARKED, LARGE, behind=True), "the others are applied")
    until(lambda: applied(world, "statistics") == without(BROKEN, PARKED) & without(LARGE, behind=True), "here too")
    until(lambda: len(failures(world)) == 5, "all failures are there")
    assert failures(world) == ["orders/search"] * 2 + ["orders/statistics"] * 2 + ["outbox"]
    repair(app)
    until_none(lambda: wrong(world))
    world.stop()
    assert wrong(world) == []


@pytest.mark.parametrize("marking", MARKINGS)
@pytest.mark.parametrize("point", OF_RELAY)
def test_a_relay_that_is_killed(world: World, point: str, marking: str) -> None:
    factory, make = MARKINGS[marking]
    app = make()
    orders.prepare(app)
    place_workload(world, app, FLAKY)
    world.start("handlers", factory=factory)

    kill_at_each(world, "relay", [point], factory)
    world.start("relay", factory=factory)

    until(lambda: applied(world, "search") == without(LARGE, behind=True), "the others are applied")
    until(lambda: failures(world) == ["outbox"], "the relay has one failure")
    repair(app)
    until_none(lambda: wrong(world))
    world.stop()
    assert wrong(world) == []


def place_workload(world: World, app: Yeondong, troubles: dict[Order, str]) -> None:
    """Place all orders, each transaction after one that is rolled back."""
    for start in range(0, len(EVERY), 18):
        orders.place_and_fail(app, [OrderPlaced("phantom", start)])
        orders.place(app, [
            OrderPlaced(*order, troubles.get(order, "")) for order in EVERY[start : start + 18]
        ])  # fmt: skip
    world.rows(ENLARGE, *LARGE)


def kill_at_each(world: World, parts: str, points: list[str], factory: str) -> None:
    for point in points:
        process = world.start(parts, "--kill", f"{point}:{PASSINGS.get(point, 1)}", factory=factory)
        assert process.killed_itself(), f"{point} was never passed"


def without(*failing: Order, behind: bool = False) -> set[Order]:
    """Return all orders but these, and those of their keys that wait behind them."""
    first = dict(failing)
    return {
        (customer, number)
        for customer, number in EVERY
        if (customer, number) not in failing and not (behind and number > first.get(customer, number))
    }


def applied(world: World, receiver: str) -> set[Order]:
    return set(world.rows("SELECT customer, number FROM effects WHERE receiver = ?", receiver))


def failures(world: World) -> list[str]:
    """Name the flow of each failure, wherever it is kept."""
    return [
        flow
        for (flow,) in world.rows(
            "SELECT flow FROM yeondong_held WHERE status = 'FAILED' UNION ALL "
            "SELECT 'outbox' FROM yeondong_outbox WHERE status = 'FAILED' ORDER BY 1"
        )
    ]


def repair(app: Yeondong) -> None:
    """Do what a person would: mend the handlers, cut the large message, and let all failures be tried again."""
    orders.REPAIRED.touch()
    session = app.store.connect()
    try:
        found = session.failures.find(FailureFilter(), 100)
        (large,) = [failure for failure in found if failure.flow == "outbox"]
        assert session.failures.edit(large.id, b'{"customer":"c07","number":5}', by="test")
        assert session.failures.retry([failure.id for failure in found], by="test") == len(found)
    finally:
        session.close()


def wrong(world: World, set_aside: Collection[Order] = (BROKEN, PARKED)) -> list[str]:
    """Return what is wrong. What the statistics parked came after the later ones of its key, as declared."""
    return [
        *findings(world.database, ("search", "points"), letters=orders.LETTERS),
        *findings(world.database, ("statistics",), parked=set_aside),
    ]
