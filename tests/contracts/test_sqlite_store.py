"""What the suite cannot ask of every store: the SQLite file, its one writer, its callers' connections, fork."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from uuid import UUID

import pydantic
import pytest
import sqlalchemy
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import scoped_session, sessionmaker

from yeondong.connections import sqlite as connections
from yeondong.connections.sqlite import FairLock, sqlite_file
from yeondong.core.delivery import Delivery
from yeondong.core.message import Kind
from yeondong.core.store import RELAY, FailureFilter, Hold, OutboxLog
from yeondong.errors import (
    ClosedConnection,
    ConnectionLost,
    ForeignConnection,
    MessageRefused,
    NotADatabase,
    NotInTransaction,
    ReadOnlyStore,
    SchemaMismatch,
    SchemaMissing,
    StoreError,
    TransactionError,
)
from yeondong.stores import tables
from yeondong.stores.sqlite import SqliteStore, outbox_log
from yeondong.stores.sqlite import outbox as statements
from yeondong.stores.sqlite.session import SqliteSession
from yeondong.testing.store_suite.scene import BARE, RICH, hold, ids, message

PATIENCE_SECONDS = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    store = SqliteStore(str(path), make=True)
    store.prepare()
    return store


Connect: TypeAlias = Callable[[SqliteStore], SqliteSession]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Give sessions that are closed at the end."""
    with ExitStack() as after:

        def connect(store: SqliteStore) -> SqliteSession:
            session = store.connect()
            after.callback(session.close)
            return session

        yield connect


@pytest.fixture
def session(store: SqliteStore, connect: Connect) -> SqliteSession:
    return connect(store)


