"""The outbox on PostgreSQL: late commits, what lookups cost, and positions that mean nothing any more."""

from __future__ import annotations

import pytest

from yeondong.core.store import Store
from yeondong.stores.postgresql.store import PostgresqlStore
from yeondong.testing.store_suite import Factory, StoreSuite
from yeondong.testing.store_suite.outbox import OutboxLogSuite, OutboxSuite


class TestPg(OutboxSuite, OutboxLogSuite):
    @pytest.fixture
    def store(self, database: str) -> Store:
        store = PostgresqlStore(database)
        store.create()
        store.prepare()
        return store

    @pytest.fixture
    def rival(self, store: Store, database: str) -> Store:
        return PostgresqlStore(database)

    traits = StoreSuite.traits
    patience_seconds = 5
    scene = StoreSuite.scene

    @pytest.fixture
    def factory(self, database: str) -> Factory:
        return "yeondong.stores.postgresql:PostgresqlStore", database
