"""What an app refuses, and what it opens, before any system is asked."""

from __future__ import annotations

import pytest

from yeondong import Command, Event, Yeondong
from yeondong.errors import MessageRefused, ReceiverError

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
