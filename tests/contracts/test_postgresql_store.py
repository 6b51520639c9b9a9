"""The store on PostgreSQL against the shared suite."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.servers.schemas import schema_of_its_own
from yeondong.core.store import Store
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.stores.postgresql.tables import metadata
from yeondong.testing.store_suite import Factory, StoreSuite

# A test that failed, or that killed a process, may have left a transaction open.
END = """
SELECT pg_terminate_backend(pid, 5000) FROM (
  SELECT DISTINCT l.pid FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
  WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND l.pid <> pg_backend_pid()) AS those
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Make the tables once for all tests of this process: they take longer than most tests."""
    with schema_of_its_own() as (url, _):
        PostgresqlStore(url).create()
        yield url


class TestPostgresql(StoreSuite):
    @pytest.fixture
    def store(self, url: str) -> Iterator[Store]:
        store = PostgresqlStore(url)
        store.prepare()
        yield store
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(END)
            for table in metadata.sorted_tables:
                if table.name != "yeondong_schema":
                    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))
            connection.execute("DROP TABLE IF EXISTS suite_effects")

    @pytest.fixture
    def rival(self, store: Store, url: str) -> Store:
        return PostgresqlStore(url)

    @pytest.fixture
    def factory(self, url: str) -> Factory:
        return "yeondong.stores.postgresql:PostgresqlStore", url
