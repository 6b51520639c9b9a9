"""The transaction that handlers write in."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Executable

from yeondong.connections.sqlite import COMMIT, ROLLBACK, lost, primary_code, refusal
from yeondong.errors import StoreError
from yeondong.stores.sqlite.link import Link

# What rolls a transaction back ends every savepoint, so this one tells whether it is still the one begun, also when
# another has been begun since: nobody else can commit or roll back, but a failed INSERT OR ROLLBACK does.
MARK = "SAVEPOINT yeondong_begun"
UNMARK = "RELEASE yeondong_begun"

# The driver's own, once or more for each message: what ours adds, to explain a refusal, is done here.
_execute = sqlite3.Connection.execute


class SqliteTransaction:
    """One transaction on a session's connection, holding the file's writer lock from begin to end.

    What it commits survives a power cut: the source forgets the message then.
    """

    def __init__(self, link: Link, holder: str) -> None:
        self._link = link
        self._connection = link.synchronous(durable=True)
        self.connection: Any = self._connection
        self._file = link.file
        self._file.acquire(holder)
        self._ended = False
        self._broken = False
        self._away: Exception | None = None
        self._cut_short = False
        try:
            self._file.begin(self._connection)
            self._connection.execute(MARK)
            self._connection.guard.on = True
        except sqlite3.Error as error:
            self._broken = lost(error) is not None
            self._end()
            self._file.raise_outage(error)
            raise

    @property
    def ended(self) -> bool:
        """Whether it was committed or rolled back."""
        return self._ended

    def cut_short(self) -> bool:
        """Whether SQLite broke it off, as it does where it can no longer write to the file; also told afterwards."""
        return self._broken or self._cut_short or not (self._ended or self._connection.in_transaction)

    def execute(self, statement: Any, values: Any = None) -> Iterable[Any]:
        # It would go into the next handler's transaction, or be committed at once.
        if self._ended or not self._connection.in_transaction:
            raise self._away or StoreError(
                "the transaction is over: use it only within the handler, and not after a statement has rolled it back"
            )
        try:
            if isinstance(statement, Executable):
                return self._execute_alchemy(statement, values)
            if values is None:
                return _execute(self._connection, statement)
            if _is_many(values):
                return self._connection.executemany(statement, map(_Fields, values))
            return _execute(self._connection, statement, _Fields(values))
        except (sqlite3.Error, DBAPIError) as error:
            refused = refusal(error)
            if refused is not None:
                raise refused from error
            # Our own open cursor locks a table against our own statement, and for nobody else.
            if primary_code(error) == sqlite3.SQLITE_LOCKED and self._connection.in_transaction:
                raise
            translated = self._file.translated(error)
            if translated is error:
                raise
            self._broken, self._away = True, translated
            raise translated from error

    def current(self) -> bool:
        try:
            if self._ended or not self._connection.in_transaction:
                return False
            _execute(self._connection, UNMARK)
            _execute(self._connection, MARK)
        except sqlite3.Error:
            return False
        return True

    def commit(self) -> None:
        if not self.current():
            self.rollback()
            raise StoreError(
                "the transaction that was begun is over: a statement that failed has rolled it back (OR ROLLBACK), or "
                "somebody ended it; leave commit and rollback to yeondong, which stores what was handled with what was "
                "done"
            )
        self._connection.guard.on = False
        try:
            self._connection.execute(COMMIT)
        except sqlite3.Error as error:
            self._broken = lost(error) is not None
            self.rollback()
            self._file.raise_outage(error)
            raise
        self._end()

    def rollback(self) -> None:
        if self._ended:
            return
        self._connection.guard.on = False
        try:
            if self._connection.in_transaction:
                self._connection.execute(ROLLBACK)
            else:
                self._cut_short = True
        except sqlite3.Error:
            self._broken = True
        self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._connection.guard.on = False
        self._file.release()
        if self._broken:
            self._link.close()

    def _execute_alchemy(self, statement: Executable, values: Any) -> Iterable[Any]:
        connection = self._link.alchemy(self._connection)
        if values is None:
            result = connection.execute(statement)
        elif _is_many(values):
            if not values:
                return ()  # SQLAlchemy would insert one row of defaults
            result = connection.execute(statement, [_fields_of(each) for each in values])
        else:
            result = connection.execute(statement, _fields_of(values))
        return result.all() if result.returns_rows else ()


class _Fields(dict[str, Any]):
    """Looks a parameter up in a mapping or among an object's fields when SQLite asks for it.

    A dict, because sqlite3 takes nothing else for named parameters.
    """

    def __init__(self, values: Any) -> None:
        super().__init__()
        self._values = values
        self._mapping = isinstance(values, Mapping)

    def __missing__(self, name: str) -> Any:
        if self._mapping:
            return _plain(self._values[name])
        try:
            return _plain(getattr(self._values, name))
        except AttributeError as error:
            raise KeyError(name) from error


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


def _plain(value: Any) -> Any:
    """Turn a value into one that SQLite stores; times become UTC texts, which compare like times."""
    match value:
        case enum.Enum():
            return _plain(value.value)
        case datetime():
            utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
            return utc.isoformat(" ", "microseconds")
        case date() | time():
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case _:
            return value
