"""One SQLite file as a process sees it: its connections, its one writer, and its watcher."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from weakref import WeakSet, WeakValueDictionary

from yeondong.errors import ConnectionLost, NotADatabase, ReadOnlyStore, StoreError

BUSY_SECONDS = 5.0
ASK_SECONDS = 0.002
LONG_SECONDS = 1.0
REMEMBER_SECONDS = 60.0
# Waking a thread costs 0.1 to 0.2 ms of a core, far more than the look itself: 20 times a second is under 0.5 %, 50
# times over 1 %. One commit is mostly followed by another (relay, broker, worker), so for a moment we look more often.
POLL_SECONDS = 0.05
POLL_SOON_SECONDS = 0.02
SOON_SECONDS = 0.1
REOPEN_SECONDS = 1.0
SMALLEST_PAGE = 512
LOG_BYTES = 64 * 1024 * 1024
WAL_RESET_FIXED = (3, 51, 3)

OUTAGES = {
    sqlite3.SQLITE_BUSY: "locked by another writer",
    sqlite3.SQLITE_LOCKED: "locked by another writer",
    sqlite3.SQLITE_READONLY: "it has become read-only",
    sqlite3.SQLITE_IOERR: "input/output error",
    sqlite3.SQLITE_FULL: "the disk or the database is full",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PROTOCOL: "locked by another writer",
}

_log = logging.getLogger("yeondong.sqlite")


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code of an error, also of one that SQLAlchemy has wrapped."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def lost(error: BaseException) -> str | None:
    """Say which outage an error means; None if it is an error of the statement."""
    code = primary_code(error)
    return None if code is None else OUTAGES.get(code)


class Guard:
    """Lets nobody but us end the transaction while it is ``on``; savepoints are free.

    SQLite asks it when a statement is compiled, not when it runs: it costs nothing per message.
    """

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False

    def authorize(self, action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if self.on and action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

    def refuse(self, what: str) -> None:
        """Raise ``StoreError`` while it is on."""
        if self.on:
            raise StoreError(_REFUSED.format(what))


class Connection(sqlite3.Connection):
    """A connection that knows the process it belongs to, and that a handler's transaction is not the handler's to end.

    A handler that committed would keep what was claimed for the messages behind it, and a crash would lose them.
    """

    pid: int
    guard: Guard

    def execute(self, *args: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*args)
        except sqlite3.DatabaseError as error:
            refused = refusal(error)
            if refused is None:
                raise
            raise refused from error

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        self.guard.refuse("executescript, which commits first")
        return super().executescript(script)

    def commit(self) -> None:
        self.guard.refuse("commit")
        super().commit()

    def rollback(self) -> None:
        self.guard.refuse("rollback")
        super().rollback()

    def close(self) -> None:
        self.guard.refuse("close")
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self.guard.on and error is not None:
            return False  # it is to be seen, not our refusal to roll back for it
        self.guard.refuse("`with connection:`, which commits")
        return super().__exit__(kind, error, trace)


def refusal(error: BaseException) -> StoreError | None:
    """Return what to raise for an error that our guard has caused."""
    cause = getattr(error, "orig", None) or error
    if getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_AUTH:
        return None
    return StoreError(_REFUSED.format("BEGIN, COMMIT or ROLLBACK"))


_REFUSED = (
    "refused {}: leave commit and rollback to yeondong, which stores what was handled with what was done "
    "(savepoints are yours)"
)
# With texts of their own: sqlite3 keeps compiled statements by their text, and the guard is not asked for those.
COMMIT = "COMMIT -- yeondong"
ROLLBACK = "ROLLBACK -- yeondong"
BEGIN = "BEGIN IMMEDIATE -- yeondong"


class FairLock:
    """A lock that is given in the order in which it was asked for.

    ``threading.Lock`` goes to whoever asks at the right moment, which is the thread that has just released it: a flow
    that commits in a loop would keep all others out.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def acquire(self, timeout: float) -> bool:
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout):
            return True
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
        return True  # it was handed over just after the time was up

    def release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


@dataclass(frozen=True, slots=True)
class Writer:
    """Who has this process's only right to write, since when; ``begun`` once SQLite's own lock is theirs too."""

    holder: str
    thread: int
    since: float
    begun: bool = False


