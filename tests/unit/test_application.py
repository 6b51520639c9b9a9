"""What an app refuses, and what it opens, before any system is asked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from yeondong import Command, Event, Yeondong
from yeondong.app import application
from yeondong.errors import MessageRefused, ReceiverError, SettingsError

MEBIBYTE = 1 << 20


class Scanned(Event, channel="scans"):
    image: str


class GrantPoints(Command, channel="points", type="grant"):
    amount: int


class GrantMiles(Command, channel="miles", type="grant"):
    amount: int


@pytest.fixture
def app() -> Yeondong:
    app = Yeondong("shop", broker="memory:")
    app.sends(Scanned)
    return app


@pytest.mark.parametrize(
    ("allowed", "size", "why"),
    [
        (4 * MEBIBYTE, 2 * MEBIBYTE, f"at most {MEBIBYTE} are allowed .the most that the broker takes"),
        (1_000, 2_000, "at most 1000 are allowed .max_message_bytes"),
    ],
)
def test_what_setting_or_broker_never_let_through_is_refused_where_it_is_made(
    app: Yeondong, monkeypatch: pytest.MonkeyPatch, allowed: int, size: int, why: str
) -> None:
    monkeypatch.setenv("YEONDONG_MAX_MESSAGE_BYTES", str(allowed))

    with pytest.raises(MessageRefused, match=why):
        app.messages([Scanned("x" * size)])

    assert len(app.messages([Scanned("x" * 900)])) == 1


def test_a_receiver_of_the_same_type_in_another_channel_is_no_receiver(app: Yeondong) -> None:
    app.sends(GrantPoints)

    @app.handle(GrantMiles)
    def grant(command: GrantMiles) -> None: ...

    with pytest.raises(ReceiverError, match="grant of channel 'points' has no receiver"):
        app.check_sent(app.receivers())


def test_both_commands_of_one_type_are_looked_after(app: Yeondong) -> None:
    app.sends(GrantPoints)
    app.sends(GrantMiles, external=True)

    with pytest.raises(ReceiverError, match="channel 'points'"):
        app.check_sent([])


@pytest.mark.parametrize("make", ["open_store", "open_broker", "Publisher"])
def test_what_threads_ask_for_at_once_is_made_once(app: Yeondong, monkeypatch: pytest.MonkeyPatch, make: str) -> None:
    made, together = counted(monkeypatch, make), threading.Barrier(4)
    ask: Callable[[], Any] = {
        "open_store": lambda: app.store,
        "open_broker": lambda: app.broker,
        "Publisher": lambda: app.publish(Scanned("x")),
    }[make]

    def use() -> Any:
        together.wait()
        return ask()

    with ThreadPoolExecutor(4) as threads:
        found = [asked.result() for asked in [threads.submit(use) for _ in range(4)]]

    assert len(made) == 1
    assert len({id(each) for each in found}) == 1


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Make something slowly enough for other threads to come in between, and note it."""
    made: list[Any] = []
    real = getattr(application, name)

    def make(*arguments: Any) -> Any:
        time.sleep(0.02)
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(application, name, make)
    return made


def test_a_forked_process_opens_anew_whoever_held_the_lock(app: Yeondong) -> None:
    parents = app.broker

    with app._opened().lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if app.broker is not parents and app.broker is app.broker else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("what", ["store", "broker"])
@pytest.mark.parametrize(
    "url",
    [
        "sqlite://shop:secret@host/shop.db",
        "sqlite:shop.db?password=secret",
        "oracle://shop:secret@db/shop",
        "shop:secret@db",
        "host=db password=secret",
    ],
)
def test_a_url_that_cannot_be_used_is_shown_without_its_password(what: str, url: str) -> None:
    app = Yeondong("shop", store=url) if what == "store" else Yeondong("shop", broker=url)

    with pytest.raises(SettingsError) as raised:
        getattr(app, what)

    assert "secret" not in str(raised.value)
    assert "***" in str(raised.value)


def test_a_store_without_a_broker_is_shown_without_its_password() -> None:
    with pytest.raises(SettingsError, match=r"oracle://shop:\*\*\*@db.*carries no broker"):
        _ = Yeondong("shop", store="oracle://shop:secret@db/shop").broker
