"""The store on PostgreSQL among roles, schemas, poolers, certificates, limits and rivals."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests.servers.postgresql import PrivatePostgresql
from tests.servers.schemas import schema_of_its_own
from tests.servers.shared import required, unique
from yeondong.connections import postgresql
from yeondong.connections.postgresql import Pool, Server
from yeondong.core.fence import Fence
from yeondong.core.message import Kind, Message, order_key
from yeondong.core.store import Hold, Session
from yeondong.errors import (
    ConnectionLost,
    FenceLost,
    ReadOnlyStore,
    SchemaMismatch,
    SchemaMissing,
    SettingsError,
    StoreError,
)
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite.scene import failed, hold, ids, lent, message

LONG = 3_600.0


@pytest.fixture
def place() -> Iterator[tuple[str, str]]:
    with schema_of_its_own() as place:
        yield place


@pytest.fixture
def url(place: tuple[str, str]) -> str:
    PostgresqlStore(place[0]).create()
    return place[0]


@pytest.fixture
def session(url: str) -> Session:
    return PostgresqlStore(url).connect()


@pytest.fixture
def role(place: tuple[str, str]) -> Iterator[str]:
    name = unique("role")
    with psycopg.connect(required("postgresql"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}"))


def execute(url: str, statement: str, *names: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def lease(session: Session, name: str = "relay") -> Fence:
    fence = session.leases.take(name, "worker", LONG)
    assert fence is not None
    return fence


# --- fences -----------------------------------------------------------------------------------------------------------


def test_a_lease_under_which_somebody_writes_can_be_renewed_and_not_taken_over(url: str, session: Session) -> None:
    fence = lease(session)
    execute(url, "UPDATE yeondong_leases SET expires_at = now()")
    with psycopg.connect(url) as writer:
        writer.execute("SELECT 1 FROM yeondong_leases WHERE name = 'relay' FOR KEY SHARE")

        assert session.leases.take("relay", "rival", LONG) is None
        assert session.leases.renew(fence, 0.0) is not None
    taken = session.leases.take("relay", "rival", LONG)

    assert taken is not None
    assert taken.epoch > fence.epoch


def test_who_writes_while_the_lease_is_taken_over_writes_nothing(url: str, session: Session) -> None:
    fence = lease(session)
    entry = hold("m1")
    with psycopg.connect(url) as taking, ThreadPoolExecutor() as threads:
        taking.execute("SELECT 1 FROM yeondong_leases WHERE name = 'relay' FOR UPDATE")
        taking.execute("UPDATE yeondong_leases SET owner = 'rival', epoch = epoch + 1 WHERE name = 'relay'")
        saving = threads.submit(session.positions.save, "relay", "7", fence)
        putting = threads.submit(session.held.put, "relay", [entry], [fence])
        wait_for_locks(url, 2)
        taking.commit()

        for writing in (saving, putting):
            with pytest.raises(FenceLost):
                writing.result(10)
    assert session.positions.load("relay") is None
    assert session.held.count("relay") == 0


def test_a_partition_is_claimed_when_whoever_writes_for_it_is_through(url: str, session: Session) -> None:
    (old,) = session.claims.claim("flow", ["p1"], "worker")
    with psycopg.connect(url) as writer, ThreadPoolExecutor() as threads:
        writer.execute("SELECT 1 FROM yeondong_partitions FOR KEY SHARE")
        claiming = threads.submit(session.claims.claim, "flow", ["p1", "p2"], "rival")
        wait_for_locks(url, 1)
        assert not claiming.done()
        writer.commit()
        first, second = claiming.result(10)

    assert (first.unclean, second.unclean) == (True, False)
    with pytest.raises(FenceLost):
        session.held.put("flow", [hold("m1")], [old.fence])
    with pytest.raises(FenceLost):
        session.held.put("flow", [hold("m1")], [second.fence, old.fence])
    session.held.put("flow", [hold("m1")], [first.fence, second.fence])


def wait_for_locks(url: str, waiting: int) -> None:
    """Wait until so many statements on the tables of this schema wait for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        pause = threading.Event()
        for _ in range(2_000):
            ((count,),) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
                (f"%{urlsplit(url).query.partition('%3D')[2]}%",),
            ).fetchall()
            if count >= waiting:
                return
            pause.wait(0.005)
    pytest.fail("nobody waits for a lock")


