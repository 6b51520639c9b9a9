"""The store in a PostgreSQL database."""

from yeondong.stores.postgresql.store import PostgresqlStore

__all__ = ["PostgresqlStore"]
