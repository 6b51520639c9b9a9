"""What the suite cannot ask of every broker: the SQLite file, retention, bounds, fork."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy import create_engine

from yeondong.connections.sqlite import sqlite_file
from yeondong.core.delivery import Delivery
from yeondong.core.message import Message
from yeondong.errors import ConnectionLost, NotADatabase, ReadOnlyStore, SchemaMismatch, SchemaMissing, StoreError
from yeondong.messaging.brokers.sqlite import Retention, SqliteBroker, broker_tables
from yeondong.messaging.brokers.sqlite.groups import PROGRESS
from yeondong.messaging.brokers.sqlite.source import LAG
from yeondong.testing.broker_suite.scene import Scene, ids, message, messages, nothing_comes, receiver, soon

KILOBYTE = bytes(1_000)


class SetClock:
    """A clock that stands where the test sets it; each look at ``elapsed`` costs a second."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)
        self.seconds = 0.0

    def elapsed(self) -> float:
        self.seconds += 1
        return self.seconds

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def scene(path: Path) -> Iterator[Scene]:
    scene = scene_of(path)
    yield scene
    scene.close()


def scene_of(path: Path, *, clock: SetClock | None = None, retention: Retention | None = None) -> Scene:
    broker = SqliteBroker(str(path), clock=clock, retention=retention)
    broker.prepare()
    return Scene(broker, lambda: SqliteBroker(str(path)))


def rows(path: Path, statement: str, *values: Any) -> list[Any]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(statement, values).fetchall()
    connection.close()
    return found


def read(scene: Scene, total: int, settled: int | None = None, *, group: str = "search") -> list[Delivery]:
    source = scene.opened(group=group)
    found = scene.drain(source, total)
    source.settle(found[:settled])
    source.close()
    return found


def size_is_true(path: Path) -> bool:
    counted = rows(path, "SELECT bytes, messages FROM yeondong_broker_size")
    return counted == rows(path, "SELECT coalesce(sum(bytes), 0), count(*) FROM yeondong_broker_log")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_text("a letter\n" * 1_000)

    with pytest.raises(NotADatabase, match=r"broker\.db"):
        SqliteBroker(str(path)).prepare()

    assert path.read_text() == "a letter\n" * 1_000
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_or_a_file_without_folder_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(NotADatabase, match="folder"):
        SqliteBroker(str(tmp_path)).prepare()
    with pytest.raises(StoreError, match="nowhere"):
        SqliteBroker(str(tmp_path / "nowhere" / "broker.db")).prepare()


def test_a_read_only_file_is_said_to_be_one() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "broker.db")
        SqliteBroker(str(path)).prepare()
        before = path.read_bytes()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(ReadOnlyStore, match=r"broker\.db is read-only"):
                SqliteBroker(str(path)).prepare()
        finally:
            if root:
                os.seteuid(0)
            Path(folder).chmod(0o755)
        assert path.read_bytes() == before


@pytest.mark.parametrize(("version", "which"), [(99, "newer"), (0, "older")])
def test_tables_of_another_version_are_left_as_they_are(path: Path, version: int, which: str) -> None:
    SqliteBroker(str(path)).prepare()
    rows(path, "UPDATE yeondong_broker_size SET version = ?", version)
    before = path.read_bytes()

    with pytest.raises(SchemaMismatch, match=f"version {version}.*{which}"):
        SqliteBroker(str(path)).prepare()

    assert path.read_bytes() == before


def test_tables_that_lack_a_column_are_left_as_they_are(path: Path) -> None:
    rows(path, "CREATE TABLE yeondong_broker_log (position INTEGER PRIMARY KEY, channel TEXT)")
    before = path.read_bytes()

    with pytest.raises(SchemaMismatch, match="yeondong_broker_log lacks bytes"):
        SqliteBroker(str(path)).prepare()

    assert path.read_bytes() == before


def test_tables_that_went_are_named(scene: Scene, path: Path) -> None:
    scene.register()
    rows(path, "DROP TABLE yeondong_broker_log")

    with pytest.raises(SchemaMissing, match="restart"):
        scene.send(messages(1))


def test_what_prepare_makes_is_what_the_metadata_says(path: Path) -> None:
    SqliteBroker(str(path)).prepare()
    engine = create_engine(f"sqlite:///{path}")

    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), broker_tables()) == []

    engine.dispose()


