"""SQLAlchemy on a connection that is not its own."""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy


class Riding:
    """A sqlite3 connection for SQLAlchemy to ride on: it neither commits, rolls back nor closes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it to the transaction's owner."""

    def rollback(self) -> None:
        """Leave it to the transaction's owner."""

    def close(self) -> None:
        """Leave it to the session."""


def riding(connection: sqlite3.Connection) -> sqlalchemy.Connection:
    """Return a SQLAlchemy connection that runs its statements on this one, in whatever transaction it has."""
    engine = sqlalchemy.create_engine(
        "sqlite://", creator=lambda: Riding(connection), poolclass=sqlalchemy.StaticPool, pool_reset_on_return=None
    )
    return engine.connect()
