"""What callers pass as their transaction, and how messages are inserted into it."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import psycopg
import sqlalchemy
from psycopg.pq import TransactionStatus
from sqlalchemy.exc import PendingRollbackError, ResourceClosedError, SQLAlchemyError, UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session

from yeondong.connections.postgresql import SYSTEM, Server, lost
from yeondong.core.message import Message
from yeondong.errors import (
    ClosedConnection,
    ConnectionLost,
    ForeignConnection,
    MessageRefused,
    NotInTransaction,
    TransactionError,
)
from yeondong.stores.postgresql.link import Place
from yeondong.stores.postgresql.rows import COLUMNS, columns, partition_of
from yeondong.stores.postgresql.transaction import PostgresqlTransaction

TAKEN: Final = "a psycopg connection or cursor, or a SQLAlchemy connection or session over psycopg"
TAKEN_ASYNC: Final = "a psycopg AsyncConnection or AsyncCursor"

ADD: Final = f"""
INSERT INTO yeondong_outbox ({COLUMNS}, partition) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

# One statement for many: twice as fast as one for each, also where those need not wait for each other.
ADD_MANY: Final = f"""
INSERT INTO yeondong_outbox ({COLUMNS}, partition)
SELECT a, b, c, d, e, f, g, h, i, j
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::text[],
  %b::timestamptz[], %b::int[]) WITH ORDINALITY AS rows(a, b, c, d, e, f, g, h, i, j, number)
ORDER BY number
"""
MANY: Final = 4

# SQLAlchemy's own asynchronous classes exist only where greenlet is installed.
ALCHEMY_ASYNC: Final = "sqlalchemy.ext.asyncio"
WITHIN_ALCHEMY: Final = "(await (await session.connection()).get_raw_connection()).driver_connection"
ASYNC: Final = (psycopg.AsyncConnection, psycopg.AsyncCursor)
SYNC: Final = (
    PostgresqlTransaction,
    psycopg.Connection,
    psycopg.Cursor,
    sqlalchemy.Connection,
    Session,
    scoped_session,
)

# The same table, whatever names lead to it: a pooler in between, another name of the host, a search path.
SAME: Final = "SELECT (SELECT system_identifier FROM pg_control_system()), to_regclass(%s)::oid::bigint"

_NAMED_SAME_ID: Final = "yeondong_outbox_message"


def add(tx: Any, place: Place, messages: Sequence[Message]) -> psycopg.Connection[Any]:
    """Insert into the outbox, in the caller's own transaction; return its connection. Raises ``TransactionError``."""
    if isinstance(tx, PostgresqlTransaction):
        if tx.ended:
            raise NotInTransaction("the transaction is over; add within the handler that it was given to")
        connection: psycopg.Connection[Any] = tx.connection
        is_ours = True
    else:
        connection = _connection_in(tx, place)
        is_ours = _is_ready(connection, place.server)
    try:
        cursor = psycopg.Cursor(connection)
        if not is_ours and cursor.execute(SAME, _outbox_of(place)).fetchone() != _identity(place):
            _refuse_other(connection, place)
        if len(messages) < MANY:
            for message in messages:
                cursor.execute(place.sql(ADD), _values(message))
        else:
            cursor.execute(place.sql(ADD_MANY), _lists(messages))
    except psycopg.Error as error:
        raise _translated(error, place) from error
    return connection


async def add_async(tx: Any, place: Place, messages: Sequence[Message]) -> psycopg.AsyncConnection[Any]:
    """Insert into the outbox, in the caller's own transaction; return its connection. Raises ``TransactionError``."""
    connection = _async_connection_in(tx, place)
    try:
        cursor = psycopg.AsyncCursor(connection)
        if not _is_ready(connection, place.server):
            await cursor.execute(SAME, _outbox_of(place))
            if await cursor.fetchone() != _identity(place):
                _refuse_other(connection, place)
        if len(messages) < MANY:
            for message in messages:
                await cursor.execute(place.sql(ADD), _values(message))
        else:
            await cursor.execute(place.sql(ADD_MANY), _lists(messages))
    except psycopg.Error as error:
        raise _translated(error, place) from error
    return connection


def _values(message: Message) -> tuple[Any, ...]:
    return (*columns(message), partition_of(message))


def _lists(messages: Sequence[Message]) -> list[list[Any]]:
    return [list(values) for values in zip(*map(_values, messages), strict=True)]


# --- whose connection -------------------------------------------------------------------------------------------------


def _connection_in(tx: Any, place: Place) -> psycopg.Connection[Any]:
    """Return the connection whose transaction the caller will commit."""
    match tx:
        case psycopg.Connection():
            return tx
        case psycopg.Cursor():
            return tx.connection
        case sqlalchemy.Connection():
            found = _of_alchemy(tx, place)
        case scoped_session():
            found = _of_session(tx(), place)
        case Session():
            found = _of_session(tx, place)
        case _:
            _refuse(tx, place)
    if not isinstance(found, psycopg.Connection):
        _refuse_driver(found, place)
    return found


