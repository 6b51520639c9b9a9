"""The tables appear in users' migrations on PostgreSQL too, in the current schema or in one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import UpgradeOps
from sqlalchemy import MetaData

from tests.servers.schemas import schema_of_its_own
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.stores.postgresql.tables import metadata, metadata_in


class Place:
    """A schema with or without tables, as Alembic and as the store see it."""

    def __init__(self, url: str, schema: str, *, named: bool) -> None:
        # Alembic calls a schema by no name where it is the current one.
        url = url.partition("?")[0] if named else url
        self.metadata: MetaData = metadata_in(schema) if named else metadata
        self.store = PostgresqlStore(url, schema=schema if named else None)
        self._options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_schemas": named,
            "include_name": lambda name, kind, _: kind != "schema" or not named or name == schema,
        }
        self._engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

    def differences(self) -> list[Any]:
        with self._engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=self._options)
            found: list[Any] = compare_metadata(context, self.metadata)
        return found

    def migrate(self) -> None:
        """Do what `alembic revision --autogenerate` and `alembic upgrade head` do."""
        with self._engine.begin() as connection:
            context = MigrationContext.configure(connection, opts=self._options)
            upgrade = produce_migrations(context, self.metadata).upgrade_ops
            assert isinstance(upgrade, UpgradeOps)
            operations = Operations(context)
            stack: list[Any] = list(upgrade.ops)
            for operation in stack:
                if hasattr(operation, "ops"):
                    stack.extend(operation.ops)
                else:
                    operations.invoke(operation)

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture(params=[False, True], ids=["current schema", "named schema"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with schema_of_its_own() as (url, schema):
        place = Place(url, schema, named=request.param)
        yield place
        place.close()


def test_autogenerate_finds_no_difference_to_the_tables_that_the_store_made(place: Place) -> None:
    place.store.create()

    assert place.differences() == []


def test_autogenerate_creates_the_tables_and_the_store_works_on_them(place: Place) -> None:
    assert place.differences() != []
    place.migrate()

    assert place.differences() == []
    assert place.store.prepare() is None
    assert place.store.check() == []
    assert len(place.store.remarks()) == 2
    assert place.store.create() == ["yeondong_outbox_status"]
    assert place.store.remarks() == []
