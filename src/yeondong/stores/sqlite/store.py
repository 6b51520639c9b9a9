"""The store in one SQLite file."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from yeondong.connections.sqlite import SqliteFile, old_library, sqlite_file
from yeondong.connections.sqlite_tables import names
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.message import Message
from yeondong.errors import ForeignConnection, MessageRefused, SchemaMismatch, SchemaMissing
from yeondong.stores.sqlite import schema
from yeondong.stores.sqlite.adding import connection_in
from yeondong.stores.sqlite.link import Link
from yeondong.stores.sqlite.outbox import ADD, added
from yeondong.stores.sqlite.session import SqliteSession

_log = logging.getLogger("yeondong.sqlite")

# As SQLite says it of our own statement: a trigger's errors name the trigger's tables, or say what it was told to say.
NO_OUTBOX = "no such table: yeondong_outbox"
NO_COLUMN = "table yeondong_outbox has no column named "
SAME_ID = "UNIQUE constraint failed: yeondong_outbox.message_id"


class SqliteStore:
    """A database that keeps what flows need, in one file, for any number of processes on one machine.

    With ``make`` the tables are made where they are missing. Without it only in a file that is missing or empty:
    another's database gets tables by ``yeondong db create``.

    >>> store = SqliteStore("shop.db", make=True)
    """

    poll_seconds: float | None = None

    def __init__(self, path: str, *, make: bool = False, clock: Clock | None = None) -> None:
        self._file = sqlite_file(path)
        self.address = self._file.path
        self._make = make
        self._clock = clock or SystemClock()
        self._checked_by: int | None = None

    def prepare(self) -> str | None:
        file = self._file_now()
        if not file.empty():
            file.refuse_read_only()
            with contextlib.closing(file.look()) as connection:
                missing = self._missing(connection)
            if not missing:
                return None
        made = self.create()
        return f"made {self.address} with yeondong's tables" if made else None

    def connect(self, *, apart: bool = False) -> SqliteSession:
        return SqliteSession(Link(self.address, self.prepare), self._clock)

    def expect(self, threads: int) -> None:
        """Nothing is to be done: each has a connection of its own, and files have no bound."""

    def add(self, tx: Any, messages: Sequence[Message]) -> None:
        connection = connection_in(tx, self.address)
        rows = [added(message) for message in messages]
        if not rows:
            return
        try:
            if self._checked_by != os.getpid():
                self._make_within(connection)
                self._checked_by = os.getpid()
            try:
                _insert(connection, rows)
            except sqlite3.OperationalError as error:
                if str(error) != NO_OUTBOX:
                    raise
                self._make_within(connection)  # removed meanwhile, or made in a transaction that was rolled back
                _insert(connection, rows)
        except sqlite3.Error as error:
            translated = self._translated(error)
            if translated is error:
                raise
            raise translated from error

    async def add_async(self, tx: Any, messages: Sequence[Message]) -> None:
        del messages
        raise ForeignConnection(
            f"{type(tx).__module__}.{type(tx).__qualname__} cannot write to the store {self.address} (SQLite), which "
            "takes synchronous transactions only: outbox.add"
        )

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._file_now().watch(wake)

    def notice(self) -> str | None:
        long = self._file_now().long_writer()
        return long and f"{long[0]} held the only write lock of {self.address} for {long[1]:.1f} s"

    def statements(self) -> Sequence[str]:
        return [*schema.creating().values(), schema.SET_VERSION]

    def create(self) -> Sequence[str]:
        file = self._file_now()
        with contextlib.closing(file.connect(durable=True)) as connection, file.transaction(connection, "db create"):
            return schema.create(connection)

    def check(self) -> Sequence[str]:
        if self._file_now().empty():
            return [f"{self.address} is missing or empty; `yeondong db create` makes it"]
        with contextlib.closing(self._file_now().look()) as connection:
            return schema.check(connection)

    def cautions(self) -> Sequence[str]:
        said = old_library()
        return [] if said is None else [said]

    def remarks(self) -> Sequence[str]:
        if self._file_now().empty():
            return []
        with contextlib.closing(self._file_now().look()) as connection:
            there = names(connection)
        if "yeondong_outbox" not in there or schema.VIEW in there:
            return []
        return [f"view {schema.VIEW}, for people who look at the outbox, is missing; `yeondong db create` adds it"]

    def _file_now(self) -> SqliteFile:
        if self._file.pid != os.getpid():
            self._file = sqlite_file(self.address)
        return self._file

    def _missing(self, connection: sqlite3.Connection) -> bool:
        """Whether tables are to be made. Raises ``SchemaMissing`` if they must not be, ``SchemaMismatch``."""
        missing = schema.missing_tables(connection)
        if not missing:
            schema.refuse_mismatch(connection, self.address)
        elif not self._make and names(connection):
            raise SchemaMissing(
                f"{self.address} has no table {missing[0]}; run `yeondong db create`, or your migration, to make it"
            )
        return bool(missing)

    def _make_within(self, connection: sqlite3.Connection) -> None:
        if self._missing(connection):
            schema.create(connection)
            _log.info("sqlite.made file=%r", self.address, extra={"file": self.address})

    def _translated(self, error: sqlite3.Error) -> Exception:
        """Return what to raise for an error of ``add``; one of the user's own triggers stays as it is."""
        text = str(error)
        if text == SAME_ID:
            return MessageRefused(f"the outbox has a message of this id already ({text}); give each its own")
        if text.startswith(NO_COLUMN):
            return SchemaMismatch(
                f"the tables in {self.address} are not those of this yeondong: {text}; migrate them "
                "(`yeondong db check` lists all differences)"
            )
        return self._file_now().translated(error)


def _insert(connection: sqlite3.Connection, rows: Sequence[dict[str, Any]]) -> None:
    if len(rows) == 1:
        connection.execute(ADD, rows[0])
        return
    # All or none of them, also for a caller who catches the error and commits.
    schema.begin(connection)
    connection.execute("SAVEPOINT yeondong_add")
    try:
        connection.executemany(ADD, rows)
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO yeondong_add")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE yeondong_add")
