"""One PostgreSQL database as a process sees it: its connections, how many there may be, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from yeondong.connections.postgresql_guard import Connection, Cursor
from yeondong.errors import ConnectionLost, SchemaMismatch, SchemaMissing, SettingsError, StoreError

SYSTEM: Final = "PostgreSQL"
OLDEST_VERSION: Final = 130_000
"""The first with ``xid8`` and ``pg_current_snapshot``."""

IDLE: Final = psycopg.pq.TransactionStatus.IDLE

NAME_BYTES: Final = 63
"""The longest application_name; the rest would be cut."""

WAIT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 300.0

# What a URL does not say. A host that vanished without a word would otherwise be noticed after hours.
DEFAULTS: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}

# The server, not the statement: whoever asks now, gets the same answer.
OUTAGES: Final = {
    "53000": "it is short of resources",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "53300": "it has too many connections",
    "58000": "system error",
    "58030": "input/output error",
    "57P01": "it is shutting down, or an administrator ended the connection",
    "57P02": "it crashed and is recovering",
    "57P03": "it is starting up",
    "57P04": "the database was dropped",
    "57P05": "it ended an idle connection",
    "25006": "it has become read-only",
    "25P03": "it ended an idle transaction",
}

# Our own statements know no other reason to fail for a while: somebody was faster, or had the row.
PASSING: Final = {
    "40001": "it could not serialize access",
    "40P01": "deadlock",
    "55P03": "a lock was not to be had within lock_timeout",
    "57014": "the statement was cancelled, by statement_timeout or by a person",
    "55006": "an object is in use",
}

FACTS: Final = """
SELECT current_setting('server_version_num')::int, current_schema(), pg_backend_pid(), current_user::text
"""


class Facts(Struct, frozen=True):
    """What the first connection told. ``pooled``: somebody like PgBouncer stands between us and the server."""

    version: int
    schema: str | None
    user: str
    pooled: bool


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of an error, also of one that SQLAlchemy has wrapped."""
    cause = getattr(error, "orig", None) or error
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None


