"""The tables appear in users' migrations: Alembic creates them, and then finds nothing to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import UpgradeOps

from yeondong.stores import tables
from yeondong.stores.sqlite import SqliteStore
from yeondong.testing.store_suite.scene import message

OPTIONS: dict[str, Any] = {"compare_type": True, "compare_server_default": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def differences(path: Path) -> list[Any]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=OPTIONS), tables.metadata)
    engine.dispose()
    return found


def migrate(path: Path) -> None:
    """Do what `alembic revision --autogenerate` and `alembic upgrade head` do."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts=OPTIONS)
        upgrade = produce_migrations(context, tables.metadata).upgrade_ops
        assert isinstance(upgrade, UpgradeOps)
        operations = Operations(context)
        stack: list[Any] = list(upgrade.ops)
        for operation in stack:
            if hasattr(operation, "ops"):
                stack.extend(operation.ops)
            else:
                operations.invoke(operation)
    engine.dispose()


def test_autogenerate_finds_no_difference_to_the_tables_that_the_store_made(path: Path) -> None:
    SqliteStore(str(path)).prepare()

    assert differences(path) == []


def test_autogenerate_creates_the_tables_and_then_finds_no_difference(path: Path) -> None:
    assert differences(path) != []
    migrate(path)

    assert differences(path) == []


def test_a_store_works_on_tables_that_alembic_made(path: Path) -> None:
    migrate(path)
    store = SqliteStore(str(path))

    assert store.prepare() is None
    assert store.check() == []
    assert "yeondong_outbox_status" in store.remarks()[0]
    assert store.create() == ["yeondong_outbox_status"]
    assert store.remarks() == []
    session = store.connect()
    for id in ("m1", "m2"):
        tx = session.begin("test")
        store.add(tx, [message(id)])
        tx.commit()
    assert session.outbox.lag().waiting == 2
    session.close()