@pytest.fixture
def caller(store: SqliteStore, path: Path) -> Iterator[sqlite3.Connection]:
    """Give a caller's own connection, with a table of the caller's."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        yield connection


def rows(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def outbox(path: Path) -> list[str]:
    return [row[0] for row in rows(path, "SELECT message_id FROM yeondong_outbox ORDER BY id")]


def until(look: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    while not look():
        assert time.monotonic() < give_up
        pause.wait(0.005)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Lay down root's right to write everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_made_with_its_tables_and_its_path_is_said(path: Path) -> None:
    made = SqliteStore(str(path)).prepare()

    assert made is not None
    assert str(path) in made
    assert set(tables.metadata.tables) <= {name for (name,) in rows(path, "SELECT name FROM sqlite_schema")}
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_the_first_use_makes_the_file(path: Path, connect: Connect) -> None:
    session = connect(SqliteStore(str(path), make=True))
    assert not path.exists()

    assert session.held.count("flow") == 0
    assert path.exists()


def test_an_empty_file_is_filled(path: Path) -> None:
    path.touch()

    assert SqliteStore(str(path)).prepare() is not None
    assert outbox(path) == []


def test_a_file_removed_meanwhile_is_made_again_by_whoever_opens_next(
    store: SqliteStore, path: Path, connect: Connect
) -> None:
    first = connect(store).leases.take("flow", "worker", 60)
    for file in path.parent.iterdir():
        file.unlink()
    second = connect(store).leases.take("flow", "another", 60)

    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch


def test_the_database_of_another_is_left_as_it_is(path: Path, connect: Connect) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    before = path.read_bytes()

    with pytest.raises(SchemaMissing, match=r"store\.db has no table .* `yeondong db create`"):
        SqliteStore(str(path)).prepare()
    with pytest.raises(SchemaMissing):
        connect(SqliteStore(str(path))).held.count("flow")

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_default_file_gets_its_tables_beside_those_of_another(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")

    assert SqliteStore(str(path), make=True).prepare() is not None
    assert outbox(path) == []


def test_create_names_what_it_made_and_changes_nothing_that_is_there(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE yeondong_inbox")
        connection.execute("DROP INDEX yeondong_outbox_waiting")
        connection.execute(
            "INSERT INTO yeondong_leases VALUES ('flow', 'worker', 7, 1.0, '2026-01-01 00:00:00.000000')"
        )
        connection.commit()

    assert store.check() == [
        "table yeondong_inbox is missing",
        "index yeondong_outbox_waiting on yeondong_outbox is missing",
    ]
    assert set(store.create()) == {"yeondong_inbox", "yeondong_inbox_handled_at", "yeondong_outbox_waiting"}
    assert store.check() == []
    assert rows(path, "SELECT epoch FROM yeondong_leases") == [(7,)]


def test_the_printed_statements_make_the_same_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in SqliteStore("elsewhere.db").statements():
            connection.execute(statement)
        connection.commit()

    store = SqliteStore(str(path))
    assert store.prepare() is None
    assert store.check() == []


@pytest.mark.parametrize("content", [b"a letter\n" * 1_000, b"x"], ids=["long", "short"])
def test_a_file_that_is_no_database_is_left_as_it_is(path: Path, content: bytes, connect: Connect) -> None:
    path.write_bytes(content)
    store = SqliteStore(str(path), make=True)

    for use in (store.prepare, store.create, lambda: connect(store).held.count("flow")):
        with pytest.raises(NotADatabase, match=r"store\.db"):
            use()

    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotADatabase, match="folder"):
        SqliteStore(str(tmp_path), make=True).prepare()
    with pytest.raises(StoreError, match="nowhere does not exist"):
        SqliteStore(str(tmp_path / "nowhere" / "store.db"), make=True).prepare()
    for name in ("", ":memory:"):
        with pytest.raises(StoreError, match="is no file"):
            SqliteStore(name, make=True)


@pytest.mark.parametrize("read_only", ["file", "folder", "empty folder"])
def test_a_read_only_place_is_said_to_be_one(read_only: str, connect: Connect) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.db")
        if read_only != "empty folder":
            SqliteStore(str(path)).prepare()
            path.chmod(0o444 if read_only == "file" else 0o666)
        Path(folder).chmod(0o777 if read_only == "file" else 0o555)
        before = sorted((each.name, each.read_bytes()) for each in Path(folder).iterdir())
        store = SqliteStore(str(path), make=True)
        with as_nobody():
            with pytest.raises(ReadOnlyStore, match="read-only"):
                store.prepare()
            with pytest.raises(ReadOnlyStore, match="read-only"):
                connect(store).held.count("flow")
        assert sorted((each.name, each.read_bytes()) for each in Path(folder).iterdir()) == before


@pytest.mark.parametrize(("version", "says"), [(0, "older schema 0"), (99, "newer schema 99")])
def test_an_older_or_newer_schema_is_left_as_it_is(
    store: SqliteStore, path: Path, version: int, says: str, connect: Connect
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE yeondong_schema SET version = ?", (version,))
        connection.commit()
    before = rows(path, "SELECT sql FROM sqlite_schema")

    for use in (store.prepare, lambda: connect(store).held.count("flow")):
        with pytest.raises(SchemaMismatch, match=says):
            use()
    assert rows(path, "SELECT sql FROM sqlite_schema") == before


def test_other_columns_are_found_where_a_migration_made_the_tables(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM yeondong_schema")
        connection.commit()
    assert store.prepare() is None

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP VIEW yeondong_outbox_status")
        connection.execute("ALTER TABLE yeondong_positions DROP COLUMN saved_at")
        connection.execute("ALTER TABLE yeondong_suspects DROP COLUMN attempt")
        connection.execute("ALTER TABLE yeondong_suspects ADD COLUMN attempt TEXT")
        connection.commit()

    with pytest.raises(SchemaMismatch, match="saved_at is missing"):
        store.prepare()
    assert store.check() == [
        "column yeondong_positions.saved_at is missing",
        "column yeondong_suspects.attempt is TEXT, not INTEGER",
    ]


def test_a_full_disk_at_opening_changes_nothing_and_passes(path: Path) -> None:
    store = SqliteStore(str(path))
    file = sqlite_file(str(path))
    file.max_pages = 5

    with pytest.raises(ConnectionLost, match="full"):
        store.prepare()

    assert rows(path, "SELECT * FROM sqlite_schema") == []
    file.max_pages = None
    assert store.prepare() is not None


# --- outages ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_that_was_accepted(store: SqliteStore, path: Path, connect: Connect) -> None:
    file = sqlite_file(str(path))
    file.max_pages = rows(path, "PRAGMA page_count")[0][0] + 20
    session = connect(store)
    accepted: list[str] = []

    def add(number: int) -> None:
        tx = session.begin("test")
        try:
            store.add(tx, [message(f"m{number}", data=bytes(1_000))])
            tx.commit()
        finally:
            tx.rollback()
        accepted.append(f"m{number}")

    with pytest.raises(ConnectionLost, match="full"):
        list(map(add, range(10_000)))

    assert len(accepted) > 5
    assert outbox(path) == accepted
    file.max_pages = None
    session.held.put("flow", [hold("m1")], [])
    assert session.held.count("flow") == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.1)


def test_a_file_that_is_locked_by_another_is_an_outage_that_passes(
    impatient: None, store: SqliteStore, session: SqliteSession, path: Path
) -> None:
    fence = session.leases.take(RELAY, "worker", 60)
    assert fence is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert session.held.count("flow") == 0
        assert session.leases.take(RELAY, "standby", 60) is None, "a standby does not need the lock"
        for write in (
            lambda: session.held.put("flow", [hold("m1")], []),
            lambda: session.outbox.mark([1], fence),
            lambda: session.leases.renew(fence, 60),
            lambda: session.begin("test"),
        ):
            with pytest.raises(ConnectionLost, match="locked"):
                write()
        other.execute("ROLLBACK")

    session.held.put("flow", [hold("m1")], [])
    assert session.held.count("flow") == 1


def test_an_outage_within_a_handlers_statement_is_named_as_one(
    impatient: None, store: SqliteStore, session: SqliteSession, caller: sqlite3.Connection, path: Path
) -> None:
    tx = session.begin("test")
    for statement in ("INSERT INTO orders VALUES (1)", sqlalchemy.text("INSERT INTO orders VALUES (1)")):
        tx.connection.execute("PRAGMA query_only = ON")
        with pytest.raises(ConnectionLost, match="read-only"):
            tx.execute(statement)
    tx.rollback()


def locked_by_its_own_transaction(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as own:
        own.execute("INSERT INTO orders VALUES (1)")


def locked_through_sqlalchemy(path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
    try:
        with engine.connect() as own:
            own.execute(sqlalchemy.text("INSERT INTO orders VALUES (1)"))
    finally:
        engine.dispose()


def a_file_that_cannot_be_opened(path: Path) -> None:
    sqlite3.connect(f"{path.parent / 'nowhere' / 'other.db'}")


def a_read_only_connection(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as own:
        own.execute("INSERT INTO orders VALUES (1)")


@pytest.mark.parametrize(
    "meet",
    [locked_by_its_own_transaction, locked_through_sqlalchemy, a_file_that_cannot_be_opened, a_read_only_connection],
    ids=lambda meet: meet.__name__,
)
def test_what_a_handler_meets_on_a_connection_of_its_own_is_no_outage_of_the_store(
    session: SqliteSession, caller: sqlite3.Connection, path: Path, meet: Callable[[Path], None]
) -> None:
    tx = session.begin("test")
    with pytest.raises((sqlite3.Error, sqlalchemy.exc.OperationalError)) as raised:
        meet(path)

    assert session.lost(raised.value) is not None
    assert session.lost(raised.value, tx) is None
    tx.rollback()
    assert session.lost(raised.value, tx) is None


def test_a_full_disk_under_the_drivers_own_connection_is_an_outage(
    session: SqliteSession, caller: sqlite3.Connection, path: Path
) -> None:
    tx = session.begin("test")
    tx.connection.execute(f"PRAGMA max_page_count = {rows(path, 'PRAGMA page_count')[0][0] + 2}")
    with pytest.raises(sqlite3.OperationalError) as raised:
        tx.connection.execute("CREATE TABLE large AS SELECT zeroblob(1000000)")
    assert session.lost(raised.value, tx) is not None
    tx.rollback()

    assert session.lost(raised.value, tx) is not None


def test_who_goes_on_after_an_outage_is_told_of_it_again(
    session: SqliteSession, caller: sqlite3.Connection, path: Path
) -> None:
    tx = session.begin("test")
    tx.connection.execute(f"PRAGMA max_page_count = {rows(path, 'PRAGMA page_count')[0][0] + 2}")
    with pytest.raises(ConnectionLost, match="full"):
        tx.execute("CREATE TABLE large AS SELECT zeroblob(1000000)")
    if not tx.current():  # SQLite rolls back for some errors, and for others leaves it to us
        with pytest.raises(ConnectionLost, match="full"):
            tx.execute("INSERT INTO orders VALUES (1)")
    tx.rollback()
    with pytest.raises(ConnectionLost, match="full"):
        tx.execute("INSERT INTO orders VALUES (1)")


def test_a_table_that_a_handlers_own_cursor_keeps_is_no_outage(
    session: SqliteSession, caller: sqlite3.Connection
) -> None:
    tx = session.begin("test")
    tx.execute("INSERT INTO orders VALUES (1), (2)")
    reading = tx.connection.execute("SELECT id FROM orders")
    reading.fetchone()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        tx.execute("DROP TABLE orders")
    reading.close()
    tx.rollback()


def test_who_waits_too_long_for_the_writer_is_told_its_name(
    impatient: None, store: SqliteStore, connect: Connect
) -> None:
    slow, other = connect(store), connect(store)
    tx = slow.begin("grant_points")
    failed: list[ConnectionLost] = []

    def write() -> None:
        try:
            other.flows.pause("flow", "test")
        except ConnectionLost as lost:
            failed.append(lost)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    tx.rollback()

    assert "grant_points" in str(failed[0])


def test_a_handler_that_writes_past_its_own_transaction_is_told_so(store: SqliteStore, connect: Connect) -> None:
    tx = connect(store).begin("grant_points")

    with pytest.raises(StoreError, match="grant_points"):
        connect(store).flows.pause("flow", "test")
    tx.rollback()


def test_a_long_writer_is_named_while_it_holds_the_lock_and_afterwards(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, connect: Connect
) -> None:
    monkeypatch.setattr(connections, "LONG_SECONDS", 0.1)
    caplog.set_level(logging.WARNING, "yeondong.sqlite")
    unwatch = store.watch(lambda: None)
    tx = connect(store).begin("grant_points")

    until(lambda: caplog.records)
    until(store.notice)
    tx.commit()
    unwatch()

    (record,) = caplog.records
    assert record.__dict__["holder"] == "grant_points"
    assert record.__dict__["seconds"] > 0.1
    assert "grant_points held the only write lock" in (store.notice() or "")


def test_a_long_writer_is_named_when_nobody_watches(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, connect: Connect
) -> None:
    monkeypatch.setattr(connections, "LONG_SECONDS", 0.0)
    caplog.set_level(logging.WARNING, "yeondong.sqlite")
    tx = connect(store).begin("grant_points")
    assert store.notice() is not None
    tx.rollback()

    assert [record.__dict__["holder"] for record in caplog.records] == ["grant_points"]


def test_short_writers_are_not_mentioned(store: SqliteStore, session: SqliteSession) -> None:
    session.flows.pause("flow", "test")

    assert store.notice() is None


def test_the_lock_goes_to_those_who_wait_in_their_order() -> None:
    lock = FairLock()
    lock.acquire(1)
    order: list[int] = []

    def wait(number: int) -> None:
        assert lock.acquire(PATIENCE_SECONDS)
        order.append(number)
        lock.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    started: list[threading.Thread] = []
    for thread in threads:
        thread.start()
        started.append(thread)
        until(lambda: len(lock._waiting) == len(started))
    lock.release()
    # Whoever has just released it stands behind all who wait.
    assert lock.acquire(PATIENCE_SECONDS)
    order.append(99)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 99]
    assert lock.acquire(0)
    assert not lock.acquire(0.01)


def test_the_watcher_outlives_an_outage_and_ends_with_the_last_who_watches(path: Path) -> None:
    woken: list[int] = []
    file = sqlite_file(str(path))
    unwatch = [file.watch(lambda: woken.append(1)) for _ in range(2)]
    watcher = file._watcher
    assert watcher is not None
    store = SqliteStore(str(path), make=True)
    store.prepare()  # there was no file until now
    until(lambda: woken)
    unwatch[0]()
    assert watcher.is_alive()
    unwatch[1]()
    watcher.join(PATIENCE_SECONDS)
    assert not watcher.is_alive()


def test_an_idle_watcher_is_cheap(store: SqliteStore) -> None:
    unwatch = store.watch(lambda: None)
    pause = threading.Event()
    before, begun = time.process_time(), time.monotonic()
    pause.wait(1.0)
    spent = (time.process_time() - before) / (time.monotonic() - begun)
    unwatch()

    assert spent < 0.05  # the goal is 0.01; a busy machine makes each wake-up dearer


def test_store_and_broker_share_one_file_object_by_whatever_path(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)

    assert sqlite_file(str(path)) is sqlite_file(str(link))
    assert sqlite_file(str(path)) is not sqlite_file(str(tmp_path / "other.db"))


# --- the transactions of callers --------------------------------------------------------------------------------------


def test_add_shares_the_fate_of_the_change(store: SqliteStore, caller: sqlite3.Connection, path: Path) -> None:
    caller.execute("INSERT INTO orders VALUES (1)")
    store.add(caller, [RICH])
    caller.rollback()
    assert outbox(path) == []

    store.add(caller, [message("m1")])
    caller.execute("INSERT INTO orders VALUES (1)")
    store.add(caller.cursor(), [message("m2"), message("m3")])
    assert outbox(path) == []
    caller.commit()
    assert outbox(path) == ["m1", "m2", "m3"]
    store.add(caller, [])
    assert not caller.in_transaction


def test_rows_have_the_columns_that_people_look_at(store: SqliteStore, caller: sqlite3.Connection, path: Path) -> None:
    store.add(caller, [RICH, BARE])
    caller.commit()

    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rich, bare = map(dict, connection.execute("SELECT * FROM yeondong_outbox ORDER BY id"))
    assert (rich["status"], rich["fail_count"], rich["occurred_at"]) == ("WAITING", 0, "2026-02-03 04:05:06.789123")
    assert (rich["message_id"], rich["message_type"], rich["channel"], rich["key"]) == (
        "rich", "order.placed", "orders", "연동",
    )  # fmt: skip
    assert 0 <= rich["partition"] < 64
    assert (bare["headers"], bare["payload"], bare["key"], bare["occurred_at"]) == (None, None, None, None)


def test_add_makes_the_tables_within_the_callers_transaction(path: Path) -> None:
    store = SqliteStore(str(path), make=True)
    with closing(sqlite3.connect(path)) as caller:
        caller.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        store.add(caller, [message("m1")])
        caller.rollback()
        assert rows(path, "SELECT name FROM sqlite_schema") == [("orders",)]
        caller.execute("INSERT INTO orders VALUES (1)")
        store.add(caller, [message("m1"), message("m2")])
        caller.commit()

    assert outbox(path) == ["m1", "m2"]
    assert store.prepare() is None


def test_add_to_a_database_without_tables_says_how_to_make_them(path: Path) -> None:
    with closing(sqlite3.connect(path)) as caller:
        caller.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        with pytest.raises(SchemaMissing, match="yeondong db create"):
            SqliteStore(str(path)).add(caller, [message("m1")])


def test_a_message_added_twice_is_refused_and_adds_none_of_its_batch(
    store: SqliteStore, caller: sqlite3.Connection, path: Path
) -> None:
    store.add(caller, [message("m1")])
    caller.commit()

    with pytest.raises(MessageRefused, match="message_id"):
        store.add(caller, [message("m2"), message("m1")])
    store.add(caller, [message("m3")])
    caller.commit()
    assert outbox(path) == ["m1", "m3"]


@pytest.mark.parametrize(("version", "says"), [(0, "older schema 0"), (99, "newer schema 99")])
def test_add_writes_nothing_into_an_older_or_newer_schema(
    store: SqliteStore, caller: sqlite3.Connection, path: Path, version: int, says: str
) -> None:
    caller.execute("UPDATE yeondong_schema SET version = ?", (version,))
    caller.commit()

    with pytest.raises(SchemaMismatch, match=says):
        store.add(caller, [message("m1")])
    caller.commit()
    assert outbox(path) == []


def test_add_looks_at_the_version_once(store: SqliteStore, caller: sqlite3.Connection) -> None:
    asked: list[str] = []
    caller.set_trace_callback(asked.append)

    store.add(caller, [message("m1")])
    assert any("yeondong_schema" in statement for statement in asked)
    asked.clear()
    store.add(caller, [message("m2")])

    assert not any("yeondong_schema" in statement for statement in asked)


def test_add_to_tables_that_lack_a_column_names_it(store: SqliteStore, caller: sqlite3.Connection) -> None:
    caller.execute("ALTER TABLE yeondong_outbox DROP COLUMN origin")

    with pytest.raises(SchemaMismatch, match=r"no column named origin.*yeondong db check"):
        store.add(caller, [message("m1")])


@pytest.mark.parametrize(
    ("does", "kind", "says"),
    [
        ("SELECT RAISE(ABORT, 'no orders on Sundays')", sqlite3.IntegrityError, "^no orders on Sundays$"),
        ("INSERT INTO seen VALUES (1)", sqlite3.IntegrityError, "^UNIQUE constraint failed: seen.id$"),
        ("INSERT INTO gone VALUES (1)", sqlite3.OperationalError, "^no such table: main.gone$"),
    ],
)
def test_errors_of_the_users_own_triggers_stay_as_they_are(
    store: SqliteStore, caller: sqlite3.Connection, does: str, kind: type[sqlite3.Error], says: str
) -> None:
    caller.execute("CREATE TABLE seen (id INTEGER UNIQUE)")
    caller.execute("INSERT INTO seen VALUES (1)")
    caller.execute(f"CREATE TRIGGER own AFTER INSERT ON yeondong_outbox BEGIN {does}; END")

    with pytest.raises(kind, match=says):
        store.add(caller, [message("m1")])


def test_an_autocommit_connection_needs_a_transaction(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as caller:
        with pytest.raises(NotInTransaction, match="BEGIN"):
            store.add(caller, [message("m1")])
        caller.execute("BEGIN")
        store.add(caller, [message("m1"), message("m2")])
        caller.execute("COMMIT")

    assert outbox(path) == ["m1", "m2"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has autocommit from Python 3.12 on")
def test_the_newer_autocommit_of_sqlite3_is_known(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, autocommit=True)) as caller, pytest.raises(NotInTransaction):  # type: ignore[call-overload,unused-ignore]
        store.add(caller, [message("m1")])
    with closing(sqlite3.connect(path, autocommit=False)) as caller:  # type: ignore[call-overload,unused-ignore]
        store.add(caller, [message("m1")])
        caller.commit()
    assert outbox(path) == ["m1"]


def test_a_closed_connection_is_said_to_be_closed(store: SqliteStore, path: Path) -> None:
    caller = sqlite3.connect(path)
    caller.close()
    with pytest.raises(ClosedConnection, match="closed"):
        store.add(caller, [message("m1")])
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    connection = engine.connect()
    connection.close()
    with pytest.raises(ClosedConnection, match="closed"):
        store.add(connection, [message("m1")])
    engine.dispose()


def test_a_connection_to_another_database_is_refused_by_both_names(store: SqliteStore, tmp_path: Path) -> None:
    for name in (str(tmp_path / "another.db"), ":memory:"):
        with (
            closing(sqlite3.connect(name)) as caller,
            pytest.raises(ForeignConnection, match=r"(another\.db|memory).*store\.db"),
        ):
            store.add(caller, [message("m1")])
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'another.db'}")
    with engine.connect() as connection:
        with pytest.raises(ForeignConnection, match=r"another\.db.*store\.db"):
            store.add(connection, [message("m1")])
        assert not connection.in_transaction()
    engine.dispose()


def test_another_drivers_connection_is_refused_by_name(store: SqliteStore) -> None:
    fake = type("AsyncSession", (), {"__module__": "sqlalchemy.ext.asyncio.session"})()
    with pytest.raises(ForeignConnection, match=r"AsyncSession, and so does add_async"):
        store.add(fake, [message("m1")])
    with pytest.raises(ForeignConnection, match=r"SimpleNamespace.*SQLAlchemy"):
        store.add(SimpleNamespace(), [message("m1")])
    engine = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(NotInTransaction, match=r"engine\.begin"):
        store.add(engine, [message("m1")])


def test_an_attached_file_is_not_the_database_of_the_transaction(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "another.db")) as caller:
        caller.execute("ATTACH DATABASE ? AS yeondong", (str(path),))
        with pytest.raises(ForeignConnection, match=r"another\.db"):
            store.add(caller, [message("m1")])


@pytest.fixture
def engine(caller: sqlite3.Connection, path: Path) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def test_add_on_a_sqlalchemy_connection(store: SqliteStore, engine: sqlalchemy.Engine, path: Path) -> None:
    with engine.connect() as connection:
        store.add(connection, [message("m1")])
        connection.rollback()
        store.add(connection, [message("m2"), message("m3")])
        connection.execute(sqlalchemy.text("INSERT INTO orders VALUES (1)"))
        assert outbox(path) == []
        connection.commit()
    with engine.begin() as connection:
        store.add(connection, [message("m4")])

    assert outbox(path) == ["m2", "m3", "m4"]


def test_add_on_a_sqlalchemy_session(store: SqliteStore, engine: sqlalchemy.Engine, path: Path) -> None:
    with OrmSession(engine) as session:
        store.add(session, [message("m1")])
        session.rollback()
        store.add(session, [message("m2"), message("m3")])
        assert outbox(path) == []
        session.commit()
    scoped = scoped_session(sessionmaker(engine))
    store.add(scoped, [message("m4")])
    scoped.commit()
    scoped.remove()
    with OrmSession() as unbound, pytest.raises(ForeignConnection, match="no single database"):
        store.add(unbound, [message("m5")])

    assert outbox(path) == ["m2", "m3", "m4"]


def test_an_autocommit_sqlalchemy_connection_is_refused(
    store: SqliteStore, engine: sqlalchemy.Engine, path: Path
) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(NotInTransaction):
        store.add(connection, [message("m1")])

    assert outbox(path) == []


def test_add_on_a_sqlalchemy_connection_that_begins_by_itself(
    store: SqliteStore, engine: sqlalchemy.Engine, path: Path
) -> None:
    """The recipe of SQLAlchemy's documentation for proper savepoints on SQLite."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    with engine.connect() as connection:
        store.add(connection, [message("m1")])
        connection.rollback()
        store.add(connection, [message("m2")])
        with connection.begin_nested() as nested:
            store.add(connection, [message("m3"), message("m4")])
            nested.rollback()
        connection.commit()

    assert outbox(path) == ["m2"]


