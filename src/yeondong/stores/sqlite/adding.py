"""What callers pass as their transaction, and the sqlite3 connection that is in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.exc import PendingRollbackError, ResourceClosedError, SQLAlchemyError, UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session

from yeondong.errors import ClosedConnection, ForeignConnection, NotInTransaction, TransactionError
from yeondong.stores.sqlite.transaction import SqliteTransaction

TAKEN = "a sqlite3 connection or cursor, or a SQLAlchemy connection or session"


def connection_in(tx: Any, path: str) -> sqlite3.Connection:
    """Return the sqlite3 connection whose transaction the caller will commit. Raises ``TransactionError``."""
    connection: sqlite3.Connection
    match tx:
        case SqliteTransaction():
            if tx.ended:
                raise NotInTransaction("the transaction is over; add within the handler that it was given to")
            connection = tx.connection
        case sqlite3.Connection():
            connection = tx
        case sqlite3.Cursor():
            connection = tx.connection
        case sqlalchemy.Connection():
            connection = _of_connection(tx, path)
        case scoped_session():
            connection = _of_session(tx(), path)
        case Session():
            connection = _of_session(tx, path)
        case sqlalchemy.Engine():
            raise NotInTransaction(
                "an engine is no transaction; pass the connection of `with engine.begin() as connection`"
            )
        case _ if type(tx).__module__.split(".")[0] == "aiosqlite" or _named(tx).startswith("sqlalchemy.ext.asyncio"):
            raise ForeignConnection(
                f"add takes a synchronous transaction, not {_named(tx)}, and so does add_async on SQLite"
            )
        case _:
            raise ForeignConnection(
                f"{_named(tx)} cannot write to the store {path} (SQLite); pass {TAKEN} to that file"
            )
    _check(connection, path)
    return connection


def _check(connection: sqlite3.Connection, path: str) -> None:
    try:
        begun = connection.in_transaction
        if not begun and (connection.isolation_level is None or getattr(connection, "autocommit", None) is True):
            raise NotInTransaction(
                "this connection commits each statement by itself, so the message would not share the fate of your "
                "change; run BEGIN first, or open the connection without isolation_level=None or autocommit=True"
            )
        databases = connection.execute("PRAGMA database_list").fetchall()
    except sqlite3.ProgrammingError as error:
        if "closed" not in str(error):
            raise
        raise ClosedConnection("the connection is closed; add within the transaction, before you close it") from error
    main = next((row[2] for row in databases if row[1] == "main"), "")
    if main != path and not _same(main, path):
        raise ForeignConnection(
            f"the connection is open on {main or 'a database in memory'}, the store is {path}; "
            "a message can share a transaction only within one file"
        )


def _of_connection(connection: sqlalchemy.Connection, path: str) -> sqlite3.Connection:
    if connection.closed:
        raise ClosedConnection("the connection is closed; add within the transaction, before you close it")
    if connection.dialect.name != "sqlite":
        raise ForeignConnection(
            f"the connection is to {connection.dialect.name}, the store is {path} (SQLite); "
            "a message can share a transaction only within one database"
        )
    begun = None if connection.in_transaction() else connection.begin()
    try:
        driver = connection.connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            raise ForeignConnection(f"{_named(driver)} cannot write to the store {path}; pass {TAKEN} to that file")
        _check(driver, path)
    except TransactionError:
        if begun is not None:
            begun.rollback()
        raise
    return driver


def _of_session(session: Session, path: str) -> sqlite3.Connection:
    try:
        connection = session.connection()
    except UnboundExecutionError as error:
        raise ForeignConnection(
            "the session has no single database to write to; pass the connection that you mean: "
            "session.connection(bind_arguments={...})"
        ) from error
    except (ResourceClosedError, PendingRollbackError) as error:
        raise ClosedConnection(f"the session's transaction is over ({error}); roll the session back first") from error
    except SQLAlchemyError as error:
        raise TransactionError(f"the session gives no connection: {error}") from error
    return _of_connection(connection, path)


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def _named(tx: Any) -> str:
    return f"{type(tx).__module__}.{type(tx).__qualname__}"
