"""What hangs is told with its name, and how long it has been at it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.message import Kind, Message
from yeondong.engine.dispatch import Dispatch
from yeondong.engine.handling import Plain
from yeondong.engine.watch import LONG_SECONDS, Watch


class Clock:
    seconds = 0.0

    def elapsed(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def delivery(id: str) -> Delivery:
    return Delivery(Message(id, "OrderPlaced", Kind.EVENT, "orders", "kim", b"{}"), id, "orders")


def test_what_hangs_is_told_from_the_first_look_that_saw_it_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock, work = Clock(), Plain(Dispatch({}))
    watch = Watch("orders/search", clock)
    work.in_hand = delivery("m1")
    with caplog.at_level(logging.WARNING):
        assert watch.look([work]) == []
        clock.seconds += LONG_SECONDS / 2
        assert watch.look([work]) == []
        clock.seconds += LONG_SECONDS
        [run] = watch.look([work])
        watch.look([work])

    assert (run.message_id, run.type, run.key, run.seconds) == ("m1", "OrderPlaced", "kim", LONG_SECONDS * 1.5)
    assert len(caplog.records) == 1
    assert "m1" in caplog.text


def test_another_message_in_hand_starts_anew() -> None:
    clock, work = Clock(), Plain(Dispatch({}))
    watch = Watch("orders/search", clock)
    for id in ("m1", "m2", "m3"):
        work.in_hand = delivery(id)
        clock.seconds += LONG_SECONDS
        assert watch.look([work]) == []
    work.in_hand = None
    clock.seconds += LONG_SECONDS
    assert watch.look([work]) == []
