"""A relay with nothing to do hardly asks the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.schemas import schema_of_its_own
from yeondong import Event, Yeondong
from yeondong.app.assembly import make_worker
from yeondong.connections.postgresql_guard import Cursor

SECONDS = 4.0
AT_MOST_A_SECOND = 5


class Placed(Event, channel="orders"):
    number: int


@pytest.fixture
def app(tmp_path: Any) -> Iterator[Yeondong]:
    with schema_of_its_own() as (url, _):
        app = Yeondong("idle", store=url, broker=f"sqlite:///{tmp_path}/broker.db")
        app.outbox()
        app.sends(Placed)
        app.store.create()
        app.broker.create()
        yield app


def test_an_idle_relay_asks_at_most_five_times_a_second(app: Yeondong, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    execute = Cursor.execute

    def counted(self: Cursor, query: Any, *rest: Any, **options: Any) -> Cursor:
        asked.append(query)
        return execute(self, query, *rest, **options)

    worker = make_worker(app, "relay")
    worker.start()
    pause = threading.Event()
    pause.wait(1.0)  # what is asked once, at the start
    monkeypatch.setattr(Cursor, "execute", counted)
    pause.wait(SECONDS)
    found = len(asked)
    assert worker.stop()

    assert 0 < found <= AT_MOST_A_SECOND * (SECONDS + 1)
