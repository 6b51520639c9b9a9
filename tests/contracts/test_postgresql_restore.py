"""After a dump, a restore to an earlier state or a failover: nothing is passed over in silence."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import psycopg
import pytest
from msgspec import structs

from scripts.servers.postgresql import programs
from tests.servers.postgresql import PrivatePostgresql
from yeondong import Event, Yeondong
from yeondong.app.assembly import make_worker
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.store import RELAY, OutboxLog
from yeondong.errors import PositionLost
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite.scene import OCCURRED_AT, ids, message

T = TypeVar("T")

LATER = (OCCURRED_AT + timedelta(hours=1)).isoformat()


@pytest.fixture
def private() -> Iterator[str]:
    """The address of a database on a server of the test's own."""
    with PrivatePostgresql() as server:
        yield server.url(server.create_database())


@pytest.fixture(params=["to a server with a longer history", "to a server with a shorter history"])
def dumped_and_restored(request: pytest.FixtureRequest, database: str, private: str) -> tuple[str, str]:
    """Where messages are dumped, and where they are restored: transaction ids are far higher on one server."""
    with psycopg.connect(database, autocommit=True) as shared, psycopg.connect(private, autocommit=True) as ours:
        number = "SELECT pg_current_xact_id()::text::bigint"
        while (shared.execute(number).fetchone() or (0,))[0] <= (ours.execute(number).fetchone() or (0,))[0] + 100:
            pass
    return (private, database) if "longer" in request.param else (database, private)


def made(url: str) -> tuple[PostgresqlStore, Fence]:
    store = PostgresqlStore(url)
    store.create()
    return store, lease(store)


def lease(store: PostgresqlStore) -> Fence:
    fence = store.connect().leases.take(RELAY, "relay", 3600)
    assert fence is not None
    return fence


def add(store: PostgresqlStore, url: str, *ids: str, late: bool = False) -> None:
    with psycopg.connect(url) as connection:
        for id in ids:
            occurred_at = OCCURRED_AT + timedelta(hours=2 if late else 0)
            store.add(connection, [structs.replace(message(id), occurred_at=occurred_at)])


def log_of(store: PostgresqlStore) -> OutboxLog:
    log = store.connect().outbox_log
    log.resume()
    return log


def rest_of(log: OutboxLog) -> list[Delivery]:
    """Read until nothing comes any more: a read ends with its window."""
    found: list[Delivery] = []
    while rows := log.read(100):
        found.extend(rows)
    return found


def restore(source: str, target: str) -> None:
    """Dump a database, and restore it into an empty one."""
    environment = {**os.environ, "PGOPTIONS": ""}
    dump = subprocess.run(
        [str(programs() / "pg_dump"), "--no-owner", source], env=environment, capture_output=True, check=True
    )
    restored = [str(programs() / "psql"), "--quiet", "--set", "ON_ERROR_STOP=1", target]
    subprocess.run(restored, env=environment, input=dump.stdout, capture_output=True, check=True)


# --- by position ------------------------------------------------------------------------------------------------------


def test_a_restored_dump_stops_a_relay_by_position_until_it_is_told_from_when_on_to_send(
    dumped_and_restored: tuple[str, str],
) -> None:
    source, target = dumped_and_restored
    store, fence = made(source)
    add(store, source, "old", "older")
    add(store, source, "sent", "unsent", late=True)
    log = log_of(store)
    rows = log.read(3)
    log.save(rows[-1].receipt, fence)
    restore(source, target)
    store = PostgresqlStore(target)
    add(store, target, "new", late=True)

    with pytest.raises(PositionLost, match=r"made of a dump.*yeondong replay APP outbox --from TIME"):
        log_of(store)
    log = store.connect().outbox_log
    assert log.sweep(timedelta(days=-1), 100) == 0
    assert log.repeats(LATER) == 3
    assert log.rewind(LATER, lease(store)) == 3

    log = log_of(store)
    assert ids(log.read(100)) == ["sent", "unsent", "new"]
    add(store, target, "newest")
    newest = log.read(100)
    assert ids(newest) == ["newest"]
    log.save(newest[0].receipt, lease(store))
    assert ids(log_of(store).read(100)) == []
    assert log.lag().waiting == 0
    assert log.rewind("start", lease(store)) == 6
    assert ids(log_of(store).read(100)) == ["old", "older", "sent", "unsent", "new", "newest"]


def test_transactions_that_are_open_during_a_replay_are_not_passed_over(database: str) -> None:
    store, fence = made(database)
    with psycopg.connect(database) as open_before, psycopg.connect(database) as open_since:
        store.add(open_before, [message("before")])
        add(store, database, "sent", "unsent")
        log = log_of(store)
        log.save(log.read(1)[0].receipt, fence)
        open_since.execute("SELECT pg_current_xact_id()")
        assert log.rewind(LATER, fence) == 0
        store.add(open_since, [message("since")])
        log = log_of(store)
        assert ids(log.read(10)) == ["unsent"]
        open_since.commit()
        assert ids(log.read(10)) == ["since"]
        open_before.commit()
        assert ids(log.read(10)) == ["before"]


