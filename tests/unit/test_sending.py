"""What a lane reports of what a sink refused."""

from __future__ import annotations

from collections.abc import Sequence

from yeondong.core.clock import SystemClock
from yeondong.core.delivery import DONE, UNHANDLED, Delivery, Park, Settled
from yeondong.core.message import Kind, Message
from yeondong.core.sink import Refused
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.engine.lane import Halt
from yeondong.engine.sending import Sending


class Sink:
    """Refuses what is called bad when it is sent, and does not send what stands behind it."""

    traits = Traits(durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.SHARED)

    def open(self) -> None: ...

    def check(self, message: Message) -> str | None:
        return None

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        bad = {message.key for message in messages if message.id == "bad"}
        return [
            Refused(message, "it is bad", behind=message.id != "bad")
            for message in messages
            if message.id == "bad" or (message.key in bad and message.id != "before")
        ]

    def close(self) -> None: ...


def test_what_stands_behind_a_refused_message_is_not_done() -> None:
    deliveries = [
        Delivery(Message(id, "t", Kind.EVENT, "orders", key, b""), receipt=number, partition="")
        for number, (id, key) in enumerate([("before", "a"), ("bad", "a"), ("other", "b"), ("behind", "a")])
    ]

    settled = list(Sending(Sink())(deliveries, Halt(SystemClock(), None)))

    before, bad, other, behind = deliveries
    assert settled == [
        Settled(DONE, [before, other]),
        Settled(Park("it is bad"), [bad]),
        Settled(UNHANDLED, [behind]),
    ]