def _refuse(tx: Any, place: Place) -> NoReturn:
    if isinstance(tx, sqlalchemy.Engine):
        raise NotInTransaction(
            "an engine is no transaction; pass the connection of `with engine.begin() as connection`"
        )
    if isinstance(tx, ASYNC) or _named(tx).startswith(ALCHEMY_ASYNC):
        raise ForeignConnection(
            f"add takes a synchronous transaction, not {_named(tx)}; write `await outbox.add_async(tx, …)`"
        )
    raise ForeignConnection(f"{_named(tx)} cannot write to the store {_store(place)}; pass {TAKEN}")


def _async_connection_in(tx: Any, place: Place) -> psycopg.AsyncConnection[Any]:
    if isinstance(tx, psycopg.AsyncConnection):
        return tx
    if isinstance(tx, psycopg.AsyncCursor):
        return tx.connection
    if isinstance(tx, SYNC):
        raise ForeignConnection(f"add_async takes an asynchronous transaction, not {_named(tx)}; write outbox.add")
    if _named(tx).startswith(ALCHEMY_ASYNC):
        raise ForeignConnection(
            f"add_async takes psycopg's connection, not {_named(tx)}; pass the one that it works on, whose transaction "
            f"it commits: {WITHIN_ALCHEMY}"
        )
    raise ForeignConnection(f"{_named(tx)} cannot write to the store {_store(place)}; pass {TAKEN_ASYNC}")


def _of_alchemy(connection: sqlalchemy.Connection, place: Place) -> Any:
    if connection.closed:
        raise ClosedConnection("the connection is closed; add within the transaction, before you close it")
    if connection.dialect.name != "postgresql":
        raise ForeignConnection(
            f"the connection is to {connection.dialect.name}, the store is {_store(place)}; "
            "a message can share a transaction only within one database"
        )
    begun = None if connection.in_transaction() else connection.begin()
    driver = connection.connection.driver_connection
    if isinstance(driver, psycopg.Connection):
        try:
            _is_ready(driver, place.server)
        except TransactionError:
            if begun is not None:
                begun.rollback()
            raise
    elif begun is not None:
        begun.rollback()
    return driver


def _of_session(session: Session, place: Place) -> Any:
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
    return _of_alchemy(connection, place)


# --- in which state ---------------------------------------------------------------------------------------------------


def _is_ready(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], server: Server) -> bool:
    """Whether the connection leads to the store for sure; if not, the database is to be asked.

    Raises ``TransactionError`` where a message could not share the fate of a change.
    """
    if connection.closed:
        raise ClosedConnection("the connection is closed; add within the transaction, before you close it")
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.INERROR:
        raise NotInTransaction(
            "the transaction has failed already: a statement before this raised an error, and PostgreSQL takes no more "
            "until you roll back"
        )
    # In pipeline mode the state is told late, so that a block of `connection.transaction()` may not show in it yet.
    in_block = getattr(connection, "_num_transactions", 0) > 0
    if status == TransactionStatus.IDLE and connection.autocommit and not in_block:
        raise NotInTransaction(
            "this connection commits each statement by itself, so the message would not share the fate of your "
            "change; add within `with connection.transaction():`, or open the connection without autocommit=True"
        )
    info = connection.info
    return f"{info.host}:{info.port}/{info.dbname}" == server.address


def _outbox_of(place: Place) -> tuple[str]:
    return ('"' + place.schema.replace('"', '""') + '".yeondong_outbox',)


def _identity(place: Place) -> tuple[Any, ...] | None:
    """Return what ``SAME`` says in the store itself."""
    with place.server.connect() as connection:
        return connection.execute(SAME, _outbox_of(place)).fetchone()


def _refuse_other(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], place: Place) -> NoReturn:
    info = connection.info
    raise ForeignConnection(
        f"the connection is to {info.host}:{info.port}/{info.dbname}, the store is {_store(place)}; "
        "a message can share a transaction only within one database"
    )


def _refuse_driver(driver: Any, place: Place) -> NoReturn:
    raise ForeignConnection(
        f"the driver of this connection is {_named(driver)}, and the store {_store(place)} is written to with psycopg: "
        "create the engine with postgresql+psycopg://…"
    )


def _translated(error: psycopg.Error, place: Place) -> Exception:
    reason = lost(error)
    if reason is not None:
        return ConnectionLost(SYSTEM, place.server.address, reason)
    if isinstance(error, psycopg.errors.InFailedSqlTransaction):
        return NotInTransaction(f"the transaction has failed already ({error}); roll it back")
    if isinstance(error, psycopg.errors.UniqueViolation) and error.diag.constraint_name == _NAMED_SAME_ID:
        return MessageRefused(
            f"the outbox has a message of this id already ({error.diag.message_detail}); give each its own, and roll "
            "this transaction back"
        )
    translated = place.server.translated(error)
    # A lock or a conflict is the caller's own, whose transaction has to be run again.
    return error if isinstance(translated, ConnectionLost) else translated


def _store(place: Place) -> str:
    return f"{place.server.address} (PostgreSQL)"


def _named(tx: Any) -> str:
    return f"{type(tx).__module__}.{type(tx).__qualname__}"