def test_a_cursor_in_the_wrong_thread_keeps_its_own_error(store: SqliteStore, caller: sqlite3.Connection) -> None:
    raised: list[Exception] = []

    def add() -> None:
        try:
            store.add(caller, [message("m1")])
        except (sqlite3.Error, TransactionError) as error:
            raised.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    assert isinstance(raised[0], sqlite3.ProgrammingError)


# --- the store's own transaction --------------------------------------------------------------------------------------


def test_values_are_stored_so_that_they_compare(session: SqliteSession, caller: sqlite3.Connection) -> None:
    caller.execute("CREATE TABLE kinds (value)")
    seoul = timezone(timedelta(hours=9))
    tx = session.begin("test")
    for value in (
        datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2026, 2, 3, 13, 5, 6, 500_000, tzinfo=seoul),
        date(2026, 2, 3), UUID(int=7), Decimal("1.50"), Kind.EVENT, None, True, b"raw",
    ):  # fmt: skip
        tx.execute("INSERT INTO kinds VALUES (:value)", {"value": value})
    found = [row[0] for row in tx.execute("SELECT value FROM kinds ORDER BY rowid")]
    tx.rollback()

    assert found == [
        "2026-02-03 04:05:06.000000", "2026-02-03 04:05:06.500000",
        "2026-02-03", "00000000-0000-0000-0000-000000000007", "1.50", "event", None, 1, b"raw",
    ]  # fmt: skip


