"""Lanes' work for sinks: send what was given as one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yeondong.core.delivery import DONE, UNHANDLED, Delivery, Park, Settled, Unhandled
from yeondong.core.failpoint import SENDING, SENT, Failpoint, never
from yeondong.core.message import order_key
from yeondong.core.sink import Sink
from yeondong.engine.lane import Halt
from yeondong.errors import ConnectionLost


class Sending:
    """Sends deliveries to a sink; what it can never take is parked, by message."""

    def __init__(self, sink: Sink, *, failpoint: Failpoint = never) -> None:
        self._sink = sink
        self._failpoint = failpoint
        self._open = False
        self.passed_over = 0
        self.in_hand: Delivery | None = None

    def __call__(self, deliveries: Sequence[Delivery], halt: Halt) -> Iterator[Settled]:
        batch: list[Delivery] = []
        behind: list[Delivery] = []
        parked: list[Settled] = []
        blocked: set[tuple[str, ...]] = set()
        check = self._sink.check
        if halt.covers(deliveries[0]):
            yield Settled(UNHANDLED, deliveries)
            return
        for delivery in deliveries:
            # Of the time nobody is asked again: the sink hands nothing over past it.
            told = halt.everything or halt.partitions
            if (blocked and order_key(delivery.message) in blocked) or (told and halt.covers(delivery)):
                blocked.add(order_key(delivery.message))  # the halt may end before the next one of the key
                behind.append(delivery)
                continue
            reason = delivery.flaw or check(delivery.message)
            if reason is None:
                batch.append(delivery)
            else:
                blocked.add(order_key(delivery.message))
                parked.append(Settled(Park(reason), [delivery]))
        if batch:
            settled = self._send(batch, halt)
            if type(settled[0].outcome) is Unhandled:
                # All of it comes back: an earlier message of a key must not find a later one parked before it.
                yield Settled(settled[0].outcome, deliveries)
                return
            yield from settled
        yield from parked
        if behind:
            yield Settled(UNHANDLED, behind)

    def _send(self, batch: Sequence[Delivery], halt: Halt) -> list[Settled]:
        try:
            if not self._open:
                self._sink.open()
                self._open = True
            self.in_hand = batch[0]
            self._failpoint(SENDING)
            refused = self._sink.send([d.message for d in batch], halt.deadline())
            self._failpoint(SENT)
        except ConnectionLost as away:
            self.close()
            return [Settled(Unhandled(outage=str(away)), batch)]
        if not refused:
            return [Settled(DONE, batch)]
        by_message = {id(one.message): one for one in refused}
        sent = Settled(DONE, [d for d in batch if id(d.message) not in by_message])
        others = [(d, by_message[id(d.message)]) for d in batch if id(d.message) in by_message]
        parked = [Settled(Park(one.reason), [delivery]) for delivery, one in others if not one.behind]
        behind = [delivery for delivery, one in others if one.behind]
        return [sent, *parked, *([Settled(UNHANDLED, behind)] if behind else [])]

    def close(self) -> None:
        self._open = False
        self._sink.close()