def test_a_position_from_the_future_stops_the_relay(database: str) -> None:
    store, fence = made(database)
    add(store, database, "m1")
    log = log_of(store)
    log.save(log.read(1)[0].receipt, fence)
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE yeondong_positions SET position = regexp_replace(position, ':(\\d+):', ':9\\1000000000:', 'g')"
        )

    with pytest.raises(PositionLost, match=r"transactions that this server has not begun yet.*--from TIME"):
        log_of(store)


def test_a_position_of_another_kind_stops_the_relay(database: str) -> None:
    store, fence = made(database)
    store.connect().positions.save(RELAY, "17", fence)

    with pytest.raises(PositionLost, match="--from TIME"):
        log_of(store)


# --- by status --------------------------------------------------------------------------------------------------------


def test_a_relay_by_status_goes_on_after_a_dump(dumped_and_restored: tuple[str, str]) -> None:
    source, target = dumped_and_restored
    store, fence = made(source)
    add(store, source, "sent", "unsent")
    outbox = store.connect().outbox
    rows = outbox.waiting(10, ())
    outbox.mark([rows[0].receipt], fence)
    outbox.waiting(10, ())
    restore(source, target)
    store = PostgresqlStore(target)
    add(store, target, "new")
    fence = lease(store)

    outbox = store.connect().outbox
    assert outbox.lag().waiting == 2
    rows = outbox.waiting(10, ())
    assert ids(rows) == ["unsent", "new"]
    outbox.mark([row.receipt for row in rows], fence)
    add(store, target, "newest")
    assert ids(outbox.waiting(10, ())) == ["newest"]
    assert ids(store.connect().outbox.waiting(10, ())) == ["newest"]


# --- the whole server -------------------------------------------------------------------------------------------------


def test_a_server_that_was_set_back_goes_on_and_passes_nothing_over() -> None:
    """Its transaction ids are given anew, and so are its row ids; rows and position went back together."""
    with PrivatePostgresql() as server:
        url = server.url(server.create_database())
        store, fence = made(url)
        add(store, url, "m1", "m2")
        log = log_of(store)
        rows = log.read(10)
        log.save(rows[0].receipt, fence)
        server.kill()
        saved = server.folder / "saved"
        subprocess.run(["cp", "-a", server.server.data, saved], check=True)
        server.start()
        store = PostgresqlStore(url)
        add(store, url, "m3", "lost")
        log = log_of(store)
        rows = rest_of(log)
        assert ids(rows) == ["m2", "m3", "lost"]
        log.save(rows[-1].receipt, lease(store))
        server.kill()
        subprocess.run(["rm", "-r", server.server.data], check=True)
        subprocess.run(["cp", "-a", saved, server.server.data], check=True)
        server.start()

        store = PostgresqlStore(url)
        add(store, url, "m4", "m5", "m6")
        assert ids(rest_of(log_of(store))) == ["m2", "m4", "m5", "m6"]


class Ping(Event, channel="pings", key="number"):
    number: int


def test_the_flow_stops_says_why_and_goes_on_when_it_is_told_from_when_on(database: str) -> None:
    app = Yeondong("restored", store=database, broker="memory:")
    app.sends(Ping)
    outbox = app.outbox(marking="position")
    store = PostgresqlStore(database)
    store.create()
    with app.transaction() as tx:
        outbox.add(tx, Ping(1))
    session = store.connect()
    fence = session.leases.take(RELAY, "old", 3600)
    assert fence is not None
    session.positions.save(RELAY, "7711000000000000000 900:900: 900:900: 0", fence)
    session.leases.release(fence)
    worker = make_worker(app, "relay")
    (flow,) = worker.flows
    worker.start()
    try:
        stopped = until(lambda: session.flows.control(RELAY).stopped)
        assert "made of a dump" in stopped
        assert "yeondong replay APP outbox --from TIME" in stopped
        assert flow.handled == 0
        session.flows.ask_replay(RELAY, "start")
        session.flows.resume(RELAY)
        until(lambda: flow.handled == 1)
        until(lambda: session.outbox_log.lag().waiting == 0)
        assert session.flows.control(RELAY).stopped is None
    finally:
        worker.stop()


def until(look: Callable[[], T | None]) -> T:
    pause = threading.Event()
    for _ in range(2_000):
        found = look()
        if found:
            return found
        pause.wait(0.01)
    pytest.fail("did not come")