def test_tables_that_a_migration_made_are_used(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    broker_tables().create_all(engine)
    engine.dispose()
    scene = scene_of(path)
    scene.register()

    scene.send(messages(3))

    assert ids(read(scene, 3)) == ids(messages(3))
    assert size_is_true(path)
    scene.close()


def test_the_database_of_another_is_left_as_it_is(path: Path) -> None:
    rows(path, "CREATE TABLE orders (id INTEGER)")

    with pytest.raises(SchemaMissing, match="yeondong db create"):
        SqliteBroker(str(path)).prepare()
    assert rows(path, "SELECT name FROM sqlite_schema") == [("orders",)]

    SqliteBroker(str(path), make=True).prepare()
    assert SqliteBroker(str(path)).check() == []


def test_a_file_with_the_stores_tables_gets_the_brokers(path: Path) -> None:
    rows(path, "CREATE TABLE yeondong_outbox (id INTEGER)")

    SqliteBroker(str(path)).prepare()

    assert SqliteBroker(str(path)).check() == []


def test_before_the_first_start_nobody_receives_and_looking_makes_nothing(path: Path) -> None:
    broker = SqliteBroker(str(path))
    for _ in ("no file", "the tables of others"):
        before = path.exists()
        assert (broker.groups(), broker.receivers(), broker.repeats("orders", "search", "start")) == ([], [], 0)
        assert path.exists() == before
        rows(path, "CREATE TABLE IF NOT EXISTS orders (id INTEGER)")

    assert rows(path, "SELECT name FROM sqlite_schema") == [("orders",)]


def test_create_names_what_it_made_and_check_what_is_missing(path: Path) -> None:
    broker = SqliteBroker(str(path))
    assert "missing or empty" in broker.check()[0]

    assert "yeondong_broker_log" in broker.create()
    assert broker.create() == []
    rows(path, "DROP TABLE yeondong_broker_groups")
    rows(path, "DROP INDEX yeondong_broker_log_channel")

    assert set(broker.check()) == {
        "table yeondong_broker_groups is missing",
        "index yeondong_broker_log_channel on yeondong_broker_log is missing",
    }
    assert broker.create() == ["yeondong_broker_groups", "yeondong_broker_log_channel"]


def test_the_printed_statements_make_the_same_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(";\n".join(SqliteBroker(str(path)).statements()))
        connection.commit()

    assert SqliteBroker(str(path)).check() == []


def test_several_threads_prepare_at_once(path: Path) -> None:
    errors: list[BaseException] = []

    def prepare() -> None:
        try:
            SqliteBroker(str(path)).prepare()
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert size_is_true(path)


def test_sending_is_on_disk_and_positions_do_not_wait_for_it(scene: Scene) -> None:
    scene.register()
    ends: list[Any] = [scene.sink(), scene.opened()]

    synchronous = [end._link.connection.execute("PRAGMA synchronous").fetchone()[0] for end in ends]

    assert synchronous == [2, 1]


def test_a_full_file_takes_nothing_and_loses_nothing(scene: Scene, path: Path) -> None:
    scene.register()
    file = sqlite_file(str(path))
    file.max_pages = 60
    sink, taken = scene.sink(), 0
    with pytest.raises(ConnectionLost, match="full"):  # noqa: PT012 - the last round of the loop is the one meant
        while True:
            sink.send([message(f"{taken}", data=KILOBYTE)], soon())
            taken += 1
    sink.close()
    file.max_pages = 10_000
    sink.open()
    sink.send([message("after")], soon())

    assert taken > 10
    assert ids(read(scene, taken + 1)) == [*map(str, range(taken)), "after"]
    assert size_is_true(path)


def test_a_deadline_that_passes_while_sending_takes_it_back(path: Path, clock: SetClock) -> None:
    scene = scene_of(path, clock=clock)
    scene.register()
    sink = scene.sink()

    with pytest.raises(ConnectionLost, match="deadline"):
        sink.send(messages(3), deadline=1.5)

    assert clock.seconds == 2  # it looked before it began, and again before it committed
    assert rows(path, "SELECT * FROM yeondong_broker_log") == []
    assert size_is_true(path)
    scene.close()


def test_reading_goes_on_while_somebody_writes(scene: Scene, path: Path) -> None:
    scene.register()
    scene.send(messages(2))
    source = scene.opened()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    assert ids(source.receive(10, 0)) == ids(messages(2))

    writer.close()


def test_progress_is_counted_from_the_index_alone(scene: Scene, path: Path) -> None:
    for statement, values in ((PROGRESS, ()), (LAG, ("orders", "search"))):
        plan = " ".join(row[-1] for row in rows(path, f"EXPLAIN QUERY PLAN {statement}", *values))
        assert "COVERING INDEX yeondong_broker_log_channel (channel=? AND rowid>?)" in plan
        assert "SCAN l" not in plan


# --- messages ---------------------------------------------------------------------------------------------------------


def test_no_headers_take_no_room(scene: Scene, path: Path) -> None:
    scene.register()
    scene.send([message("plain"), replace(message("with"), headers={"a": "b"})])

    assert rows(path, "SELECT headers FROM yeondong_broker_log") == [(None,), ('{"a":"b"}',)]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"key": 7}, "key is int"),
        ({"key": "\ud800"}, "key '\\ud800' cannot be written"),
        ({"type": None}, "type is NoneType"),
        ({"data": "text"}, "data is str"),
        ({"occurred_at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - what is refused
        ({"headers": {"a": 1}}, "header 'a' is int"),
        ({"headers": {"a": "\udfff"}}, "header 'a' '\\udfff' cannot"),
        ({"headers": {"a": "x" * (1 << 20)}}, "headers of 1048584 bytes"),
    ],
)
def test_what_can_never_be_stored_is_refused_with_its_reason(scene: Scene, broken: dict[str, Any], reason: str) -> None:
    scene.register()
    bad: Message = replace(message("bad"), **broken)

    refused = scene.send([message("before"), bad, message("after")])

    assert [one.message for one in refused] == [bad]
    assert reason in refused[0].reason
    assert ids(read(scene, 2)) == ["before", "after"]


