"""The store in a PostgreSQL database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from yeondong.connections.postgresql import Pool, Server
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.message import Message
from yeondong.errors import ConnectionLost
from yeondong.stores.postgresql import schema
from yeondong.stores.postgresql.adding import add, add_async
from yeondong.stores.postgresql.connecting import cautions, checked_limit
from yeondong.stores.postgresql.link import Link, Place
from yeondong.stores.postgresql.session import PostgresqlSession
from yeondong.stores.postgresql.watching import Commits

CONNECTIONS: Final = 10
SPARE: Final = 5
"""Connections beyond those that threads need, for transactions that handlers open themselves."""

_log = logging.getLogger("yeondong.postgresql")


class PostgresqlStore:
    """A database that keeps what flows need, for any number of processes on any number of machines.

    ``schema`` is where the tables are; without it, the first schema of the role's search path that exists.
    ``connections`` bounds how many this process opens; without it, as many as ``expect`` was told, and at least 10.
    With ``notify`` relays in other processes are told of commits, and this one listens. ``poll_seconds`` is how often
    an idle relay looks by itself.

    >>> store = PostgresqlStore("postgresql://shop@db.example/orders", schema="integration")
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        connections: int | None = None,
        notify: bool = False,
        poll_seconds: float = 0.5,
        clock: Clock | None = None,
    ) -> None:
        self._server = Server(url)
        self._place = Place(self._server, schema)
        self._commits = Commits(self._place, notify=notify)
        self.poll_seconds: float | None = poll_seconds
        self._connections = connections
        self._beside = 2 if notify else 1  # the keeper's connection, and the one that listens
        self._pool = Pool(self._server, CONNECTIONS if connections is None else connections - self._beside)
        self._link = Link(self._place, self._pool)
        self._schema = schema
        self._clock = clock or SystemClock()
        self.address = self._server.address

    def prepare(self) -> str | None:
        with self._link.connection() as connection:
            schema.refuse_unusable(connection, self._place.schema, self.address)
        return None

    def connect(self, *, apart: bool = False) -> PostgresqlSession:
        pool = Pool(self._server, 1) if apart else self._pool
        return PostgresqlSession(Link(self._place, pool), self._clock, apart=apart)

    def expect(self, threads: int) -> None:
        most = self._pool.most
        if self._connections is not None and most < threads:
            _log.warning(
                "postgresql.few_connections store_connections=%d needed=%d: flows and lanes wait for each other",
                self._connections,
                threads + self._beside,
            )
        needed = self._beside + (threads if self._connections is None else min(threads, most))
        with self._link.connection() as connection:
            limit = checked_limit(connection, needed, self._server.facts(), self.address)
        if self._connections is None:
            spare = SPARE if limit is None else min(SPARE, limit - needed)
            self._pool.most = threads + spare

    def add(self, tx: Any, messages: Sequence[Message]) -> None:
        self._commits.added(add(tx, self._place, messages))

    async def add_async(self, tx: Any, messages: Sequence[Message]) -> None:
        self._commits.added(await add_async(tx, self._place, messages))

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._commits.watch(wake)

    def notice(self) -> str | None:
        return None

    def statements(self) -> Sequence[str]:
        return schema.statements(self._schema)

    def create(self) -> Sequence[str]:
        with self._link.connection() as connection:
            return schema.create(connection, self._place.schema)

    def check(self) -> Sequence[str]:
        with self._link.connection() as connection:
            return schema.check(connection, self._place.schema)

    def cautions(self) -> Sequence[str]:
        try:
            with self._link.connection() as connection:
                return cautions(connection, self._server.facts())
        except ConnectionLost:
            return []  # who asks is told so elsewhere

    def remarks(self) -> Sequence[str]:
        with self._link.connection() as connection:
            return schema.remarks(connection, self._place.schema)