def test_a_field_that_is_not_there_is_named(session: SqliteSession, caller: sqlite3.Connection) -> None:
    tx = session.begin("test")
    with pytest.raises(sqlite3.ProgrammingError, match=":id"):
        tx.execute("INSERT INTO orders VALUES (:id)", SimpleNamespace(name="no id"))
    tx.rollback()


def test_pydantic_models_are_objects_with_fields(session: SqliteSession, caller: sqlite3.Connection) -> None:
    order = pydantic.create_model("Order", id=(int, ...))(id=7)
    tx = session.begin("test")
    tx.execute("INSERT INTO orders VALUES (:id)", order)
    orders = sqlalchemy.table("orders", sqlalchemy.column("id"))
    tx.execute(sqlalchemy.insert(orders), pydantic.create_model("Order", id=(int, ...))(id=8))
    found = list(tx.execute("SELECT id FROM orders ORDER BY id"))
    tx.rollback()

    assert found == [(7,), (8,)]


def commits_in_a_block(connection: sqlite3.Connection) -> None:
    with connection:
        pass


REFUSED: dict[str, Callable[[sqlite3.Connection], object]] = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "close": lambda connection: connection.close(),
    "with": commits_in_a_block,
    "executescript": lambda connection: connection.executescript("SELECT 1"),
    "COMMIT": lambda connection: connection.execute("COMMIT"),
    "END": lambda connection: connection.execute("END"),
    "ROLLBACK": lambda connection: connection.execute("ROLLBACK"),
    "isolation_level": lambda connection: setattr(connection, "isolation_level", None),
    "cursor": lambda connection: connection.cursor().execute("COMMIT"),
    "cursor's script": lambda connection: connection.cursor().executescript("COMMIT"),
}


