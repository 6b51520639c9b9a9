"""The program that the suite runs as another process, and kills."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable

from yeondong.core.broker import Broker
from yeondong.core.clock import SystemClock
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Kind, Message
from yeondong.core.traits import Partitions
from yeondong.errors import ConnectionLost

PATIENCE_SECONDS = 20.0


def send(broker: Broker, sender: str, batches: str, size: str) -> None:
    """Send batch after batch, and say after each that it was sent."""
    sink = broker.sink()
    sink.open()
    for batch in range(int(batches)):
        sink.send(
            [
                Message(f"{sender}-{batch}-{number}", "order.placed", Kind.EVENT, "orders", sender, b"{}")
                for number in range(int(size))
            ],
            SystemClock().elapsed() + PATIENCE_SECONDS,
        )
        print(batch, flush=True)  # noqa: T201 - what the suite reads
    sink.close()


def receive(broker: Broker, epoch: str, total: str, settled: str) -> None:
    """Borrow messages, settle the first of them, say so, and hold the rest until the suite has ended this process."""
    leased = broker.traits.partitions is Partitions.LEASED
    source = broker.source("orders", "search")
    fence = Fence("flow", "process", int(epoch), SystemClock().elapsed() + 3600) if leased else None
    source.open(fence, lambda _partitions: None)
    found: list[Delivery] = []
    give_up = time.monotonic() + PATIENCE_SECONDS
    while len(found) < int(total) and time.monotonic() < give_up:
        found += source.receive(int(total) - len(found), 0.1)
    source.settle(found[: int(settled)])
    print(*(delivery.message.id for delivery in found), flush=True)  # noqa: T201 - what the suite reads
    sys.stdin.read()


def outlive(broker: Broker, total: str) -> None:
    """Borrow messages and say so; when told to, settle all of them, and follow the group until it has taken them."""
    source = broker.source("orders", "search")
    lost: list[frozenset[str]] = []
    source.open(None, lost.append)
    found: list[Delivery] = []
    give_up = time.monotonic() + PATIENCE_SECONDS
    while len(found) < int(total) and time.monotonic() < give_up:
        found += source.receive(int(total) - len(found), 0.1)
    print(*(delivery.message.id for delivery in found), flush=True)  # noqa: T201 - what the suite reads
    sys.stdin.readline()
    try:
        source.settle(found)
        while not lost and time.monotonic() < give_up:
            source.receive(0, 0)
            time.sleep(0.01)
    except ConnectionLost as expelled:
        print("expelled", expelled, flush=True)  # noqa: T201
    else:
        print("lost", *sorted(set().union(*lost)), flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    task, factory, argument, *rest = sys.argv[1:]
    module, _, name = factory.partition(":")
    tasks: dict[str, Callable[..., None]] = {"send": send, "receive": receive, "outlive": outlive}
    tasks[task](getattr(importlib.import_module(module), name)(argument), *rest)
