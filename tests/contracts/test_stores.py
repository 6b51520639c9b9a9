"""Each store driver against the shared suite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from yeondong.core.store import Store
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.stores.sqlite import SqliteStore
from yeondong.testing.store_suite import Factory, StoreSuite


class TestSqlite(StoreSuite):
    traits = Traits(
        durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.LEASED, one_writer=True
    )  # fmt: skip

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "store.db")

    @pytest.fixture
    def store(self, path: str) -> Store:
        store = SqliteStore(path, make=True)
        store.prepare()
        return store

    @pytest.fixture
    def rival(self, store: Store, path: str) -> Store:
        return SqliteStore(path)

    @pytest.fixture
    def factory(self, path: str) -> Factory:
        return "yeondong.stores.sqlite:SqliteStore", path


class TestSqliteInTheFileOfAnApplication(TestSqlite):
    """The file has tables of others, and was not in WAL mode."""

    @pytest.fixture
    def store(self, path: str) -> Store:
        application = sqlite3.connect(path)
        application.execute("CREATE TABLE outbox (id INTEGER PRIMARY KEY, text)")
        application.execute("INSERT INTO outbox VALUES (1, 'theirs')")
        application.commit()
        application.close()
        store = SqliteStore(path)
        store.create()
        return store
