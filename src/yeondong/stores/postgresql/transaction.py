"""The transaction that handlers write in."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Executable

from yeondong.connections.postgresql import SYSTEM, lost
from yeondong.connections.postgresql_text import positional
from yeondong.errors import ConnectionLost, StoreError
from yeondong.stores.postgresql.link import Link
from yeondong.stores.postgresql.riding import riding

_OPEN: Final = frozenset({TransactionStatus.ACTIVE, TransactionStatus.INTRANS, TransactionStatus.INERROR})


class PostgresqlTransaction:
    """One transaction on a borrowed connection.

    ``together`` runs it in pipeline mode: a statement goes off without waiting for the one before it, and its error is
    met later, at the latest by the commit. Rows are read as ever, at the price of a wait.
    """

    def __init__(self, link: Link, *, together: bool = False) -> None:
        self._link = link
        self._connection = link.pool.borrow()
        self.connection: Any = self._connection
        self._ended = False
        self._away: ConnectionLost | None = None
        self._cut_short = False
        self._pipeline = self._connection.pipeline() if together and psycopg.Pipeline.is_supported() else None
        try:
            if self._pipeline is not None:
                self._pipeline.__enter__()
            self._connection.execute(b"BEGIN")
            self._connection.guarded = True
        except psycopg.Error as error:
            self._fail(error)

    @property
    def ended(self) -> bool:
        """Whether it was committed or rolled back."""
        return self._ended

    def cut_short(self) -> bool:
        """Whether one of its statements failed, or its connection did; also told afterwards."""
        return self._cut_short or self._is_cut_short()

    def execute(self, statement: Any, values: Any = None) -> Iterable[Any]:
        # It would go into the next handler's transaction, or be committed at once.
        if self._ended:
            raise self._away or StoreError("the transaction is over: use it only within the handler")
        try:
            if isinstance(statement, Executable):
                return self._execute_alchemy(statement, values)
            text, names = positional(statement)
            if _is_many(values):
                with self._connection.cursor() as cursor:
                    cursor.executemany(text, [_arguments(names, each) for each in values])
                return ()
            return self._connection.execute(text, _arguments(names, values) if names else None)
        except (psycopg.Error, DBAPIError) as error:
            reason = lost(error)
            if reason is None:
                raise
            self._away = ConnectionLost(SYSTEM, self._link.address, reason)
            raise self._away from error

    def current(self) -> bool:
        # The guard lets nobody end it, so only the connection may be gone; the server is not asked, once per message.
        return not self._ended and self._connection.pgconn.status == ConnStatus.OK and self._is_open()

    def commit(self) -> None:
        if not self.current():
            self.rollback()
            raise StoreError(
                "the transaction that was begun is over; leave commit and rollback to yeondong, which stores what was "
                "handled with what was done"
            )
        self._connection.guarded = False
        try:
            committing = self._connection.execute(b"COMMIT")
            self._leave_pipeline()
        except psycopg.Error as error:
            self._fail(error)
        tag = committing.statusmessage
        self._end()
        if tag != "COMMIT":
            raise StoreError(
                "PostgreSQL rolled the transaction back at its commit, because one of its statements had failed and "
                "the handler caught the error: run what may fail within `with tx.connection.transaction():`, a "
                "savepoint, or let the error pass"
            )

    def rollback(self) -> None:
        if self._ended:
            return
        self._cut_short = self._is_cut_short()
        self._connection.guarded = False
        with contextlib.suppress(psycopg.Error):
            self._leave_pipeline()
        try:
            if self._connection.pgconn.transaction_status in _OPEN:
                self._connection.execute(b"ROLLBACK")
        except psycopg.Error:
            self._cut_short = True  # what the handler met elsewhere was the same outage
        self._end()

    def _fail(self, error: psycopg.Error) -> NoReturn:
        self.rollback()
        reason = lost(error)
        if reason is None:
            raise error
        raise ConnectionLost(SYSTEM, self._link.address, reason) from error

    def _leave_pipeline(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.__exit__(None, None, None)

    def _is_open(self) -> bool:
        # In pipeline mode psycopg learns the state only now and then.
        return self._pipeline is not None or self._connection.pgconn.transaction_status in _OPEN

    def _is_cut_short(self) -> bool:
        if self._ended:
            return False
        state = self._connection.pgconn
        return (
            state.status != ConnStatus.OK
            or state.pipeline_status == PipelineStatus.ABORTED
            or state.transaction_status in (TransactionStatus.INERROR, TransactionStatus.UNKNOWN)
        )

    def _end(self) -> None:
        self._ended = True
        self._connection.guarded = False
        self._link.pool.give_back(self._connection)

    def _execute_alchemy(self, statement: Executable, values: Any) -> Iterable[Any]:
        connection = riding(self._connection)
        if values is None:
            result = connection.execute(statement)
        elif _is_many(values):
            if not values:
                return ()  # SQLAlchemy would insert one row of defaults
            result = connection.execute(statement, [_fields_of(each) for each in values])
        else:
            result = connection.execute(statement, _fields_of(values))
        return result.all() if result.returns_rows else ()


def _arguments(names: Sequence[str], values: Any) -> list[Any]:
    """Return the values of these names, from a mapping or from an object's fields."""
    try:
        if isinstance(values, Mapping):
            return [_plain(values[name]) for name in names]
        return [_plain(getattr(values, name)) for name in names]
    except (KeyError, AttributeError) as error:
        wanted = ", ".join(f":{name}" for name in dict.fromkeys(names))
        raise LookupError(f"the statement asks for {wanted}, and the values have no {error.args[0]!r}") from error


def _plain(value: Any) -> Any:
    # psycopg would write an enum's name, where every other store writes its value.
    return value.value if isinstance(value, enum.Enum) else value


def _is_many(values: Any) -> bool:
    if isinstance(values, Mapping | str | bytes) or hasattr(values, "_fields"):
        return False
    return isinstance(values, Sequence)


def _fields_of(values: Any) -> Mapping[str, Any]:
    if isinstance(values, Mapping):
        return values
    names = getattr(values, "__struct_fields__", None) or getattr(values, "_fields", None)
    if names is None:
        names = getattr(values, "__slots__", None) if not hasattr(values, "__dict__") else vars(values)
    return {name: getattr(values, name) for name in names or ()}
