"""The store in one SQLite file."""

from yeondong.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