def test_two_groups_that_claim_the_same_ids_in_another_order_do_not_wait_for_each_other_for_ever(url: str) -> None:
    many = [f"m{number}" for number in range(200)]

    def claim(order: list[str]) -> int:
        session = PostgresqlStore(url).connect()
        new = 0
        for start in range(0, 200, 20):
            tx = session.begin("test", together=True)
            new += len(session.inbox.claim(tx, "group", [*order[start : start + 20], *order[:5]]))
            tx.commit()
        return new

    with ThreadPoolExecutor() as threads:
        claimed = list(threads.map(claim, [many, many[::-1], many]))
    assert sum(claimed) == 200


# --- schemas, roles ---------------------------------------------------------------------------------------------------


def test_the_tables_may_be_in_a_schema_of_any_name(place: tuple[str, str]) -> None:
    url, _ = place
    with schema_of_its_own(unique('Ours "and" %s yours')) as (_, odd):
        store = PostgresqlStore(url, schema=odd)
        made = store.create()
        assert store.prepare() is None
        assert (store.check(), store.create(), store.remarks()) == ([], [], [])
        session = store.connect()
        session.positions.save("relay", "7", lease(session))
        assert session.positions.load("relay") == "7"
        assert "yeondong_outbox" in made
        with pytest.raises(SchemaMissing, match="db create"):
            PostgresqlStore(url).prepare()


def test_a_schema_that_is_named_and_missing_is_made_with_the_tables(url: str) -> None:
    name = unique("made")
    store = PostgresqlStore(url, schema=name)
    with pytest.raises(SchemaMissing, match=name):
        store.prepare()
    try:
        assert store.create()[0] == name
        assert store.prepare() is None
    finally:
        execute(url, "DROP SCHEMA {} CASCADE", name)


def test_the_printed_statements_make_what_is_needed(place: tuple[str, str]) -> None:
    store = PostgresqlStore(place[0])
    for statement in store.statements():
        execute(place[0], statement.replace("{", "{{").replace("}", "}}"))

    assert store.prepare() is None
    assert (store.check(), store.remarks(), store.create()) == ([], [], [])


def test_what_differs_is_said(url: str) -> None:
    store = PostgresqlStore(url)
    execute(url, "ALTER TABLE yeondong_held DROP COLUMN attempt CASCADE, ALTER COLUMN held_at TYPE date")
    execute(url, "DROP INDEX yeondong_outbox_failed; DROP TABLE yeondong_actions")
    execute(url, "ALTER TABLE yeondong_outbox RESET (fillfactor, autovacuum_vacuum_scale_factor, "
            "autovacuum_vacuum_threshold, autovacuum_analyze_scale_factor)")  # fmt: skip

    assert sorted(said.replace(store.connect().address, "") for said in store.check())[:3] == [
        "column yeondong_held.attempt is missing",
        "column yeondong_held.held_at is date, not timestamp with time zone",
        "index yeondong_outbox_failed on yeondong_outbox is missing",
    ]
    assert any("yeondong_actions is missing" in said for said in store.check())
    assert len(store.remarks()) == 2


def test_tables_of_another_version_are_refused(url: str) -> None:
    execute(url, "UPDATE yeondong_schema SET version = version + 1")
    with pytest.raises(SchemaMismatch, match="newer"):
        PostgresqlStore(url).prepare()
    execute(url, "UPDATE yeondong_schema SET version = version - 2")
    with pytest.raises(SchemaMismatch, match="older"):
        PostgresqlStore(url).prepare()


def test_a_role_needs_only_the_documented_grants(url: str, place: tuple[str, str], role: str) -> None:
    store = PostgresqlStore(as_role(url, role), schema=place[1])
    with pytest.raises(StoreError, match=r"lacks a privilege|no table"):
        store.prepare()
    execute(url, "GRANT USAGE ON SCHEMA {} TO {}", place[1], role)
    execute(url, "GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}", place[1], role)
    assert any("may not" in said and "INSERT" in said for said in store.check())
    execute(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}", place[1], role)

    assert (store.prepare(), store.check()) == (None, [])
    use_everything(store)


def test_who_only_adds_to_the_outbox_may_do_nothing_else(url: str, place: tuple[str, str], role: str) -> None:
    execute(url, "GRANT USAGE ON SCHEMA {} TO {}", place[1], role)
    execute(url, "GRANT INSERT ON yeondong_outbox TO {}", role)
    store = PostgresqlStore(as_role(url, role), schema=place[1])
    with psycopg.connect(as_role(url, role)) as connection:
        store.add(connection, [message("m1"), message("m2")])

    assert ids(PostgresqlStore(url).connect().outbox.waiting(10, ())) == ["m1", "m2"]
    with pytest.raises(StoreError, match="privilege"):
        store.connect().outbox.waiting(10, ())


