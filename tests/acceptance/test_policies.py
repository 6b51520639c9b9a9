"""What a failure does to a flow: as declared, for a subscription and for single channels of the outbox."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest

from tests.acceptance.world import World, until, working
from yeondong import Backoff, DeclarationError, Event, Yeondong
from yeondong.core.store import FailureFilter


class Placed(Event, channel="orders", key="customer"):
    customer: str
    number: int


class Granted(Event, channel="points", key="customer"):
    customer: str
    number: int


def test_a_flow_that_is_to_stop_leaves_the_message_at_its_source_however_long_it_retried(world: World) -> None:
    world.set(memory_wait_seconds=0.05)
    app = Yeondong("orders")
    outbox = app.outbox()
    handled: list[int] = []

    backoff = Backoff(first=timedelta(milliseconds=30), most=timedelta(milliseconds=60))

    @app.subscribe(Placed, group="search", on_failure="stop", attempts=4, backoff=backoff)
    def index(placed: Placed) -> None:
        if placed.number == 1 and not (world.folder / "repaired").exists():
            raise ValueError("no address")
        handled.append(placed.number)

    def stopped() -> bool:
        return world.count("yeondong_flows", "flow = 'orders/search' AND stopped IS NOT NULL") == 1

    with working(app):
        with app.transaction() as tx:
            outbox.add(tx, *(Placed("kim", number) for number in range(4)))
        until(stopped, "stopped")
    assert handled == [0]
    assert world.count("yeondong_held") == 0
    assert app.broker.groups()[0].waiting == 3

    (world.folder / "repaired").touch()
    app.store.connect().flows.resume("orders/search")
    with working(app):
        until(lambda: handled == [0, 1, 2, 3], "all handled, in order")


def add_what_no_broker_takes(world: World, channel: str) -> None:
    """Put a row into the outbox that passed no check, as another program may."""
    with world.reading() as connection:
        connection.execute(
            "UPDATE yeondong_outbox SET payload = zeroblob(2097152)"
            " WHERE channel = ? AND CAST(payload AS TEXT) LIKE '%0}'",
            (channel,),
        )


@pytest.mark.parametrize("marking", ["status", "position"])
def test_each_channel_of_the_outbox_may_have_its_own_policy(world: World, marking: str) -> None:
    app = Yeondong("orders")
    outbox = app.outbox(marking="status" if marking == "status" else "position", on_failure_in={"points": "park"})
    app.sends(Placed, Granted)
    app.broker.prepare()
    with app.transaction() as tx:
        for number in range(2):
            outbox.add(tx, Placed("kim", number), Granted("kim", number))
    add_what_no_broker_takes(world, "orders")
    add_what_no_broker_takes(world, "points")

    def sent() -> list[tuple[str, str]]:
        rows = world.rows("SELECT channel, CAST(data AS TEXT) FROM yeondong_broker_log ORDER BY position")
        return [(channel, text[-2]) for channel, text in rows]

    with working(app, "relay"):
        until(lambda: sent() == [("points", "1")], "the parked one is passed, the held one is not")
        failures = app.store.connect().failures
        until(lambda: failures.count(FailureFilter()) == 2, "both are failures")


def test_a_channel_that_is_to_stop_stops_the_relay(world: World) -> None:
    app = Yeondong("orders")
    outbox = app.outbox(on_failure="park", on_failure_in={"orders": "stop"})
    app.sends(Placed, Granted)
    with app.transaction() as tx:
        outbox.add(tx, Placed("kim", 0), Granted("kim", 0))
    add_what_no_broker_takes(world, "orders")

    with working(app, "relay"):
        until(lambda: world.count("yeondong_flows", "flow = 'outbox' AND stopped IS NOT NULL") == 1, "stopped")
    assert world.count("yeondong_outbox", "status = 'WAITING' AND channel = 'orders'") == 1


def test_a_policy_for_a_channel_that_does_not_exist_as_such_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"on_failure_in\['points'\]='hold'; known: park, hold_key, stop"):
        Yeondong("orders").outbox(on_failure_in={"points": "hold"})  # type: ignore[dict-item]
    with pytest.raises(DeclarationError, match="unavailable is an option of handlers"):
        Yeondong("orders").outbox(unavailable=(sqlite3.Error,))
