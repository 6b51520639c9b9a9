"""Which handler gets a message that does not say what it is."""

from __future__ import annotations

from yeondong import Event
from yeondong.core.delivery import Delivery, Park
from yeondong.core.message import Kind, Message
from yeondong.engine.dispatch import Dispatch
from yeondong.messaging.handlers import bind


class Placed(Event, channel="orders"):
    total: int


class Cancelled(Event, channel="orders"):
    reason: str


def on_placed(_event: Placed) -> None:
    pass


def on_cancelled(_event: Cancelled) -> None:
    pass


FOREIGN = Delivery(Message("kafka:orders/0/7", "", Kind.EVENT, "orders", None, b'{"total":3}'), 7, "orders/0")
PLACED = bind(on_placed, Placed)
CANCELLED = bind(on_cancelled, Cancelled)


def test_a_message_without_a_type_is_taken_for_the_one_that_the_group_handles() -> None:
    found = Dispatch({"Placed": PLACED}).resolve(FOREIGN)

    assert found == (PLACED, Placed(total=3))


def test_among_several_types_it_is_parked() -> None:
    found = Dispatch({"Placed": PLACED, "Cancelled": CANCELLED}).resolve(FOREIGN)

    assert isinstance(found, Park)
    assert "names no type" in found.reason
    assert "Cancelled, Placed" in found.reason
