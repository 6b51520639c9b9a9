"""recovers: a database that is full, locked or held for long. An outage parks nothing and counts no attempt."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from tests.acceptance import orders
from tests.acceptance.checker import findings
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import World, until, until_none
from yeondong.core import failpoint

CUSTOMERS = [f"c{number:02}" for number in range(10)]
RECOVERY_SECONDS = 10.0
NOISE_SECONDS = 5.0


def place(*, each: int, trouble: str = "") -> None:
    app = orders.make()
    for number in range(each):
        orders.place(app, [OrderPlaced(customer, number, trouble) for customer in CUSTOMERS])


def nothing_counted(world: World) -> bool:
    return world.rows("SELECT DISTINCT attempt FROM effects") == [(1,)]


@pytest.mark.parametrize("parts", ["relay", "handlers"])
def test_a_full_database_pauses_flows_until_there_is_room(world: World, parts: str) -> None:
    orders.prepare(orders.make())
    place(each=6)
    if parts == "handlers":
        sent_by_relay(world)
    world.rows("CREATE TABLE filler (content)")
    world.rows(FILL)
    full = world.one("PRAGMA page_count")
    assert world.one("PRAGMA freelist_count") == 0

    limited = world.start(parts, "--max-pages", str(full))
    until(lambda: "flow.paused" in limited.log(), "a flow has paused")
    assert "the disk or the database is full" in limited.log()
    world.rows("DROP TABLE filler")

    if parts == "relay":
        until(lambda: unsent(world) == 0, "all are sent", RECOVERY_SECONDS + NOISE_SECONDS)
        world.start("handlers")
    else:
        world.start("relay")  # for what follows from the first effects
    until_none(lambda: findings(world.database, letters=orders.LETTERS), RECOVERY_SECONDS + NOISE_SECONDS)
    assert nothing_counted(world)
    assert "flow.failed" not in limited.log()
    world.stop()


FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
INSERT INTO filler SELECT randomblob(4000) FROM n
"""


def unsent(world: World) -> int:
    return world.count("yeondong_outbox", "status <> 'DONE'")


def sent_by_relay(world: World) -> None:
    relay = world.start("relay")
    until(lambda: unsent(world) == 0, "all are sent")
    assert relay.stop() == 0


def test_a_database_that_another_process_has_locked(world: World) -> None:
    world.set(lease_seconds=10.0)  # or the flows would lose their leases first, since nobody can renew them
    app = orders.make()
    orders.prepare(app)
    worker = world.start("all").ready()
    until(lambda: world.holds(worker, "outbox", "orders/search", "orders/statistics"), "it has its leases")
    added = [OrderPlaced(customer, number) for number in range(3) for customer in CUSTOMERS]
    published = [OrderPlaced(f"p{customer}", number) for number in range(3) for customer in CUSTOMERS]

    with contextlib.closing(sqlite3.connect(world.database, timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        orders.add(app, connection, added)
        orders.note(connection, published)
        connection.execute("COMMIT")
        app.publish(*published)
        connection.execute("BEGIN EXCLUSIVE")  # sooner than the worker looks again, or there would be nothing to pause
        paused = [f"flow.paused flow='{flow}'" for flow in ("outbox", "orders/search", "orders/statistics")]
        until(lambda: all(line in worker.log() for line in paused), "all have paused")
        connection.execute("ROLLBACK")

    assert "locked" in worker.log()
    until_none(lambda: findings(world.database, letters=orders.LETTERS), RECOVERY_SECONDS + NOISE_SECONDS)
    assert nothing_counted(world)
    assert "flow.failed" not in worker.log()
    world.stop()


def test_a_handler_that_holds_the_write_lock_for_long_is_named(world: World) -> None:
    app = orders.make()
    orders.prepare(app)
    orders.place(app, [OrderPlaced("c01", 1, "long")])
    worker = world.start("all")

    until(lambda: any("orders" in (notice or "") for notice in notices(world)), "the worker's report names somebody")
    (notice,) = notices(world)
    assert notice is not None
    assert "make.<locals>.index" in notice or "make.<locals>.count" in notice
    assert "held the only write lock" in notice
    until_none(lambda: findings(world.database, letters=orders.LETTERS))
    assert "has held the only write lock of" in worker.log()
    assert nothing_counted(world)
    world.stop()


def notices(world: World) -> list[str | None]:
    reports: list[Any] = [json.loads(row[0]) for row in world.rows("SELECT report FROM yeondong_workers")]
    return [report["notice"] for report in reports]


def test_a_broker_in_a_file_of_its_own(world: World) -> None:
    broker = world.folder / "broker.db"
    world.set(broker=f"sqlite:///{broker}")
    orders.prepare(orders.make())
    place(each=6)
    world.start("handlers")
    killed = world.start("relay", "--kill", f"{failpoint.SENT}:1")
    assert killed.killed_itself()
    world.start("relay")

    until_none(lambda: findings(world.database, letters=orders.LETTERS))
    world.stop()
    tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name LIKE 'yeondong_broker_%'"
    assert world.one(tables) == 0
    assert world.one(tables, database=broker) > 0
    assert world.one("SELECT count(*) FROM yeondong_broker_log", database=broker) > 2 * 6 * len(CUSTOMERS)