@pytest.mark.parametrize(
    "change",
    ["kind = 'rumour'", "headers = '{'", 'headers = \'{"a": {"base65": ""}}\'', "occurred_at = 'yesterday'"],
)
def test_a_broken_row_is_delivered_with_its_flaw(scene: Scene, path: Path, change: str) -> None:
    scene.register()
    scene.send(messages(3))
    rows(path, f"UPDATE yeondong_broker_log SET {change} WHERE message_id = 'm1'")

    found = read(scene, 3)

    assert ids(found) == ids(messages(3))
    assert [delivery.flaw is None for delivery in found] == [True, False, True]
    assert "broken" in (found[1].flaw or "")


def test_large_messages_come_some_at_a_time(scene: Scene) -> None:
    scene.register()
    sent = [message(f"m{i}", data=bytes(1 << 20)) for i in range(20)]
    for one in sent:
        scene.send([one])
    source = scene.opened()

    first = source.receive(100, 0)

    assert len(first) == 8
    assert ids([*first, *scene.drain(source, 12)]) == ids(sent)


# --- retention --------------------------------------------------------------------------------------------------------


def test_what_is_old_goes_once_every_group_has_read_it(path: Path, clock: SetClock) -> None:
    scene = scene_of(path, clock=clock, retention=Retention(age=timedelta(days=7)))
    scene.register(receiver(group="search"), receiver(group="statistics"))
    scene.send(messages(5))
    read(scene, 5, group="search")
    read(scene, 5, settled=3, group="statistics")
    clock.at += timedelta(days=6)
    scene.send([message("young")])
    assert scene.broker.sweep() == 0

    clock.at += timedelta(days=2)

    assert scene.broker.sweep() == 3
    assert ids(read(scene, 3, group="statistics")) == ["m3", "m4", "young"]
    assert scene.broker.sweep() == 2
    clock.at += timedelta(days=8)
    assert scene.broker.sweep() == 0  # old as it is, the other group has not read it
    read(scene, 1, group="search")
    assert scene.broker.sweep() == 1
    assert size_is_true(path)
    scene.close()


def test_a_channel_without_groups_is_kept_for_its_age(path: Path, clock: SetClock) -> None:
    scene = scene_of(path, clock=clock, retention=Retention(age=timedelta(days=7)))
    for _ in range(3):
        scene.send(messages(1_000, channel="unheard"))
        clock.at += timedelta(days=3)

    assert scene.broker.sweep() == 1_000
    clock.at += timedelta(days=7)
    assert scene.broker.sweep() == 2_000
    assert size_is_true(path)
    scene.close()


