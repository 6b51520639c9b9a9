"""The outbox on PostgreSQL: what one look may read, and what lookups cost."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from yeondong.core.store import RELAY, FailureFilter, Hold
from yeondong.stores.postgresql import PostgresqlStore, outbox
from yeondong.stores.postgresql.outbox import array
from yeondong.stores.postgresql.windows import Windows
from yeondong.testing.store_suite.scene import ids, message


def test_no_look_reads_much_more_than_8_mib(database: str) -> None:
    store = PostgresqlStore(database)
    store.create()
    many = [message(f"m{number:02}", data=bytes(1 << 20)) for number in range(12)]
    with psycopg.connect(database) as connection:
        store.add(connection, many)
    session = store.connect()
    session.outbox_log.resume()

    first = session.outbox.waiting(100, set())
    assert ids(first) == ids(session.outbox_log.read(100)) == [f"m{number:02}" for number in range(8)]
    rest = session.outbox.waiting(100, {each.receipt for each in first})
    assert ids(rest) == ids(session.outbox_log.read(100)) == ["m08", "m09", "m10", "m11"]
    assert ids(session.outbox.waiting(100, set())) == ids(first)
    with psycopg.connect(database) as connection:
        store.add(connection, [message("n1", data=bytes(5000)), message("n2", data=None)])
    assert [len(row.message.data or b"") for row in session.outbox_log.read(100)] == [5000, 0]


def test_a_row_that_others_broke_does_not_hinder_the_rest(database: str) -> None:
    store = PostgresqlStore(database)
    store.create()
    with psycopg.connect(database) as connection:
        store.add(connection, [message("m1"), message("m2")])
        connection.execute("UPDATE yeondong_outbox SET kind = 'rumour', headers = '{' WHERE message_id = 'm1'")

    broken, sound = store.connect().outbox.waiting(10, ())
    assert "rumour" in (broken.flaw or "")
    assert (broken.message.id, sound.flaw, sound.message) == ("m1", None, message("m2"))


UPDATED = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'yeondong_outbox'"

# --- what lookups cost, whatever the table has ------------------------------------------------------------------------

FILL = """
INSERT INTO yeondong_outbox (message_id, message_type, kind, channel, key, partition, payload, origin, status)
SELECT %s || number, 't', 'event', 'c', 'k' || number %% 100, 0, '', '/shop', %s FROM generate_series(1, %s) AS number
"""


@pytest.fixture
def large(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A table with many rows that are done, a few that wait, and some transactions that are open."""
    PostgresqlStore(database).create()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(FILL, ("done", "DONE", 30_000))
        connection.execute("VACUUM ANALYZE yeondong_outbox")
        yield connection


def explained(connection: psycopg.Connection[Any], statement: str, values: Mapping[str, Any]) -> tuple[str, int]:
    """Run a statement; return its plan, and how many pages it looked at."""
    rows = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {statement}".encode(), values).fetchall()
    text = "\n".join(row[0] for row in rows)
    pages = re.findall(r"shared hit=(\d+)(?: read=(\d+))?", text.partition("Planning")[0])
    return text, int(pages[0][0]) + int(pages[0][1] or 0) if pages else 0


def test_a_look_at_nothing_new_reads_next_to_nothing(large: psycopg.Connection[Any], database: str) -> None:
    with psycopg.connect(database) as long:
        long.execute("SELECT pg_current_xact_id()")
        large.execute("SELECT pg_current_xact_id()")  # a later one: what is above all others needs no mention
        windows = Windows(PostgresqlStore(database).connect()._link, outbox.NO_LATER, outbox.STANDING)
        seen = windows.now()
        assert seen.running, "the open transaction shows in the snapshot"
        large.execute(FILL, ("waits", "WAITING", 5))
        values = {"first": windows.now().first, "running": array(seen.running), "limit": 1_000}

        plan, pages = explained(large, windows._look, values)

    assert "Seq Scan" not in plan, plan
    assert pages < 60, plan


def test_a_page_and_a_mark_read_their_own_rows_only(large: psycopg.Connection[Any], database: str) -> None:
    large.execute(FILL, ("waits", "WAITING", 2_000))
    windows = Windows(PostgresqlStore(database).connect()._link, outbox.NO_LATER, outbox.STANDING)
    values = {
        "first": "1", "upto": windows.now().text, "last": 30_000, "high": 40_000, "limit": 100,
        "late0": "3", "late1": "4",
    }  # fmt: skip
    for statement in (windows.statement(late, sized=sized) for late in (0, 2) for sized in (False, True)):
        plan, pages = explained(large, statement, values)
        assert "Seq Scan" not in plan, plan
        assert pages < 200, plan
    fence = {"fence_name": "outbox", "fence_owner": "", "fence_epoch": 1}
    plan, _ = explained(large, outbox.MARK, {**fence, "ids": array(range(30_000, 30_100))})
    assert "yeondong_outbox_pkey" in plan, plan


