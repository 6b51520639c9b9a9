"""Each broker driver against the shared suite."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from yeondong.core.broker import Broker
from yeondong.errors import ConnectionLost
from yeondong.messaging.brokers.memory import MemoryBroker
from yeondong.messaging.brokers.sqlite import Retention, SqliteBroker
from yeondong.testing.broker_suite import BrokerSuite, Factory, Scene
from yeondong.testing.broker_suite.scene import ids, message, messages, receiver, soon


class TestMemory(BrokerSuite):
    @pytest.fixture
    def broker(self) -> Broker:
        return MemoryBroker()

    @pytest.fixture
    def bounded(self) -> Broker:
        return MemoryBroker(max_bytes=20_000)

    def test_a_group_has_one_reader(self, scene: Scene) -> None:
        scene.register()
        first, second = scene.opened(), scene.source()

        with pytest.raises(ConnectionLost, match="open elsewhere"):
            scene.open(second)
        second.close()
        with pytest.raises(ConnectionLost, match="open elsewhere"):
            scene.open(second)

        first.close()
        scene.open(second)

    def test_a_waiting_sender_goes_on_when_a_group_has_read(self) -> None:
        scene = Scene(MemoryBroker(max_messages=5), None)
        scene.register()
        source = scene.opened()
        scene.send(messages(5))
        sender = threading.Thread(target=scene.send, args=(messages(3, prefix="late"),))
        sender.start()

        source.settle(scene.drain(source, 3))
        sender.join()

        assert ids(scene.drain(source, 5)) == ["m3", "m4", "late0", "late1", "late2"]

    def test_what_nobody_receives_makes_room(self) -> None:
        scene = Scene(MemoryBroker(max_bytes=10_000), None)
        for i in range(50):
            scene.send([message(f"m{i}", channel="unheard", data=bytes(100))])
        scene.send([message("large", channel="unheard", data=bytes(9_950))])
        scene.send([message("larger than the bound", data=bytes(20_000))])
        scene.register(receiver(channel="unheard"), receiver(), since="start")

        assert ids(scene.drain(scene.opened(), 1)) == ["larger than the bound"]
        assert scene.progress(channel="unheard").waiting == 0

    def test_a_closed_broker_lets_nobody_wait(self) -> None:
        broker = MemoryBroker()
        broker.close()

        with pytest.raises(ConnectionLost, match="closed"):
            broker.sink().send(messages(1), soon())


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
        broker.create()
        broker.prepare()
        return broker