def use_everything(store: PostgresqlStore) -> None:
    session = store.connect()
    fence = lease(session)
    session.positions.save("relay", "7", fence)
    tx = session.begin("test", together=True)
    assert session.inbox.claim(tx, "group", ["m1"]) == {"m1"}
    store.add(tx, [message("m1", "a")])
    tx.commit()
    (row,) = session.outbox.waiting(10, ())
    session.outbox.mark([row.receipt], fence)
    session.held.put("flow", [failed("m2"), hold("m3")], [])
    (due,) = session.held.due("flow", 10)
    session.held.settle("flow", [due], [], [])
    session.flows.pause("flow", "why")
    session.flows.resume("flow")
    session.flows.opened("flow", "me")
    session.suspects.begin("flow", "p", "m", 1)
    session.claims.release([claim.fence for claim in session.claims.claim("flow", ["p"], "me")])
    assert session.failures.discard(["h1"], "kim") == 1


# --- what others name -------------------------------------------------------------------------------------------------


def test_ids_and_keys_of_others_may_be_of_any_kind(session: Session) -> None:
    odd = "a\0b\x1ac\x1a0"
    long = "연동" * 5_000
    foreign = [Message(id, odd, Kind.EVENT, odd, odd, b"\0", {odd: odd}, odd) for id in (odd, "kafka:" + long)]
    tx = session.begin("test")
    assert session.inbox.claim(tx, "group", [each.id for each in foreign]) == {each.id for each in foreign}
    assert session.inbox.claim(tx, "group", [each.id for each in foreign]) == set()
    tx.commit()

    held = Message("kafka:" + long, "t", Kind.EVENT, "c", long, b"")
    session.held.put("flow", [Hold(lent(foreign[0]), error="a\0b\ud800"), Hold(lent(held)), Hold(lent(held))], [])
    first, second = session.held.due("flow", 10)
    assert first.message == foreign[0]
    assert (second.message.key, order_key(second.message)) == (long, order_key(held))
    assert session.held.known("flow", [odd, held.id]) == {odd, held.id}
    assert set(session.held.keys("flow")) == {order_key(foreign[0]), order_key(held)}
    tx = session.begin("test")
    assert session.inbox.claim(tx, "group", [second.message.id]) == set()
    tx.rollback()


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_read_only_server_is_refused_at_start_and_an_outage_later(url: str) -> None:
    read_only = PostgresqlStore(url.replace("?options=", "?options=-cdefault_transaction_read_only%3Don%20"))
    with pytest.raises(ReadOnlyStore, match="read"):
        read_only.prepare()
    with pytest.raises(ConnectionLost, match="read-only"):
        read_only.connect().leases.take("relay", "worker", LONG)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("/postgres?", f"/{unique('no')}?"), "does not exist"),
        (lambda url: as_role(url, unique("nobody")), "does not exist"),
        (lambda _: "postgresql://postgres@127.0.0.1:1/none", "refused"),
        (lambda _: "postgresql://postgres@no-such-host.invalid/none", "no-such-host.invalid"),
    ],
)
def test_what_cannot_be_reached_is_named_with_the_reason(url: str, change: Callable[[str], str], says: str) -> None:
    with pytest.raises(ConnectionLost, match=says):
        PostgresqlStore(change(url)).prepare()


@pytest.mark.parametrize("wrong", ["postgresql://h/db?nonsense=1", "postgresql://[::1/db"])
def test_a_url_that_cannot_be_used_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsError, match="URL"):
        PostgresqlStore(wrong)


def test_a_missing_package_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None; from yeondong import Yeondong; "
        "Yeondong('shop', store='postgresql://h/d').store"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "pip install 'yeondong[postgresql]'" in ended.stderr


def test_tls_checks_the_name_of_the_host() -> None:
    with PrivatePostgresql(tls_host="localhost") as server:
        store = PostgresqlStore(server.url())
        store.create()
        assert store.prepare() is None
        with pytest.raises(ConnectionLost, match="certificate"):
            PostgresqlStore(server.url(sslrootcert=os.devnull)).prepare()


def test_tls_refuses_a_certificate_of_another_host() -> None:
    with PrivatePostgresql(tls_host="db.example") as server:
        with pytest.raises(ConnectionLost, match=r"db\.example"):
            PostgresqlStore(server.url()).prepare()
        PostgresqlStore(server.url(sslmode="verify-ca")).create()