def test_positions_are_not_given_again_after_everything_went(path: Path, clock: SetClock) -> None:
    scene = scene_of(path, clock=clock)
    scene.register()
    scene.send(messages(5))
    (*_, last) = read(scene, 5)
    clock.at += timedelta(days=8)
    assert scene.broker.sweep() == 5

    scene.register(receiver(group="statistics"), app="reports", since="now")
    scene.send([message("new")])

    (new,) = read(scene, 1, group="statistics")
    assert new.receipt > last.receipt
    assert ids(read(scene, 1)) == ["new"]
    scene.close()


def test_at_the_bound_what_is_read_goes_first_oldest_first(path: Path) -> None:
    scene = scene_of(path, retention=Retention(max_bytes=10_000))
    scene.register()
    scene.register(receiver(channel="refunds"), app="returns")
    for i in range(4):
        scene.send([message(f"orders{i}", data=KILOBYTE), message(f"refunds{i}", data=KILOBYTE, channel="refunds")])
    read(scene, 4)
    source = scene.opened(channel="refunds")
    source.settle(scene.drain(source, 4)[:1])

    for i in range(5):
        scene.send([message(f"new{i}", data=KILOBYTE)])

    left = [id for (id,) in rows(path, "SELECT message_id FROM yeondong_broker_log ORDER BY position")]
    assert left == ["refunds1", "refunds2", "orders3", "refunds3", "new0", "new1", "new2", "new3", "new4"]
    assert source.lag().waiting == 3
    assert size_is_true(path)
    scene.close()


def test_a_full_log_says_who_has_not_read_since_when_and_what_to_do(path: Path, clock: SetClock) -> None:
    scene = scene_of(path, clock=clock, retention=Retention(max_bytes=10_000))
    scene.register()
    sink = scene.sink()
    sink.send([message(f"m{i}", data=KILOBYTE) for i in range(8)], soon())
    clock.at += timedelta(hours=1)

    with pytest.raises(ConnectionLost) as full:
        sink.send([message("more", data=bytes(2_000))], soon())

    assert full.value.reason.startswith(
        "full: group 'search' of channel 'orders' has 8 messages unread since 2026-01-01 00:00:00 UTC"
    )
    assert "forget the group" in full.value.reason
    scene.broker.forget("orders", "search")
    sink.send([message("more", data=bytes(2_000))], soon())
    assert size_is_true(path)
    scene.close()


def test_what_made_room_in_vain_stays_deleted(path: Path) -> None:
    scene = scene_of(path, retention=Retention(max_bytes=10_000))
    scene.register()
    sink = scene.sink()
    sink.send([message(f"m{i}", data=KILOBYTE) for i in range(8)], soon())
    read(scene, 8, settled=2)

    with pytest.raises(ConnectionLost, match="full"):
        sink.send([message("more", data=bytes(9_000))], soon())

    assert rows(path, "SELECT count(*) FROM yeondong_broker_log") == [(6,)]
    assert size_is_true(path)
    scene.close()


def test_a_group_that_may_drop_never_blocks_and_what_it_lost_is_counted(path: Path) -> None:
    scene = scene_of(path, retention=Retention(max_bytes=10_000, may_drop=frozenset({"statistics"})))
    scene.register(receiver(group="search"), receiver(group="statistics"))
    sink, search, statistics = scene.sink(), scene.opened(), scene.opened(group="statistics")
    sent = [message(f"m{i}", data=KILOBYTE) for i in range(30)]
    lent: list[Delivery] = []
    for one in sent:
        sink.send([one], soon())
        found = scene.drain(search, 1)
        search.settle(found)
        if not lent:
            lent = scene.drain(statistics, 1)

    lag = scene.progress("statistics")
    assert lag.dropped + lag.waiting == 30
    assert lag.dropped >= 20
    assert scene.progress("search").dropped == 0
    left = scene.drain(statistics, lag.waiting)
    assert ids(left) == ids(sent[lag.dropped :])
    statistics.settle(lent)  # of the past: the position does not go back
    assert scene.progress("statistics").waiting == lag.waiting
    statistics.settle(left)
    assert (scene.progress("statistics").waiting, scene.progress("statistics").dropped) == (0, lag.dropped)
    assert size_is_true(path)
    scene.close()