@pytest.mark.parametrize("end", REFUSED)
def test_nobody_but_the_engine_ends_its_transaction(
    session: SqliteSession, caller: sqlite3.Connection, path: Path, end: str
) -> None:
    session.begin("before").commit()  # so that whatever sqlite3 keeps compiled is there
    session.begin("before").rollback()
    session.flows.pause("flow", "writes with statements of its own")
    tx = session.begin("test")
    tx.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(
        (StoreError, sqlite3.DatabaseError), match=r"leave commit and rollback to|not authorized"
    ) as raised:
        REFUSED[end](tx.connection)

    assert ("leave commit" in str(raised.value)) == (end not in ("isolation_level", "cursor", "cursor's script"))
    assert tx.current()
    assert rows(path, "SELECT id FROM orders") == []
    tx.commit()
    assert rows(path, "SELECT id FROM orders") == [(1,)]


def test_an_error_in_a_block_of_the_connection_is_the_one_that_is_seen(session: SqliteSession) -> None:
    tx = session.begin("test")
    with pytest.raises(ValueError, match="theirs"), tx.connection:
        raise ValueError("theirs")
    assert tx.current()
    tx.rollback()


def test_a_statement_that_is_told_to_roll_back_is_found_out(session: SqliteSession, caller: sqlite3.Connection) -> None:
    tx = session.begin("test")
    session.inbox.claim(tx, "group", ["m1"])
    tx.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(sqlite3.IntegrityError):
        tx.execute("INSERT OR ROLLBACK INTO orders VALUES (1)")
    tx.connection.execute("SAVEPOINT theirs")

    assert not tx.current()
    with pytest.raises(StoreError, match="OR ROLLBACK"):
        tx.commit()
    again = session.begin("test")
    assert session.inbox.claim(again, "group", ["m1"]) == {"m1"}
    again.rollback()


