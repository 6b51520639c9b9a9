"""The store on PostgreSQL against the shared suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.schemas import schema_of_its_own
from yeondong.core.store import Store
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite import Factory, StoreSuite


class TestPostgresql(StoreSuite):
    @pytest.fixture
    def url(self) -> Iterator[str]:
        with schema_of_its_own() as (url, _):
            yield url

    @pytest.fixture
    def store(self, url: str) -> Store:
        store = PostgresqlStore(url)
        store.create()
        store.prepare()
        return store

    @pytest.fixture
    def rival(self, store: Store, url: str) -> Store:
        return PostgresqlStore(url)

    @pytest.fixture
    def factory(self, url: str) -> Factory:
        return "yeondong.stores.postgresql:PostgresqlStore", url