def test_a_group_that_may_not_drop_still_blocks(path: Path) -> None:
    scene = scene_of(path, retention=Retention(max_bytes=10_000, may_drop=frozenset({"statistics"})))
    scene.register(receiver(group="search"), receiver(group="statistics"))
    sink = scene.sink()
    sink.send([message(f"m{i}", data=KILOBYTE) for i in range(8)], soon())

    with pytest.raises(ConnectionLost, match="full: group 'search'"):
        sink.send([message("more", data=bytes(5_000))], soon())

    assert [scene.progress(group).dropped for group in ("search", "statistics")] == [0, 0]
    scene.close()


def test_what_nobody_receives_makes_room(path: Path) -> None:
    scene = scene_of(path, retention=Retention(max_bytes=10_000))
    for i in range(50):
        scene.send([message(f"m{i}", data=KILOBYTE, channel="unheard")])

    assert rows(path, "SELECT message_id FROM yeondong_broker_log LIMIT 1") == [("m41",)]
    assert size_is_true(path)
    scene.close()


def test_a_sweep_obeys_a_bound_that_was_lowered(path: Path) -> None:
    scene = scene_of(path)
    scene.register()
    scene.send(messages(3_000))
    read(scene, 3_000, settled=2_500)

    lowered = SqliteBroker(str(path), retention=Retention(max_bytes=1_000))

    assert lowered.sweep() == 2_500
    assert lowered.sweep() == 0
    assert ids(read(scene, 500)) == ids(messages(3_000)[2_500:])
    assert size_is_true(path)
    scene.close()


def test_a_sender_that_has_much_to_delete_lets_others_write_in_between(path: Path) -> None:
    scene = scene_of(path)
    scene.send(messages(12_000))
    lowered = scene_of(path, retention=Retention(max_bytes=10_000))

    lowered.send([message("new")])

    assert rows(path, "SELECT max(position) - min(position) FROM yeondong_broker_log") < [(100,)]
    assert size_is_true(path)
    lowered.close()
    scene.close()


# --- fork -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(scene: Scene, path: Path) -> None:
    scene.register()
    sink, source = scene.sink(), scene.opened()
    sink.send([message("before")], soon())
    first = scene.drain(source, 1)

    child = os.fork()
    if child == 0:
        try:
            sink.send([message("child")], soon())
            arrived = ids(scene.drain(source, 1)) == ["child"]
            source.close()
            sink.close()
            os._exit(0 if arrived else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sink.send([message("parent")], soon())
    source.settle(first)
    assert ids(scene.drain(source, 2)) == ["child", "parent"]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert nothing_comes(source)


def backup(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target, timeout=20)) as other:
        one.backup(other)


def test_a_file_that_was_restored_under_a_group_ends_its_opening(path: Path, tmp_path: Path, scene: Scene) -> None:
    scene.register()
    scene.send(messages(10))
    source = scene.opened()
    lent = scene.drain(source, 10)
    source.settle(lent[:4])
    backup(path, tmp_path / "older.db")
    source.settle(lent[4:])
    backup(tmp_path / "older.db", path)

    with pytest.raises(ConnectionLost, match=r"position went back from 10 to 4: an older state of the file"):
        source.receive(10, 0)
    scene.send([message("newer")])
    assert ids(scene.drain(scene.opened(), 7))[-1] == "newer"


def test_a_log_that_ends_before_what_was_read_ends_the_opening(path: Path, tmp_path: Path, scene: Scene) -> None:
    scene.register()
    scene.send(messages(4))
    source = scene.opened()
    source.settle(scene.drain(source, 4))
    backup(path, tmp_path / "older.db")
    scene.send([message("lost")])
    assert ids(scene.drain(source, 1)) == ["lost"]
    backup(tmp_path / "older.db", path)

    with pytest.raises(ConnectionLost, match="the log ends at 4, and was read up to 5"):
        source.receive(10, 0)
    scene.send([message("new")])
    assert ids(scene.drain(scene.opened(), 1)) == ["new"]


def test_a_position_that_went_back_is_not_moved_forward(path: Path, tmp_path: Path, scene: Scene) -> None:
    scene.register()
    scene.send(messages(10))
    source = scene.opened()
    lent = scene.drain(source, 10)
    source.settle(lent[:4])
    backup(path, tmp_path / "older.db")
    source.settle(lent[4:8])
    backup(tmp_path / "older.db", path)

    with pytest.raises(ConnectionLost, match="position went back from 8 to 4"):
        source.settle(lent[8:])
    assert scene.progress().waiting == 6