class SqliteFile:
    """One database file in this process. Made by ``sqlite_file``; all methods may be called from any thread.

    ``max_pages`` bounds the file as a full disk would; it counts for connections opened afterwards.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()
        self.max_pages: int | None = None
        self._lock = FairLock()
        self._writer: Writer | None = None
        self._warned = False
        self._last_long: tuple[str, float, float] | None = None
        self._wakes: dict[object, Callable[[], None]] = {}
        self._watcher: threading.Thread | None = None
        self._guard = threading.Lock()
        self._over = threading.Event()

    def empty(self) -> bool:
        """Whether there is no file, or one without content. Raises ``NotADatabase``."""
        # Never open() the file itself: closing it would drop all locks that SQLite holds on it in this process.
        try:
            size = Path(self.path).stat().st_size
        except FileNotFoundError:
            return True
        except OSError as error:
            raise ConnectionLost("SQLite", self.path, f"the file cannot be opened ({error.strerror})") from error
        if 0 < size < SMALLEST_PAGE:
            # SQLite would take it for an empty one, and write over somebody's note.
            raise NotADatabase(f"{self.path} exists and is not an SQLite database ({size} bytes); name another file")
        return size == 0

    def look(self) -> Connection:
        """Open an existing file for reading only; changes nothing, whatever the file is."""
        connection = self._open("mode=ro")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise self.opening_error(error) from error
        return connection

    def refuse_read_only(self) -> None:
        """Raise ``ReadOnlyStore`` if this user may not write the file, or not in its folder."""
        path = Path(self.path)
        # SQLite opens a read-only file without a word and fails at the first write; the folder takes the log beside it.
        for place in (path, path.parent):
            if place.exists() and not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise ReadOnlyStore(_read_only_sentence(str(place)))

    def connect(self, *, durable: bool) -> Connection:
        """Open the file, made if missing, in WAL mode and without implicit transactions.

        A commit of a ``durable`` connection survives a power cut. Others (positions, marks, leases) may come back as
        they were a moment before, which repeats work and never breaks the file.
        """
        new = self.empty() and not Path(self.path).exists()
        self.refuse_read_only()
        connection = self._open("mode=rwc")
        if new:
            _log.info("sqlite.made file=%r", self.path, extra={"file": self.path})
        try:
            self._use_wal(connection)
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("PRAGMA foreign_keys=ON")
            # Otherwise the log keeps for ever the size of the largest transaction that it ever carried.
            connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            if self.max_pages is not None:
                connection.execute(f"PRAGMA max_page_count={self.max_pages:d}")
        except sqlite3.Error as error:
            connection.close()
            raise self.opening_error(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def writing(self, holder: str) -> Iterator[None]:
        """Be the only writer of this process; see ``acquire``."""
        self.acquire(holder)
        try:
            yield
        finally:
            self.release()

    def acquire(self, holder: str) -> None:
        """Become the only writer of this process, in the order of asking; ``holder`` is named to those who wait long.

        Raises ``ConnectionLost`` after 5 s, and ``StoreError`` at once if this thread writes already.
        """
        if self.path in _written_at_fork:
            raise StoreError(
                f"this process was forked while its parent wrote to {self.path}, so that SQLite finds it locked here "
                "for ever; fork outside of transactions"
            )
        if not self._lock.acquire(timeout=0):
            self._refuse_nesting(holder)
            if not self._lock.acquire(timeout=BUSY_SECONDS):
                raise ConnectionLost("SQLite", self.path, self._who_writes())
        self._warned = False
        self._writer = Writer(holder, threading.get_ident(), time.monotonic())

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that may write, after ``acquire``: wait up to 5 s for the writers of other processes."""
        give_up = time.monotonic() + BUSY_SECONDS
        # SQLite's own waiting asks ten times a second at last. Beside a process that writes all the time it took 1.3 to
        # 1.8 s to meet one of its pauses; asked every 2 ms it takes at most 0.1 s, and both together write as much.
        connection.execute("PRAGMA busy_timeout=0").close()
        try:
            while not _begun(connection, give_up):
                time.sleep(ASK_SECONDS)
        finally:
            connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}").close()
        writer = self._writer
        if writer is not None:
            self._warned = False
            self._writer = Writer(writer.holder, writer.thread, time.monotonic(), begun=True)

    def release(self) -> None:
        """Let the next one write."""
        writer = self._writer
        self._warn_of_long_writer()
        if writer is not None and writer.begun and time.monotonic() - writer.since > LONG_SECONDS:
            self._last_long = (writer.holder, time.monotonic() - writer.since, time.monotonic())
        self._writer = None
        self._lock.release()

    def hold_still(self) -> bool:
        """Let nobody begin to write; False if somebody still writes: this thread itself, or another for 5 s."""
        writer = self._writer
        own = writer is not None and writer.thread == threading.get_ident()
        return self._lock.acquire(timeout=0 if own else BUSY_SECONDS)

    def go_on(self) -> None:
        """End what ``hold_still`` began."""
        self._lock.release()

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection, holder: str) -> Iterator[None]:
        """Write in one transaction, as the only writer. Raises ``ConnectionLost`` for an outage; nothing is written."""
        with self.writing(holder):
            try:
                self.begin(connection)
                try:
                    yield
                    connection.execute(COMMIT)
                except BaseException:
                    if connection.in_transaction:
                        connection.execute(ROLLBACK)
                    raise
            except sqlite3.Error as error:
                self.raise_outage(error)
                raise

    def long_writer(self) -> tuple[str, float] | None:
        """Name who holds the lock for more than 1 s, and for how long; or who last did so within a minute."""
        now = time.monotonic()
        writer = self._writer
        if writer is not None and writer.begun and now - writer.since > LONG_SECONDS:
            return writer.holder, now - writer.since
        if self._last_long is not None and now - self._last_long[2] < REMEMBER_SECONDS:
            return self._last_long[0], self._last_long[1]
        return None

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` within about 50 ms after any connection committed; return a function that ends it."""
        token = object()
        with self._guard:
            self._wakes[token] = wake
            if self._watcher is None:
                self._over = threading.Event()
                self._watcher = threading.Thread(
                    target=self._watch, args=(self._over,), name=f"watch {self.path}", daemon=True
                )
                self._watcher.start()

        def unwatch() -> None:
            with self._guard:
                self._wakes.pop(token, None)
                if not self._wakes:
                    self._over.set()
                    self._watcher = None

        return unwatch

    def translated(self, error: Exception) -> Exception:
        """Return what to raise for an error of SQLite: ``ConnectionLost`` for an outage, else the error itself."""
        reason = lost(error)
        return error if reason is None else ConnectionLost("SQLite", self.path, f"{reason} ({error})")

    def raise_outage(self, error: Exception) -> None:
        """Raise ``ConnectionLost`` if the error means an outage."""
        translated = self.translated(error)
        if translated is not error:
            raise translated from error

    def opening_error(self, error: sqlite3.Error) -> Exception:
        """Return what to raise for an error while opening."""
        match primary_code(error):
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return NotADatabase(f"{self.path} exists and is not an SQLite database ({error}); name another file")
            case sqlite3.SQLITE_READONLY:
                return ReadOnlyStore(_read_only_sentence(self.path))
            case _:
                return self.translated(error)

    def _open(self, mode: str) -> Connection:
        try:
            connection = sqlite3.connect(
                f"{Path(self.path).as_uri()}?{mode}",
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                factory=Connection,
                uri=True,
            )
        except sqlite3.Error as error:
            raise self._cannot_open(error) from error
        connection.pid = os.getpid()
        connection.guard = Guard()
        connection.set_authorizer(connection.guard.authorize)
        _open_connections.add(connection)
        return connection

    def _cannot_open(self, error: sqlite3.Error) -> Exception:
        path = Path(self.path)
        if path.is_dir():
            return NotADatabase(f"{self.path} is a folder, not an SQLite database; name a file in it")
        if not path.parent.is_dir():
            return StoreError(f"the folder {path.parent} does not exist; make it, or name another file")
        return self.opening_error(error)

    def _use_wal(self, connection: Connection) -> None:
        give_up = time.monotonic() + BUSY_SECONDS
        mode = None
        while mode is None:
            try:
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                # Changing the mode does not wait for the busy time-out when two processes make the file at once.
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(POLL_SOON_SECONDS)
        if mode != "wal":
            raise StoreError(
                f"{self.path} cannot use a write-ahead log (journal mode stays {mode!r}); put it on a local file system"
            )

    def _refuse_nesting(self, holder: str) -> None:
        writer = self._writer
        if writer is not None and writer.thread == threading.get_ident():
            raise StoreError(
                f"{holder} would wait for ever: its own thread has an open transaction on {self.path} "
                f"({writer.holder}); commit that one first, or use it"
            )

    def _who_writes(self) -> str:
        writer = self._writer
        if writer is None:
            return f"locked for more than {BUSY_SECONDS:g} s"
        seconds = time.monotonic() - writer.since
        if not writer.begun:
            return f"locked by another writer ({writer.holder} has waited for it for {seconds:.1f} s)"
        return f"{writer.holder} has held the only write lock for {seconds:.1f} s"

    def _warn_of_long_writer(self) -> None:
        writer = self._writer
        if writer is None or self._warned:
            return
        seconds = time.monotonic() - writer.since
        if seconds > LONG_SECONDS and self._first_to_warn():
            _log.warning(
                "%s has held the only write lock of %s for %.1f s; keep transactions short"
                if writer.begun
                else "%s waits for the write lock of %s, which another process has held for %.1f s",
                writer.holder,
                self.path,
                seconds,
                extra={"holder": writer.holder, "file": self.path, "seconds": seconds},
            )

    def _first_to_warn(self) -> bool:
        # The watcher and the writer itself may both find out at the same moment.
        with self._guard:
            first, self._warned = not self._warned, True
        return first

    def _watch(self, over: threading.Event) -> None:
        connection: Connection | None = None
        seen: int | None = None
        changed = 0.0
        while not over.is_set():
            try:
                if connection is None:
                    connection = self._open("mode=rw")
                version = connection.execute("PRAGMA data_version").fetchone()[0]
            except (sqlite3.Error, ConnectionLost, StoreError):
                if connection is not None:
                    connection.close()
                connection = seen = None
                over.wait(REOPEN_SECONDS)
                continue
            now = time.monotonic()
            if version != seen:
                seen, changed = version, now
                for wake in list(self._wakes.values()):
                    wake()
            self._warn_of_long_writer()
            # Not over.wait(): with a time-out it costs another 0.1 ms of a core.
            time.sleep(POLL_SOON_SECONDS if now - changed < SOON_SECONDS else POLL_SECONDS)
        if connection is not None:
            connection.close()


def sqlite_file(path: str) -> SqliteFile:
    """Return this process's object of a file; the same one for every path that leads to it."""
    if path == ":memory:" or not path:
        raise StoreError(f"{path!r} is no file; name one, since connections and processes share it")
    real = os.path.realpath(path)
    with _files_guard:
        file = _files.get((real, os.getpid()))
        if file is None:
            _tell_of_wal_reset()
            file = _files[real, os.getpid()] = SqliteFile(real)
        return file


def _begun(connection: sqlite3.Connection, give_up: float) -> bool:
    """Begin if no other process writes; False if one does and there is time left to ask again."""
    try:
        connection.execute(BEGIN)
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
            raise
        return False
    return True


def _read_only_sentence(place: str) -> str:
    return f"{place} is read-only; give this user the right to write it and its folder, or name another file"


def old_library() -> str | None:
    """Say what to know about the SQLite that this Python brings; None if it is a recent one."""
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        return None
    return (
        f"this Python brings SQLite {sqlite3.sqlite_version}; 3.51.3 mends a rare fault with several writers "
        "(https://sqlite.org/wal.html): upgrade it when you can, and keep backups as always"
    )


def _tell_of_wal_reset() -> None:
    said = old_library()
    if said is not None and not _files:
        _log.debug("%s", said)


def _before_fork() -> None:
    """Wait until no thread of this process writes.

    A child inherits SQLite's list of who has locked what in this process: a write lock in there would stay for ever.
    """
    _files_guard.acquire()
    for file in list(_files.values()):
        (_still if file.hold_still() else _writing).append(file)


def _after_fork_in_parent() -> None:
    for file in _still:
        file.go_on()
    _still.clear()
    _writing.clear()
    _files_guard.release()


def _after_fork_in_child() -> None:
    """Keep what was inherited open for ever: closing it would drop or checkpoint what the parent still works with."""
    global _files_guard  # noqa: PLW0603 - the parent's is held, and stays so
    _files_guard = threading.Lock()
    _written_at_fork.update(file.path for file in _writing)
    _still.clear()
    _writing.clear()
    for connection in list(_open_connections):
        # One reference more than anybody gives back, so that not even the end of the interpreter closes it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open_connections.clear()


# The one registry of the package that is process-wide: a lock for a file has to be, or the store and the broker of two
# apps would each have their own lock for it and wait for each other in SQLite, without order and without a name.
_files: WeakValueDictionary[tuple[str, int], SqliteFile] = WeakValueDictionary()
_files_guard = threading.Lock()
_open_connections: WeakSet[Connection] = WeakSet()
# From just before a fork to just after it; what this process can never write, because it is such a child.
_still: list[SqliteFile] = []
_writing: list[SqliteFile] = []
_written_at_fork: set[str] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