KILLED = """
import os, signal, sqlite3, sys
from yeondong.stores.sqlite import SqliteStore

session = SqliteStore(sys.argv[1]).connect()
tx = session.begin("handler")
session.inbox.claim(tx, "group", ["m1", "m2", "m3"])
try:
    tx.connection.commit()
finally:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_handler_that_commits_and_dies_claims_nothing_for_those_behind_it(session: SqliteSession, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    tx = session.begin("test")

    assert session.inbox.claim(tx, "group", ["m2", "m3"]) == {"m2", "m3"}
    tx.rollback()


def test_an_effect_survives_a_power_cut_and_a_mark_need_not(session: SqliteSession) -> None:
    def synchronous() -> int:
        level: int = session._link.connection().execute("PRAGMA synchronous").fetchone()[0]
        return level

    session.begin("test").rollback()
    assert synchronous() == 2
    session.flows.pause("flow", "test")
    assert synchronous() == 1
    session.held.put("flow", [hold("m1")], [])
    assert synchronous() == 2


def test_a_wait_without_end_is_ten_years(session: SqliteSession, path: Path) -> None:
    fence = session.leases.take(RELAY, "worker", 1e300)
    assert fence is not None
    session.held.put("flow", [hold("m1", after_seconds=1e15), hold("m2", after_seconds=float("inf"))], [])

    (held,) = rows(path, "SELECT min(due_at) > datetime('now', '+9 years'), count(due_at) FROM yeondong_held")
    assert held == (1, 2)
    assert session.leases.renew(fence, float("inf")) is not None


def test_an_error_that_quotes_half_a_surrogate_pair_is_kept(session: SqliteSession, store: SqliteStore) -> None:
    fence = session.leases.take(RELAY, "worker", 60)
    assert fence is not None
    tx = session.begin("test")
    store.add(tx, [message("sent")])
    tx.commit()
    (row,) = session.outbox.waiting(10, ())
    session.outbox.hold([Hold(row, failed=True, error="no \ud800 연동")], fence)
    session.held.put("flow", [Hold(Delivery(message("m1"), 0, "p"), failed=True, error="no \ud800 연동")], [])
    session.flows.stop("flow", "no \ud800")
    session.flows.pause("flow", "no \ud800")

    assert [each.error for each in session.failures.find(FailureFilter(), 10)] == ["no \\ud800 연동"] * 2
    assert session.flows.control("flow").stopped == session.flows.control("flow").paused == "no \\ud800"


def test_no_look_reads_more_than_8_mib(store: SqliteStore, session: SqliteSession) -> None:
    many = [message(f"m{number:02}", data=bytes(1 << 20)) for number in range(12)]
    tx = session.begin("test")
    store.add(tx, many)
    tx.commit()
    session.held.put("flow", [Hold(Delivery(one, 0, "partition")) for one in many], [])

    first = session.outbox.waiting(100, ())
    session.outbox_log.resume()
    assert ids(first) == ids(session.outbox_log.read(100)) == ids(session.held.due("flow", 100))
    assert ids(first) == [f"m{number:02}" for number in range(8)]
    assert ids(session.outbox.waiting(100, [each.receipt for each in first])) == ["m08", "m09", "m10", "m11"]
    assert ids(session.outbox_log.read(100)) == ["m08", "m09", "m10", "m11"]


def test_a_payload_that_is_a_number_does_not_hinder_the_others(session: SqliteSession, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO yeondong_outbox (message_id, message_type, kind, channel, payload, origin, partition) "
            "VALUES ('m1', 't', 'event', 'c', 7, '/shop', 0)"
        )
        connection.commit()

    assert [row.flaw is not None for row in session.outbox.waiting(10, ())] == [True]


def test_ids_with_nul_are_told_apart(session: SqliteSession) -> None:
    many = [f"order\0{number}" for number in range(50)]
    tx = session.begin("test")
    assert session.inbox.claim(tx, "group", many) == set(many)
    assert session.inbox.claim(tx, "group", [*many, "order", "new\0"]) == {"order", "new\0"}
    session.inbox.unclaim(tx, "group", many[10:])
    tx.commit()
    session.held.put("flow", [hold(id) for id in many[:10]], [])

    tx = session.begin("test")
    assert session.inbox.claim(tx, "group", many) == set(many[10:])
    tx.rollback()
    assert session.held.known("flow", many) == set(many[:10])


# --- leases and the clock ---------------------------------------------------------------------------------------------


def test_a_lease_from_before_the_clock_was_set_back_is_free(session: SqliteSession, path: Path) -> None:
    first = session.leases.take("flow", "worker", 10)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE yeondong_leases SET expires_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', '+1 hour')")
        connection.commit()
    second = session.leases.take("flow", "another", 10)

    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch


def test_an_epoch_rises_also_when_the_clock_was_set_back(session: SqliteSession, path: Path) -> None:
    session.leases.take("flow", "worker", 10)
    future = 10**15
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE yeondong_leases SET epoch = ?, expires_at = '2000-01-01'", (future,))
        connection.commit()
    fence = session.leases.take("flow", "another", 10)

    assert fence is not None
    assert fence.epoch == future + 1


def test_the_given_clock_sets_the_deadline(path: Path, connect: Connect) -> None:
    class Clock:
        def elapsed(self) -> float:
            return 1_000.0

        def now(self) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC)

    fence = connect(SqliteStore(str(path), make=True, clock=Clock())).leases.take("flow", "worker", 2.5)

    assert fence is not None
    assert fence.deadline == 1_002.5


# --- a file that was set back under a relay by position ---


@pytest.fixture
def log(store: SqliteStore, connect: Connect) -> OutboxLog:
    log = connect(store).outbox_log
    log.resume()
    return log


def add(store: SqliteStore, session: SqliteSession, *ids: str) -> None:
    tx = session.begin("test")
    store.add(tx, [message(id) for id in ids])
    tx.commit()


def test_a_position_that_went_back_ends_the_opening(
    store: SqliteStore, session: SqliteSession, log: OutboxLog, path: Path
) -> None:
    fence = session.leases.take(RELAY, "worker", 60)
    assert fence is not None
    add(store, session, "m1", "m2", "m3", "m4")
    rows = log.read(10)
    log.save(rows[3].receipt, fence)
    session._link.connection().execute("UPDATE yeondong_positions SET position = '2'")

    with pytest.raises(ConnectionLost, match=r"position 'outbox' went back from 4 to 2: an older state .* restored"):
        log.read(10)
    log.resume()
    rows = log.read(10)
    assert ids(rows) == ["m3", "m4"]
    session._link.connection().execute("DELETE FROM yeondong_positions")
    with pytest.raises(ConnectionLost, match="restored"):
        log.save(rows[0].receipt, fence)


def test_rows_on_loan_that_are_no_longer_there_end_the_opening(
    store: SqliteStore, session: SqliteSession, log: OutboxLog
) -> None:
    add(store, session, "m1", "m2")
    log.read(10)
    session._link.connection().execute("DELETE FROM yeondong_outbox WHERE id = 2")
    session._link.connection().execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'yeondong_outbox'")

    with pytest.raises(ConnectionLost, match=r"row 2, .* gone: an older state of the database was restored"):
        log.read(10)
    log.resume()
    add(store, session, "m3")
    assert ids(log.read(10)) == ["m1", "m3"]


# --- the view ---------------------------------------------------------------------------------------------------------


def test_the_view_tells_what_became_of_rows_marked_by_position(store: SqliteStore, session: SqliteSession) -> None:
    fence = session.leases.take(RELAY, "worker", 60)
    assert fence is not None
    tx = session.begin("test")
    store.add(tx, [message(f"m{number}", "a" if number == 1 else None) for number in range(5)])
    tx.commit()
    session.outbox_log.resume()
    rows = session.outbox_log.read(10)
    session.held.put(
        RELAY,
        [
            Hold(Delivery(rows[1].message, rows[1].receipt, "outbox", 5), failed=True, error="boom"),
            Hold(Delivery(rows[2].message, rows[2].receipt, "outbox", 2), after_seconds=60, error="once"),
        ],
        [fence],
    )
    session.outbox_log.save(rows[3].receipt, fence)

    found = session._link.read(
        "SELECT message_id, status, attempts, sent_before IS NOT NULL, last_error"
        " FROM yeondong_outbox_status ORDER BY id"
    )
    assert found == [
        ("m0", "DONE", 1, 1, None),
        ("m1", "FAILED", 5, 0, "boom"),
        ("m2", "WAITING", 1, 0, "once"),
        ("m3", "DONE", 1, 1, None),
        ("m4", "WAITING", 0, 0, None),
    ]


def test_the_view_tells_the_same_of_rows_marked_by_status(store: SqliteStore, session: SqliteSession) -> None:
    fence = session.leases.take(RELAY, "worker", 60)
    assert fence is not None
    tx = session.begin("test")
    store.add(tx, [message(f"m{number}") for number in range(3)])
    tx.commit()
    rows = session.outbox.waiting(10, ())
    session.outbox.mark([rows[0].receipt], fence)
    failed = Delivery(rows[1].message, rows[1].receipt, "outbox", 5)
    session.outbox.hold([Hold(failed, failed=True, error="boom")], fence)

    found = session._link.read(
        "SELECT message_id, status, attempts, last_error FROM yeondong_outbox_status ORDER BY id"
    )
    assert found == [("m0", "DONE", 1, None), ("m1", "FAILED", 5, "boom"), ("m2", "WAITING", 0, None)]


# --- speed that must not depend on how much there is ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.WAITING, "yeondong_outbox_waiting"),
        (statements.WAITING_BESIDE_LOANS, "yeondong_outbox_waiting"),
        (statements.WAITING_UNBLOCKED, "yeondong_outbox_blocking"),
        (statements.BLOCKED, "yeondong_outbox_later"),
        (statements.LAG, "yeondong_outbox_waiting"),
        (outbox_log.LAG_BEYOND, "yeondong_outbox_waiting"),
    ],
)
def test_the_hot_statements_use_their_indexes(session: SqliteSession, statement: str, index: str) -> None:
    values = {"limit": 1, "on_loan": "[]", "position": 0}
    plan = session._link.read(f"EXPLAIN QUERY PLAN {statement}", values)

    steps = [row[3] for row in plan]
    assert any(index in step for step in steps), steps
    assert not any(step.startswith("SCAN") and "INDEX" not in step and "CONSTANT" not in step for step in steps), steps


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_connections_of_its_own(
    store: SqliteStore, session: SqliteSession, path: Path, connect: Connect
) -> None:
    session.flows.pause("flow", "parent")
    inherited = session._link.connection()
    file = sqlite_file(str(path))
    child = os.fork()
    if child == 0:
        try:
            session.flows.pause("child", "child")
            fine = session._link.connection() is not inherited and sqlite_file(str(path)) is not file
            session.close()
            connect(store).close()
        finally:
            os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0

    assert session._link.connection() is inherited
    session.flows.pause("flow", "parent again")
    assert session.flows.control("child").paused == "child"
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_waits_until_other_threads_have_written(store: SqliteStore, connect: Connect) -> None:
    begun = threading.Event()

    def write() -> None:
        tx = connect(store).begin("parent")
        begun.set()
        time.sleep(0.2)
        tx.commit()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connect(store).flows.pause("flow", "child")
            code = 0
        finally:
            os._exit(code)
    writer.join()
    connect(store).flows.pause("flow", "parent")
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_inside_a_transaction_is_told_that_the_child_cannot_write(store: SqliteStore, connect: Connect) -> None:
    tx = connect(store).begin("parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert connect(store).flows.control("flow").paused is None
            with pytest.raises(StoreError, match="fork outside of transactions"):
                connect(store).flows.pause("flow", "child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert tx.current()
    tx.commit()
    connect(store).flows.pause("flow", "parent")


ADDER = """
import sqlite3, sys
from yeondong.stores.sqlite import SqliteStore
from yeondong.stores.sqlite import outbox as statements
from yeondong.testing.store_suite.scene import message

