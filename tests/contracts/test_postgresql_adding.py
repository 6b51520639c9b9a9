"""Whose transaction a message may share on PostgreSQL, and what is said of all the others."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from yeondong.errors import (
    ClosedConnection,
    ForeignConnection,
    MessageRefused,
    NotInTransaction,
    SchemaMissing,
)
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite.scene import BARE, RICH, message


@pytest.fixture
def store(database: str) -> PostgresqlStore:
    store = PostgresqlStore(database)
    store.create()
    return store


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as connection:
        yield connection


@pytest.fixture
def engine(database: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(over_psycopg(database))
    yield engine
    engine.dispose()


def over_psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def stored(database: str) -> list[str]:
    with psycopg.connect(database) as other:
        return [id for (id,) in other.execute("SELECT message_id FROM yeondong_outbox ORDER BY id")]


def run(work: Callable[[], Any]) -> Any:
    return asyncio.run(work())


# --- shared -----------------------------------------------------------------------------------------------------------


def test_a_message_shares_the_fate_of_a_psycopg_transaction(
    store: PostgresqlStore, connection: psycopg.Connection[Any], database: str
) -> None:
    store.add(connection, [message("undone")])
    connection.rollback()
    store.add(connection, [message("m1")])
    store.add(connection.cursor(row_factory=psycopg.rows.dict_row), [message("m2")])
    assert stored(database) == []
    connection.commit()

    assert stored(database) == ["m1", "m2"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 500])
def test_many_keep_their_order_and_what_they_are(
    store: PostgresqlStore, connection: psycopg.Connection[Any], database: str, count: int
) -> None:
    many = [RICH, BARE, *(message(f"m{number}") for number in range(498))][:count]
    store.add(connection, many)
    connection.commit()

    found = [each.message for each in store.connect().outbox.waiting(1_000, ())]
    assert found == many


def test_nothing_is_added_of_nothing(store: PostgresqlStore, connection: psycopg.Connection[Any]) -> None:
    store.add(connection, [])

    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_block_of_an_autocommit_connection_is_a_transaction(store: PostgresqlStore, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with connection.transaction():
            store.add(connection, [message("m1")])
        with connection.transaction(force_rollback=True):
            store.add(connection, [message("undone")])
        connection.execute("BEGIN")
        store.add(connection, [message("m2")])
        connection.execute("COMMIT")
        with connection.pipeline(), connection.transaction():
            store.add(connection, [message("m3")])

    assert stored(database) == ["m1", "m2", "m3"]


def test_a_savepoint_takes_back_what_was_added_within(
    store: PostgresqlStore, connection: psycopg.Connection[Any], database: str
) -> None:
    store.add(connection, [message("m1")])
    with connection.transaction(force_rollback=True):
        store.add(connection, [message("undone")])
    connection.commit()

    assert stored(database) == ["m1"]


def test_sqlalchemy_connections_and_sessions_share(
    store: PostgresqlStore, engine: sqlalchemy.Engine, database: str
) -> None:
    with engine.begin() as connection:
        store.add(connection, [message("m1")])
    with engine.connect() as connection:
        store.add(connection, [message("undone")])
    with Session(engine) as session:
        store.add(session, [message("m2")])
        session.commit()
        store.add(session, [message("undone")])
    scoped = scoped_session(sessionmaker(engine))
    store.add(scoped, [message("m3")])
    scoped.commit()
    scoped.remove()

    assert stored(database) == ["m1", "m2", "m3"]


def test_any_search_path_role_and_host_name_will_do(store: PostgresqlStore, database: str) -> None:
    by_name = database.replace("127.0.0.1", "localhost")
    assert by_name != database
    with psycopg.connect(by_name, options="-c search_path=pg_catalog") as connection:
        store.add(connection, [message("m1")])

    assert stored(database) == ["m1"]


# --- awaited ----------------------------------------------------------------------------------------------------------


def test_a_message_shares_the_fate_of_an_asynchronous_transaction(store: PostgresqlStore, database: str) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await store.add_async(connection, [message("undone")])
            await connection.rollback()
            await store.add_async(connection, [message("m1")])
            await store.add_async(connection.cursor(), [message(f"m{number}") for number in range(2, 9)])
            await connection.commit()

    run(work)

    assert stored(database) == [f"m{number}" for number in range(1, 9)]


def test_the_wrong_kind_of_transaction_is_told_the_other_verb(
    store: PostgresqlStore, connection: psycopg.Connection[Any], engine: sqlalchemy.Engine, database: str
) -> None:
    async def work() -> None:
        other = await psycopg.AsyncConnection.connect(database)
        alchemy = type("AsyncSession", (), {"__module__": "sqlalchemy.ext.asyncio.session"})()
        with pytest.raises(ForeignConnection, match=r"pass the one that it works on.*driver_connection"):
            await store.add_async(alchemy, [message("m1")])
        for tx in (other, other.cursor(), alchemy):
            with pytest.raises(ForeignConnection, match=r"await outbox\.add_async"):
                store.add(tx, [message("m1")])
        for sync in (connection, connection.cursor(), Session(engine)):
            with pytest.raises(ForeignConnection, match=r"write outbox\.add"):
                await store.add_async(sync, [message("m1")])
        with pytest.raises(ForeignConnection, match=r"builtins\.int"):
            await store.add_async(1, [message("m1")])
        await other.set_autocommit(True)
        with pytest.raises(NotInTransaction, match="commits each statement by itself"):
            await store.add_async(other, [message("m1")])
        await other.close()
        with pytest.raises(ClosedConnection):
            await store.add_async(other, [message("m1")])

    run(work)
    assert stored(database) == []


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_connection_that_commits_by_itself_is_refused(
    store: PostgresqlStore, engine: sqlalchemy.Engine, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(NotInTransaction, match="commits each statement by itself"):
            store.add(connection, [message("m1")])
        with connection.pipeline(), pytest.raises(NotInTransaction, match="commits each statement by itself"):
            store.add(connection, [message("m1")])
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    with automatic.connect() as alchemy, pytest.raises(NotInTransaction, match="commits each statement by itself"):
        store.add(alchemy, [message("m1")])
    with Session(automatic) as session, pytest.raises(NotInTransaction, match="commits each statement by itself"):
        store.add(session, [message("m1")])
    with pytest.raises(NotInTransaction, match=r"engine\.begin"):
        store.add(engine, [message("m1")])
    assert stored(database) == []


def test_a_transaction_that_has_failed_is_refused(
    store: PostgresqlStore, connection: psycopg.Connection[Any], engine: sqlalchemy.Engine
) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    with pytest.raises(NotInTransaction, match="has failed already"):
        store.add(connection, [message("m1")])
    with Session(engine) as session:
        with pytest.raises(sqlalchemy.exc.DataError):
            session.execute(sqlalchemy.text("SELECT 1 / 0"))
        with pytest.raises(NotInTransaction, match="has failed already"):
            store.add(session, [message("m1")])
        session.rollback()
        store.add(session, [message("m1")])


def test_what_is_closed_is_refused(store: PostgresqlStore, engine: sqlalchemy.Engine, database: str) -> None:
    connection = psycopg.connect(database)
    connection.close()
    alchemy = engine.connect()
    alchemy.close()
    for closed in (connection, alchemy):
        with pytest.raises(ClosedConnection, match="closed"):
            store.add(closed, [message("m1")])


def test_another_database_driver_or_object_is_refused(
    store: PostgresqlStore, new_database: Callable[[], str], database: str
) -> None:
    elsewhere = new_database()
    with psycopg.connect(elsewhere) as connection, pytest.raises(ForeignConnection, match="only within one database"):
        store.add(connection, [message("m1")])
    PostgresqlStore(elsewhere).create()
    with psycopg.connect(elsewhere) as connection, pytest.raises(ForeignConnection, match=elsewhere.rpartition("/")[2]):
        store.add(connection, [message("m1")])
    with sqlalchemy.create_engine("sqlite://").connect() as other, pytest.raises(ForeignConnection, match="to sqlite"):
        store.add(other, [message("m1")])
    for wrong in (sqlite3.connect(":memory:"), 1, None):
        with pytest.raises(ForeignConnection, match="pass a psycopg connection"):
            store.add(wrong, [message("m1")])
    assert stored(database) == []


def test_a_second_message_of_an_id_is_refused(
    store: PostgresqlStore, connection: psycopg.Connection[Any], database: str
) -> None:
    store.add(connection, [message("m1")])
    connection.commit()
    with pytest.raises(MessageRefused, match="a message of this id already"):
        store.add(connection, [message("m1")])
    connection.rollback()
    with pytest.raises(MessageRefused, match="a message of this id already"):
        store.add(connection, [message(f"n{number % 5}") for number in range(8)])
    connection.rollback()

    assert stored(database) == ["m1"]


def test_missing_tables_are_named(database: str, connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(SchemaMissing, match="yeondong db create"):
        PostgresqlStore(database).add(connection, [message("m1")])
