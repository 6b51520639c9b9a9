"""Tells relays that somebody has committed messages: those in this process, and others if they are to be notified."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from yeondong.connections.postgresql_guard import Connection
from yeondong.errors import ConnectionLost, StoreError
from yeondong.stores.postgresql.link import Place

CHANNEL: Final = "yeondong_outbox"
NOTIFY: Final = "SELECT pg_notify(%s, %s)"
LISTEN: Final = f"LISTEN {CHANNEL}"

# At most so often, however many commit: a NOTIFY makes all commits of the server wait for each other.
NOTIFY_SECONDS: Final = 0.002

FIRST_LOOK_SECONDS: Final = 0.0005
MOST_LOOK_SECONDS: Final = 0.02
FORGET_SECONDS: Final = 60.0

HEALTH_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 2.0

_log = logging.getLogger("yeondong.postgresql")


class Commits:
    """Learns when a transaction that messages were added to commits.

    No driver tells of that. But each connection knows its own state, and to look at it costs the database nothing: a
    thread does so as long as a transaction is open that messages were added to, and somebody wants to know.
    """

    def __init__(self, place: Place, *, notify: bool) -> None:
        self._place = place
        self._notify = notify
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._watchers: dict[object, Callable[[], None]] = {}
        self._open: dict[int, tuple[weakref.ref[Any], float]] = {}
        self._wanted = threading.Event()
        self._committed = False
        self._thread: threading.Thread | None = None

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after commits of this process, and of others that notify; return a function that ends it."""
        self._of_this_process()
        key = object()
        self._watchers[key] = wake
        over = threading.Event()
        if self._notify:
            threading.Thread(target=self._listen, args=(wake, over), name="postgresql listener", daemon=True).start()

        def end() -> None:
            self._watchers.pop(key, None)
            over.set()

        return end

    def added(self, connection: Any) -> None:
        """Messages were added to this connection's transaction."""
        self._of_this_process()
        if not self._watchers and not self._notify:
            return
        with self._lock:
            self._open[id(connection)] = (weakref.ref(connection), time.monotonic())
        self._awake()

    def _of_this_process(self) -> None:
        if self._pid != os.getpid():
            self._begin_anew()

    def _awake(self) -> None:
        self._wanted.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._follow, name="postgresql commits", daemon=True)
                    self._thread.start()

    # --- the thread that looks ----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        connection: Connection | None = None
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while self._open or self._committed:
                if self._ended_meanwhile():
                    self._committed = self._notify
                    for wake in list(self._watchers.values()):
                        wake()
                if self._committed:
                    self._committed = False
                    connection = self._notified(connection)
                    time.sleep(NOTIFY_SECONDS)
                elif self._open:
                    time.sleep(self._pause())

    def _ended_meanwhile(self) -> bool:
        now = time.monotonic()
        ended = False
        with self._lock:
            for key, (reference, since) in list(self._open.items()):
                connection = reference()
                if connection is None or _is_at_rest(connection):
                    ended = True
                    del self._open[key]
                elif now - since > FORGET_SECONDS:
                    del self._open[key]  # whoever polls finds it
        return ended

    def _pause(self) -> float:
        """Look often at what has begun just now, and less often at what takes long."""
        now = time.monotonic()
        with self._lock:
            youngest = min((now - since for _, since in self._open.values()), default=0.0)
        return min(MOST_LOOK_SECONDS, max(FIRST_LOOK_SECONDS, youngest / 20))

    def _notified(self, connection: Connection | None) -> Connection | None:
        try:
            if connection is None or connection.closed:
                connection = self._place.server.connect()
            connection.execute(NOTIFY, (CHANNEL, self._place.schema))
        except (psycopg.Error, ConnectionLost, StoreError) as error:
            _log.warning("postgresql.not_notified reason=%r", str(error))  # relays find it by looking
            if connection is not None:
                connection.close()
            return None
        return connection

    # --- the thread that listens --------------------------------------------------------------------------------------

    def _listen(self, wake: Callable[[], None], over: threading.Event) -> None:
        while not over.is_set():
            try:
                if self._place.server.facts().pooled:
                    _log.warning(
                        "postgresql.cannot_listen address=%r reason='a pooler of transactions is in between'; the "
                        "relay looks for messages instead",
                        self._place.server.address,
                    )
                    return
                self._heard(wake, over)
            except (psycopg.Error, ConnectionLost, StoreError) as error:
                if not over.is_set():
                    _log.warning("postgresql.listening_lost reason=%r; looking for messages instead", str(error))
            over.wait(AGAIN_SECONDS)

    def _heard(self, wake: Callable[[], None], over: threading.Event) -> None:
        with self._place.server.connect() as connection:
            connection.execute(LISTEN)
            wake()  # for what was committed before
            while not over.is_set():
                for told in connection.notifies(timeout=HEALTH_SECONDS):
                    if told.payload == self._place.schema:
                        wake()
                    if over.is_set():
                        return


def _is_at_rest(connection: Any) -> bool:
    if connection.closed:
        return True
    # In pipeline mode the state is told late: a transaction that has begun may not show in it yet.
    at_rest = connection.pgconn.transaction_status == TransactionStatus.IDLE
    return bool(at_rest and connection.pgconn.pipeline_status == PipelineStatus.OFF)