path, name, count = sys.argv[1:]
store, caller = SqliteStore(path), sqlite3.connect(path, timeout=20)
for number in range(int(count)):
    caller.execute("BEGIN IMMEDIATE")
    store.add(caller, [message(f"{name}{number}", name)])
    caller.commit()
"""


def test_two_processes_add_while_a_third_takes_out(store: SqliteStore, session: SqliteSession, path: Path) -> None:
    fence = session.leases.take(RELAY, "worker", 60)
    assert fence is not None
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    adders = [
        subprocess.Popen([sys.executable, "-c", ADDER, str(path), name, "200"], env=environment) for name in ("a", "b")
    ]
    taken: list[str] = []

    def take() -> bool:
        found = session.outbox.waiting(50, ())
        if found:
            session.outbox.mark([delivery.receipt for delivery in found], fence)
            taken.extend(ids(found))
        return len(taken) == 400

    until(take)

    assert [process.wait() for process in adders] == [0, 0]
    for name in ("a", "b"):
        assert [id for id in taken if id[0] == name] == [f"{name}{number}" for number in range(200)]


# --- what is told of the file and of SQLite ---------------------------------------------------------------------------


def test_a_file_that_is_made_is_told_once_with_its_path(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "yeondong")
    store = SqliteStore(str(path))

    for _ in range(2):
        with closing(store.connect()) as session:
            session.held.count("flow")

    assert [record.getMessage() for record in caplog.records] == [f"sqlite.made file={str(path)!r}"]


def test_tables_that_an_add_makes_are_told_with_their_path(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "yeondong")
    store = SqliteStore(str(path))

    with closing(sqlite3.connect(path)) as caller:
        store.add(caller, [message("m1")])
        store.add(caller, [message("m2")])
        caller.commit()

    assert [record.getMessage() for record in caplog.records] == [f"sqlite.made file={str(path)!r}"]


@pytest.mark.parametrize(("version", "known"), [((3, 40, 1), 1), ((3, 51, 3), 0)])
def test_an_older_sqlite_is_a_caution_and_no_alarm_at_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: tuple[int, ...],
    known: int,
) -> None:
    caplog.set_level(logging.DEBUG, "yeondong")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    store = SqliteStore(str(tmp_path / "shop.db"))

    assert len(store.cautions()) == known
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
