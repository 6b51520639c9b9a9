"""SQLAlchemy on a connection that is not its own."""

from __future__ import annotations

from typing import Any

import sqlalchemy

from yeondong.connections.postgresql_guard import Connection


class Riding:
    """A psycopg connection for SQLAlchemy to ride on: it neither commits, rolls back nor closes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it to the transaction's owner."""

    def rollback(self) -> None:
        """Leave it to the transaction's owner."""

    def close(self) -> None:
        """Leave it to the pool."""


def riding(connection: Connection) -> sqlalchemy.Connection:
    """Return a SQLAlchemy connection that runs its statements on this one, in whatever transaction it has."""
    if connection.alchemy is None:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=lambda: Riding(connection),
            poolclass=sqlalchemy.StaticPool,
            pool_reset_on_return=None,
            use_native_hstore=False,  # or it would ask for the type at its first use, in the handler's transaction
        )
        connection.alchemy = engine.connect()
    alchemy: sqlalchemy.Connection = connection.alchemy
    return alchemy