def test_all_works_through_pgbouncer_in_transaction_mode(url: str, place: tuple[str, str]) -> None:
    pooler = required("pgbouncer")
    store = PostgresqlStore(pooler, schema=place[1])
    assert store.prepare() is None
    store.expect(100_000)
    use_everything(store)
    execute(url, "CREATE TABLE effects (id int PRIMARY KEY)")

    def handle(group: int) -> int:
        session = store.connect()
        tx = session.begin("test", together=True)
        mine = [f"{group} {number}" for number in range(50)]
        new = session.inbox.claim(tx, "group", mine)
        for number in range(50):
            tx.execute(f'INSERT INTO "{place[1]}".effects (id) VALUES (:id)', {"id": group * 50 + number})
        tx.commit()
        return len(new)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(handle, range(40))) == 2_000
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM effects").fetchone() == (2_000,)


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_worker_is_refused_that_needs_more_connections_than_there_can_be(
    url: str, place: tuple[str, str], role: str
) -> None:
    execute(url, "ALTER ROLE {} CONNECTION LIMIT 6", role)
    execute(url, "GRANT USAGE ON SCHEMA {} TO {}", place[1], role)
    limited = as_role(url, role)

    PostgresqlStore(limited, notify=True).expect(4)
    PostgresqlStore(limited).expect(5)
    with pytest.raises(StoreError, match=rf"needs 7 connections.*role {role} allows 6"):
        PostgresqlStore(limited).expect(6)
    with pytest.raises(StoreError, match="max_connections"):
        PostgresqlStore(url).expect(100_000)
    PostgresqlStore(limited, connections=6).expect(100_000)


def test_lanes_take_turns_where_connections_are_few(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PostgresqlStore(url, connections=2)
    first, second = store.connect(), store.connect()
    tx = first.begin("first")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(second.begin, "second")
        keeper = store.connect(apart=True)
        assert keeper.leases.take("relay", "worker", LONG) is not None
        assert not waiting.done()
        tx.rollback()
        waiting.result(10).rollback()
    monkeypatch.setattr(postgresql, "WAIT_SECONDS", 0.05)
    tx = first.begin("first")
    with pytest.raises(ConnectionLost, match="store_connections"):
        second.begin("second")
    tx.rollback()
    second.begin("second").rollback()


def test_connections_that_the_server_ended_meanwhile_are_no_outage(url: str) -> None:
    pool = Pool(Server(url), 5)
    lent_out = [pool.borrow() for _ in range(5)]
    pids = [connection.info.backend_pid for connection in lent_out]
    for connection in lent_out:
        pool.give_back(connection)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) AS t(pid)", (pids,))

    with pool.borrowed() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.info.backend_pid not in pids


def test_a_forked_process_has_connections_of_its_own(url: str) -> None:
    program = """
import os, sys
from yeondong.stores.postgresql import PostgresqlStore
store = PostgresqlStore(sys.argv[1])
session = store.connect()
pid = lambda: session.begin("test").execute("SELECT pg_backend_pid()").fetchone()[0]
tx = session.begin("test")
mine = list(tx.execute("SELECT pg_backend_pid()"))[0][0]
if os.fork() == 0:
    child = session.begin("child")
    theirs = list(child.execute("SELECT pg_backend_pid()"))[0][0]
    child.commit()
    os._exit(0 if theirs != mine else 1)
_, status = os.wait()
assert list(tx.execute("SELECT pg_backend_pid()"))[0][0] == mine
tx.commit()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    ended = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("leased", [True, False], ids=["lease", "claim"])
def test_who_takes_over_ends_the_transactions_that_the_former_owner_left_open(url: str, leased: bool) -> None:
    """A process that stands still in a handler would keep its successor waiting at the inbox for ever."""
    store = PostgresqlStore(url)
    store.create()
    former, successor = store.connect(), store.connect()
    owner, other = f"{socket.gethostname()}-{os.getpid()}-aaaaaa", "elsewhere-1-bbbbbb"
    if leased:
        assert former.leases.take("orders/search", owner, 0.01) is not None
    else:
        former.claims.claim("orders/search", ["0"], owner)
    left_open = former.begin("a handler")
    assert former.inbox.claim(left_open, "orders/search", ["m1"]) == {"m1"}

    if leased:
        deadline = time.monotonic() + 10
        while successor.leases.take("orders/search", other, LONG) is None:
            assert time.monotonic() < deadline
    else:
        assert [claim.unclean for claim in successor.claims.claim("orders/search", ["0"], other)] == [True]

    tx = successor.begin("its successor")
    assert successor.inbox.claim(tx, "orders/search", ["m1"]) == {"m1"}
    tx.commit()
    with pytest.raises(ConnectionLost):
        left_open.execute("SELECT 1")
    left_open.rollback()
