"""What a clean end, a replay and a handler that misbehaves leave behind: nothing that is handled twice."""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.world import World, until, working
from yeondong import Backoff, Event, Outcome, Park, Retry, Transaction, Yeondong
from yeondong.core.store import FailureFilter
from yeondong.errors import ReceiverError

LONG = Backoff(first=timedelta(minutes=1), most=timedelta(minutes=1))


class Placed(Event, channel="orders", key="customer"):
    customer: str
    number: int


def place(app: Yeondong, outbox: Any, count: int) -> None:
    with app.transaction() as tx:
        outbox.add(tx, *(Placed(f"c{number % 20}", number) for number in range(count)))


def test_a_clean_stop_repeats_nothing_though_a_retry_waits(world: World) -> None:
    world.set(memory_wait_seconds=300.0, lanes=4)
    app = Yeondong("orders")
    outbox = app.outbox()
    handled: Counter[int] = Counter()

    @app.subscribe(Placed, group="letters", backoff=LONG)
    def write(placed: Placed) -> None:
        handled[placed.number] += 1
        if placed.number == 0:
            raise ValueError("not yet")

    place(app, outbox, 200)
    with working(app):
        until(lambda: len(handled) >= 181, "all but the key of the failed one handled")  # 0 fails, 9 wait behind it
    assert app.broker.groups()[0].waiting == 0
    with working(app):
        with app.transaction() as tx:
            outbox.add(tx, Placed("new", 1_000))
        until(lambda: handled[1_000] == 1, "the new one handled")

    assert {number: times for number, times in handled.items() if times > 1} == {}
    assert world.count("yeondong_held") == 10


def test_a_replay_of_nothing_changes_nothing(world: World) -> None:
    app = Yeondong("orders")
    outbox = app.outbox()

    @app.subscribe(Placed, group="search")
    def index(placed: Placed, tx: Transaction) -> None:
        tx.execute("INSERT INTO effects VALUES (:number)", placed)

    with app.transaction() as tx:
        tx.execute("CREATE TABLE effects (number)")
    place(app, outbox, 50)
    flows = app.store.connect().flows
    with working(app):
        until(lambda: world.count("effects") == 50, "all handled")
        flows.ask_replay("orders/search", "2099-01-01T00:00:00+00:00")
        until(lambda: flows.control("orders/search").replay is None, "carried out")
        assert flows.control("orders/search").generation == 0
        flows.ask_replay("orders/search", "start")
        until(lambda: world.count("effects") == 100, "all handled once more")
    assert flows.control("orders/search").generation == 1


@pytest.mark.parametrize(
    "outcome",
    [Retry(after=5), Retry(after=timedelta(days=10**7)), Park(ValueError("x")), 5],  # type: ignore[arg-type]
    ids=["a number of seconds", "centuries", "an exception", "a number"],
)
@pytest.mark.parametrize("transactional", [False, True])
def test_what_is_no_outcome_is_a_failure_of_its_message_alone(
    world: World, outcome: Outcome, transactional: bool
) -> None:
    app = Yeondong("orders")
    outbox = app.outbox()
    handled: list[int] = []

    def answer(placed: Placed) -> Outcome | None:
        handled.append(placed.number)
        return outcome if placed.number == 1 else None

    if transactional:

        @app.subscribe(Placed, group="search", attempts=2)
        def index(placed: Placed, tx: Transaction) -> Outcome | None:
            return answer(placed)

    else:

        @app.subscribe(Placed, group="search", attempts=2)
        def write(placed: Placed) -> Outcome | None:
            return answer(placed)

    place(app, outbox, 20)
    failures = app.store.connect().failures
    with working(app):
        until(lambda: failures.count(FailureFilter()) == 1, "one failure")
        until(lambda: set(handled) == set(range(20)), "all others handled")
    assert "return None, Done()" in failures.find(FailureFilter(), 1)[0].error
    assert app.broker.groups()[0].waiting == 0


@pytest.mark.parametrize("raises", [ValueError, SystemExit])
def test_an_error_whose_text_no_database_stores_is_a_failure(world: World, raises: type[BaseException]) -> None:
    app = Yeondong("orders")
    outbox = app.outbox()

    @app.subscribe(Placed, group="search", attempts=1)
    def index(placed: Placed) -> None:
        raise raises("\udc80 \0")

    place(app, outbox, 1)
    failures = app.store.connect().failures
    with working(app):
        until(lambda: failures.count(FailureFilter()) == 1, "one failure")
    assert "\\udc80" in failures.find(FailureFilter(), 1)[0].error


@pytest.mark.parametrize("leaves", ["by returning", "by exit"])
def test_a_child_that_a_handler_forks_handles_nothing(world: World, leaves: str) -> None:
    app = Yeondong("orders")
    outbox = app.outbox()
    ledger = world.folder / "handled"

    @app.subscribe(Placed, group="letters", lanes=1)
    def write(placed: Placed) -> None:
        if placed.number == 3 and os.fork() == 0:
            if leaves == "by exit":
                raise SystemExit(0)
            return
        with ledger.open("ab", buffering=0) as file:
            file.write(f"{placed.number}\n".encode())

    place(app, outbox, 20)
    with working(app):
        until(lambda: ledger.exists() and len(ledger.read_text().split()) >= 20, "all handled")
        until(lambda: os.waitpid(-1, os.WNOHANG)[0] != 0, "the child ended")
    assert sorted(map(int, ledger.read_text().split())) == list(range(20))


def test_a_group_belongs_to_one_app(world: World) -> None:
    first, second = (Yeondong(name, store="sqlite:///orders.db") for name in ("orders", "reports"))
    for app in (first, second):

        @app.subscribe(Placed, group="search")
        def index(placed: Placed) -> None:
            """Only receive."""

    first.store.prepare()
    first.broker.prepare()
    first.register()
    with pytest.raises(ReceiverError, match="group 'search' of channel 'orders' belongs to app 'orders'"):
        second.register()
