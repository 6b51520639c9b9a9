"""How a relay on PostgreSQL learns of commits: in its own process, by NOTIFY, or by looking."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite.scene import message

PATIENCE_SECONDS = 20.0
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


class Woken:
    """Counts wakes, and waits for the next one."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.times = 0

    def __call__(self) -> None:
        self.times += 1
        self._event.set()

    def expect(self) -> None:
        assert self._event.wait(PATIENCE_SECONDS), "nobody woke us"
        self._event.clear()

    def stays_asleep(self) -> bool:
        return not self._event.wait(0.2)


@pytest.fixture
def watched(database: str) -> Iterator[Callable[[PostgresqlStore], Woken]]:
    PostgresqlStore(database).create()
    ends: list[Callable[[], None]] = []

    def watch(store: PostgresqlStore) -> Woken:
        woken = Woken()
        ends.append(store.watch(woken))
        return woken

    yield watch
    for end in ends:
        end()
        end()


def listeners(database: str, count: int) -> list[int]:
    """Wait until so many listen; return their processes."""
    pause = threading.Event()
    found: list[int] = []
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2_000):
            found = [pid for (pid,) in connection.execute(LISTENERS)]
            if len(found) == count:
                return found
            pause.wait(0.01)
    pytest.fail(f"{found} listen, and not {count}")


def test_a_commit_in_the_same_process_wakes_and_what_is_open_or_undone_does_not(
    database: str, watched: Callable[[PostgresqlStore], Woken]
) -> None:
    store = PostgresqlStore(database)
    woken = watched(store)
    with psycopg.connect(database) as connection:
        store.add(connection, [message("m1")])
        assert woken.stays_asleep()
        connection.commit()
        woken.expect()
    tx = store.connect().begin("handler", together=True)
    store.add(tx, [message("m2")])
    assert woken.stays_asleep()
    tx.commit()
    woken.expect()

    async def later() -> None:
        async with await psycopg.AsyncConnection.connect(database) as other:
            await store.add_async(other, [message("m3")])

    asyncio.run(later())
    woken.expect()


def test_another_process_is_woken_by_notify_once_for_many_commits(
    database: str, watched: Callable[[PostgresqlStore], Woken]
) -> None:
    woken = watched(PostgresqlStore(database, notify=True))
    listeners(database, 1)
    store = PostgresqlStore(database, notify=True)
    woken.expect()
    with psycopg.connect(database) as connection:
        for number in range(300):
            store.add(connection, [message(f"m{number}")])
            connection.commit()
    woken.expect()

    assert woken.times < 300


def test_notify_in_another_schema_wakes_nobody(database: str, watched: Callable[[PostgresqlStore], Woken]) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        elsewhere = PostgresqlStore(database, schema="other", notify=True)
        elsewhere.create()
        woken = watched(PostgresqlStore(database, notify=True))
        listeners(database, 1)
        woken.expect()
        with connection.transaction():
            elsewhere.add(connection, [message("m1")])
        assert woken.stays_asleep()


def test_a_lost_listener_comes_back(database: str, watched: Callable[[PostgresqlStore], Woken]) -> None:
    woken = watched(PostgresqlStore(database, notify=True))
    (pid,) = listeners(database, 1)
    woken.expect()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        listeners(database, 0)
        assert listeners(database, 1) != [pid]
        woken.expect()  # for what was committed while nobody listened
        store = PostgresqlStore(database, notify=True)
        with connection.transaction():
            store.add(connection, [message("m1")])
        woken.expect()


def test_behind_a_pooler_of_transactions_it_says_that_it_cannot_listen(
    database: str, pooled: str, watched: Callable[[PostgresqlStore], Woken], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "yeondong.postgresql")
    woken = watched(PostgresqlStore(pooled, notify=True))

    pause = threading.Event()
    for _ in range(2_000):
        if "cannot_listen" in caplog.text:
            break
        pause.wait(0.01)
    assert "a pooler of transactions is in between" in caplog.text
    assert woken.times == 0
    assert listeners(database, 0) == []