def lost(error: BaseException) -> str | None:
    """Say which outage an error means; None if it is an error of the statement."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        return None
    code = cause.sqlstate
    if isinstance(cause, psycopg.errors.PipelineAborted):
        return None  # an earlier statement failed, which tells why
    if code is None:
        # Without a code it is libpq's own: no connection, or one that broke.
        return _first_line(cause) if isinstance(cause, psycopg.OperationalError) else None
    reason = OUTAGES.get(code)
    if reason is None and code.startswith("08"):
        reason = "the connection failed"
    return None if reason is None else f"{reason} ({_first_line(cause)})"


def passing(error: BaseException) -> str | None:
    """Say why a statement of our own could not run just now; None if it never can."""
    reason = PASSING.get(sqlstate(error) or "")
    return lost(error) if reason is None else f"{reason} ({_first_line(error)})"


class Server:
    """A database, by its URL. All methods may be called from any thread, and in a forked process too.

    >>> Server("postgresql://shop:secret@db.example:6432/orders").address
    'db.example:6432/orders'
    """

    def __init__(self, url: str) -> None:
        self._conninfo = _conninfo(url)
        self.address = _address(self._conninfo)
        self._facts: Facts | None = None

    def facts(self) -> Facts:
        """Return what is known about the server; connects if nothing is yet."""
        facts = self._facts
        if facts is None:
            with contextlib.closing(self.connect()) as connection:
                facts = self._facts or self._asked(connection)
        return facts

    def connect(self) -> Connection:
        """Open a connection that commits each statement by itself. Raises ``ConnectionLost``, ``StoreError``."""
        try:
            connection = Connection.connect(_named(self._conninfo), autocommit=True, cursor_factory=Cursor)
        except psycopg.Error as error:
            raise ConnectionLost(SYSTEM, self.address, lost(error) or _first_line(error)) from error
        try:
            facts = self._facts
            if facts is None:
                facts = self._facts = self._asked(connection)
            if facts.pooled:
                connection.prepare_threshold = None  # the next transaction may be run by another server process
        except BaseException:
            connection.close()
            raise
        return connection

    def translated(self, error: psycopg.Error) -> Exception:
        """Return what to raise for an error of one of our own statements; the error itself if it says enough."""
        reason = passing(error)
        if reason is not None:
            return ConnectionLost(SYSTEM, self.address, reason)
        what = _first_line(error)
        match error.sqlstate:
            case "42501":
                return StoreError(
                    f"the role of {self.address} lacks a privilege: {what}; grant it "
                    "(`yeondong db check` lists what is missing)"
                )
            case "42P01" | "3F000":
                return SchemaMissing(
                    f"{self.address} lacks yeondong's tables: {what}; run `yeondong db create`, or your migration, "
                    "to make them"
                )
            case "42703":
                return SchemaMismatch(
                    f"the tables in {self.address} are not those of this yeondong: {what}; migrate them "
                    "(`yeondong db check` lists all differences)"
                )
            case _:
                return error

    def _asked(self, connection: Connection) -> Facts:
        try:
            row = connection.execute(FACTS, prepare=False).fetchone()
        except psycopg.Error as error:
            raise ConnectionLost(SYSTEM, self.address, lost(error) or _first_line(error)) from error
        version, schema, process, user = row or (0, None, 0, "")
        if version < OLDEST_VERSION:
            raise StoreError(
                f"{self.address} is PostgreSQL {version // 10_000}; yeondong needs {OLDEST_VERSION // 10_000} or newer"
            )
        # A pooler tells a number of its own at the start, since it does not know yet which process will answer.
        return Facts(version, schema, user, pooled=process != connection.info.backend_pid)


class Pool:
    """At most ``most`` connections to a server, each lent to one thread at a time; a forked process begins anew.

    psycopg's own pool connects in threads of its own and tells whoever waits only that it took too long, not why the
    server is away; and it has no answer to a fork.
    """

    def __init__(self, server: Server, most: int) -> None:
        self.server = server
        self.most = most
        self._begin_anew()

    def _begin_anew(self) -> None:
        # Connections of the parent are only forgotten: psycopg closes none that another process has made.
        self._pid = os.getpid()
        self._free = threading.Condition()
        self._idle: list[tuple[Connection, float]] = []
        self._lent = 0

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """Lend a connection for a block."""
        connection = self.borrow()
        try:
            yield connection
        finally:
            self.give_back(connection)

    def borrow(self) -> Connection:
        """Lend a connection, waiting for one where all are lent. Raises ``ConnectionLost``."""
        if self._pid != os.getpid():
            self._begin_anew()
        with self._free:
            if not self._free.wait_for(lambda: self._lent < self.most, WAIT_SECONDS):
                raise ConnectionLost(
                    SYSTEM,
                    self.server.address,
                    f"all {self.most} connections of this process were in use for {WAIT_SECONDS:g} s; "
                    "raise store_connections, or end transactions sooner",
                )
            self._lent += 1
        try:
            return self._waiting() or self.server.connect()
        except BaseException:
            self._returned(None)
            raise

    def give_back(self, connection: Connection) -> None:
        """Take a lent connection back; one that is broken, or in a transaction, is closed."""
        if self._pid != os.getpid():
            return
        usable = connection.pgconn.transaction_status == IDLE
        if not usable:
            connection.close()
        self._returned(connection if usable else None)

    def close(self) -> None:
        """Close what nobody uses. Never raises; it may be used again."""
        if self._pid != os.getpid():
            return
        with self._free:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _waiting(self) -> Connection | None:
        """Return the connection that was used last: the others then grow old, and are closed."""
        while True:
            with self._free:
                if not self._idle:
                    return None
                connection = self._idle.pop()[0]
            if not _hung_up(connection):
                return connection
            connection.close()

    def _returned(self, connection: Connection | None) -> None:
        old: list[Connection] = []
        with self._free:
            self._lent -= 1
            now = time.monotonic()
            while self._idle and now - self._idle[0][1] > IDLE_SECONDS:
                old.append(self._idle.pop(0)[0])
            if connection is not None:
                self._idle.append((connection, now))
            self._free.notify()
        for each in old:
            each.close()


def _conninfo(url: str) -> str:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise SettingsError(
            f"the store's URL cannot be used: {_first_line(error)}; write postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    # UTF-8 whatever PGCLIENTENCODING says: identifiers and payloads must come back as they were.
    return make_conninfo("", **{**DEFAULTS, **given, "client_encoding": "UTF8"})


def process_name(host: str, pid: int | str) -> str:
    """Return what the connections of a process are called, at the end of their application_name."""
    return f"{host[: NAME_BYTES // 2]}-{pid}"


def _named(conninfo: str) -> str:
    """Name the process in application_name, so that others can end what it leaves open."""
    process = process_name(socket.gethostname(), os.getpid())
    given = conninfo_to_dict(conninfo).get("application_name") or os.environ.get("PGAPPNAME") or "yeondong"
    return make_conninfo(conninfo, application_name=f"{str(given)[: NAME_BYTES - len(process) - 1]} {process}")


def _address(conninfo: str) -> str:
    given = conninfo_to_dict(conninfo)
    host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "localhost"
    port = given.get("port") or os.environ.get("PGPORT") or "5432"
    user = given.get("user") or os.environ.get("PGUSER")
    return f"{host}:{port}/{given.get('dbname') or os.environ.get('PGDATABASE') or user or ''}"


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    diagnostic = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return " ".join((diagnostic or str(cause) or type(cause).__name__).split())


def _hung_up(connection: Connection) -> bool:
    """Whether something has arrived that nobody asked for: the server's farewell, or the end of the stream."""
    if connection.closed:
        return True
    poll: Any = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