def test_marks_touch_no_index(large: psycopg.Connection[Any], database: str) -> None:
    large.execute(FILL, ("waits", "WAITING", 500))
    session = PostgresqlStore(database).connect()
    fence = session.leases.take(RELAY, "relay", 3600)
    assert fence is not None
    rows = session.outbox.waiting(1_000, ())
    assert len(rows) == 500
    session.outbox.mark([row.receipt for row in rows], fence)

    # The server's processes tell what they did when they have been idle for a second.
    pause, found = threading.Event(), None
    for _ in range(1_000):
        found = large.execute(UPDATED).fetchone()
        if found != (0, 0):
            break
        pause.wait(0.02)
    assert found == (500, 500)


# --- keys that are blocked by another session -------------------------------------------------------------------------


def test_rows_behind_a_failure_wait_and_come_in_order_after_it(database: str) -> None:
    store = PostgresqlStore(database)
    store.create()
    source, engine, person = store.connect(), store.connect(), store.connect()
    fence = engine.leases.take(RELAY, "relay", 3600)
    assert fence is not None

    def add(*ids: str) -> None:
        with psycopg.connect(database) as connection:
            for id in ids:
                store.add(connection, [message(id, id[0])])

    add("a1", "b1", "a2")
    loans = {row.message.id: row for row in source.outbox.waiting(10, set())}
    engine.outbox.hold([Hold(loans["a1"], failed=True, error="boom")], fence)
    source.outbox.mark([loans["b1"].receipt], fence)
    add("a3", "b2")
    found = source.outbox.waiting(10, set())  # a1 and a2 were given back
    assert ids(found) == ["b2"]
    source.outbox.mark([found[0].receipt], fence)
    add("a4")
    assert source.outbox.waiting(10, set()) == []
    (failure,) = person.failures.find(FailureFilter(), 10)
    assert failure.behind == 3

    assert person.failures.retry([failure.id], by="kim") == 1
    add("a5")
    first = source.outbox.waiting(2, set())
    assert ids(first) == ["a1", "a2"]
    rest = source.outbox.waiting(10, {row.receipt for row in first})
    assert ids(rest) == ["a3", "a4", "a5"]
    assert ids(store.connect().outbox.waiting(10, set())) == ["a1", "a2", "a3", "a4", "a5"]
    source.outbox.mark([row.receipt for row in (*first, *rest)], fence)
    assert source.outbox.lag().waiting == 0
    assert store.connect().outbox.waiting(10, set()) == []


def test_a_relay_begins_where_the_last_one_had_seen_all(database: str) -> None:
    store = PostgresqlStore(database)
    store.create()
    first = store.connect()
    fence = first.leases.take(RELAY, "relay", 3600)
    assert fence is not None
    with psycopg.connect(database) as late:
        store.add(late, [message("late")])
        with psycopg.connect(database) as connection:
            store.add(connection, [message("m1"), message("m2")])
        rows = first.outbox.waiting(10, set())
        first.outbox.mark([rows[0].receipt], fence)
        first.outbox.waiting(10, {rows[1].receipt})
        assert first.positions.load(outbox.LOOKED) is None, "m2 is still waiting"
        first.outbox.mark([rows[1].receipt], fence)
        saved = first.positions.load(outbox.LOOKED)
        assert saved is not None

    second = store.connect()
    assert second.outbox.lag().waiting == 1
    assert ids(second.outbox.waiting(10, set())) == ["late"]


@pytest.mark.parametrize("marking", ["status", "position"])
def test_a_relay_works_through_a_pooler_of_transactions(database: str, pooled: str, marking: str) -> None:
    PostgresqlStore(database).create()
    store = PostgresqlStore(pooled)
    session = store.connect()
    fence = session.leases.take(RELAY, "relay", 3600)
    assert fence is not None
    session.outbox_log.resume()
    sent: list[str] = []
    for number in range(12):  # more often than psycopg takes to prepare a statement
        with psycopg.connect(pooled, prepare_threshold=None) as connection:
            store.add(connection, [message(f"m{number}")])
        rows = session.outbox.waiting(10, set()) if marking == "status" else session.outbox_log.read(10)
        sent += ids(rows)
        if marking == "status":
            session.outbox.mark([row.receipt for row in rows], fence)
        else:
            session.outbox_log.save(rows[-1].receipt, fence)

    assert sent == [f"m{number}" for number in range(12)]
