"""A connection that is made at its first use, and again in a forked process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from yeondong.connections.sqlite import Connection, SqliteFile, primary_code, sqlite_file
from yeondong.errors import NotADatabase, SchemaMissing, StoreError


class Link:
    """One thread's connection to the file of the log. SQLite's errors leave it as ours."""

    def __init__(self, path: str, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._file: SqliteFile | None = None
        self._connection: Connection | None = None

    @property
    def file(self) -> SqliteFile:
        if self._file is None or self._file.pid != os.getpid():
            self._file = sqlite_file(self._path)
        return self._file

    @property
    def connection(self) -> Connection:
        """The connection; what was inherited over a fork is left to the parent, neither used nor closed."""
        if self._connection is None or self._connection.pid != os.getpid():
            self._connection = self.file.connect(durable=self._durable)
        return self._connection

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error

    @contextlib.contextmanager
    def transaction(self, holder: str) -> Iterator[Connection]:
        with self.translating():
            connection = self.connection
            with self.file.transaction(connection, holder):
                yield connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.translating():
            return self.connection.execute(statement, values).fetchall()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.pid == os.getpid():
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _translated(self, error: sqlite3.Error) -> Exception:
        translated = self.file.translated(error)
        if translated is not error:
            return translated
        if primary_code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return NotADatabase(f"{self._path} is damaged or no SQLite database ({error}); restore it, or name another")
        if "no such table" in str(error):
            return SchemaMissing(f"{self._path} lacks the broker's tables ({error}); restart the app, which makes them")
        return StoreError(f"{self._path} cannot be used as the broker's log: {error}")


@contextlib.contextmanager
def linked(path: str, *, durable: bool) -> Iterator[Link]:
    """Give a link for one task and close it afterwards."""
    link = Link(path, durable=durable)
    try:
        yield link
    finally:
        link.close()
