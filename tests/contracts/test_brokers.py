"""Each broker driver against the shared suite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from yeondong.core.broker import Broker
from yeondong.messaging.brokers.memory import MemoryBroker
from yeondong.messaging.brokers.sqlite import Retention, SqliteBroker
from yeondong.testing.broker_suite import BrokerSuite, Factory


class TestMemory(BrokerSuite):
    @pytest.fixture
    def broker(self) -> Broker:
        return MemoryBroker()

    @pytest.fixture
    def bounded(self) -> Broker:
        return MemoryBroker(max_bytes=20_000)


class TestSqlite(BrokerSuite):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "broker.db"

    @pytest.fixture
    def broker(self, path: Path) -> Broker:
        broker = SqliteBroker(str(path))
        broker.prepare()
        return broker

    @pytest.fixture
    def reopen(self, path: Path) -> Callable[[], Broker]:
        return lambda: SqliteBroker(str(path))

    @pytest.fixture
    def factory(self, path: Path) -> Factory:
        return "yeondong.messaging.brokers.sqlite:SqliteBroker", str(path)

    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Broker:
        broker = SqliteBroker(str(tmp_path / "bounded.db"), retention=Retention(max_bytes=20_000))
        broker.prepare()
        return broker


class TestSqliteInTheFileOfAnApplication(TestSqlite):
    """The file has tables of others, and a connection that writes to them."""

    @pytest.fixture
    def broker(self, path: Path) -> Broker:
        with sqlite3.connect(path) as application:
            application.execute("PRAGMA journal_mode=WAL")
            application.execute("CREATE TABLE log (position INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
            application.execute("INSERT INTO log (position, data) VALUES (1000, x'00')")
        application.close()
        broker = SqliteBroker(str(path))
        broker.prepare()
        return broker
