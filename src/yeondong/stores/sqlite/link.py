"""One session's connection: opened when it is needed, and opened anew after an outage or a fork."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy

from yeondong.connections.sqlite import Connection, SqliteFile, lost, sqlite_file
from yeondong.core.fence import Fence
from yeondong.errors import ConnectionLost, FenceLost
from yeondong.stores.sqlite.riding import riding

# What one look at messages reads at most, save a single larger one: 500 of them may be of 1 MiB each.
READ_BYTES: Final = 8 << 20

LONGEST_SECONDS: Final = 10 * 365 * 86_400

# With six digits, as SQLAlchemy and `rows.time_text` write them, so that texts compare like times.
NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"

FENCE = "SELECT 1 FROM yeondong_leases WHERE name = ? AND owner = ? AND epoch = ?"
CLAIM = "SELECT 1 FROM yeondong_partitions WHERE flow = ? AND owner = ? AND epoch = ? AND partition = ?"


def later(parameter: str) -> str:
    """SQL for the time that many seconds from now."""
    # printf, because a small number would otherwise arrive as 1.0e-05, which is no time to SQLite; a limit, because
    # beyond the year 9999 there is none either, and what has no time would never be due.
    seconds = f"min({parameter}, {LONGEST_SECONDS})"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"


def writable(text: str) -> str:
    """Return a text that SQLite takes: half a surrogate pair, as errors may quote, becomes an escape."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class Link:
    """The way of one session to its file.

    ``prepare`` runs before each opening: the file may have been removed, or be of another schema, since the last one.
    """

    def __init__(self, path: str, prepare: Callable[[], object]) -> None:
        self.path = path
        self._prepare = prepare
        self._file = sqlite_file(path)
        self._connection: Connection | None = None
        self._durable = True
        self._alchemy: tuple[Connection, sqlalchemy.Connection] | None = None

    @property
    def file(self) -> SqliteFile:
        if self._file.pid != os.getpid():
            self._file = sqlite_file(self.path)
        return self._file

    def connection(self) -> Connection:
        """Return this process's connection, opened if there is none."""
        connection = self._connection
        if connection is not None and connection.pid == os.getpid():
            return connection
        # After a fork the parent's connection is only dropped: closing it would release the locks of both.
        self._prepare()
        self._durable = True
        self._connection = self.file.connect(durable=True)
        return self._connection

    def read(self, statement: str, values: Mapping[str, Any] | tuple[Any, ...] = ()) -> list[Any]:
        """Run a query outside of a transaction and return all rows."""
        try:
            return self.connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._fail(error)
            raise

    def read_messages(self, statement: str, values: Mapping[str, Any], data: int) -> list[Any]:
        """Run a query outside of a transaction and return its first rows, up to 8 MiB in their column ``data``."""
        found = []
        size = 0
        try:
            cursor = self.connection().execute(statement, values)
            for row in cursor:
                found.append(row)
                size += len(row[data]) if isinstance(row[data], bytes | str) else 0  # others may write anything
                if size >= READ_BYTES:
                    break
            cursor.close()  # or the rest of its rows would keep the file's log from being cut
        except sqlite3.Error as error:
            self._fail(error)
            raise
        return found

    @contextlib.contextmanager
    def writing(self, holder: str, fences: Sequence[Fence] = (), *, durable: bool = False) -> Iterator[Connection]:
        """Write in one transaction, under the fences.

        Where nothing irreplaceable is written, a power cut may take back the last of it (``durable`` False): it is
        done again then.
        """
        connection = self.synchronous(durable=durable)
        try:
            with self.file.transaction(connection, holder):
                # The write lock is ours from here to the commit, so nobody can take anything over in between: checking
                # it once is as good as in each statement.
                for fence in fences:
                    _check(connection, fence)
                yield connection
        except ConnectionLost:
            self.close()
            raise

    def synchronous(self, *, durable: bool) -> Connection:
        """Return the connection with its commits surviving a power cut, or not."""
        connection = self.connection()
        if durable != self._durable:
            try:
                connection.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
            except sqlite3.Error as error:
                self._fail(error)
                raise
            self._durable = durable
        return connection

    def alchemy(self, connection: Connection) -> sqlalchemy.Connection:
        """Return SQLAlchemy's view of the connection, made once for it."""
        if self._alchemy is None or self._alchemy[0] is not connection:
            self._alchemy = (connection, riding(connection))
        return self._alchemy[1]

    def close(self) -> None:
        """Disconnect. Never raises; twice is harmless."""
        connection, self._connection = self._connection, None
        self._alchemy = None
        if connection is not None and connection.pid == os.getpid():
            connection.guard.on = False
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _fail(self, error: sqlite3.Error) -> None:
        # After an outage the next use connects anew.
        if lost(error):
            self.close()
        self.file.raise_outage(error)


def _check(connection: Connection, fence: Fence) -> None:
    key = (fence.name, fence.owner, fence.epoch)
    if fence.partition is None:
        found = connection.execute(FENCE, key).fetchone()
    else:
        found = connection.execute(CLAIM, (*key, fence.partition)).fetchone()
    if not found:
        raise FenceLost(fence.name, fence.epoch, fence.partition)
