"""Sides of ``engine.handler``: messages in memory, decoded and given to a typed handler by 4 threads."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from zlib import crc32

import msgspec

from benchmarks.sides.running import run, wait_for
from yeondong import Event, Yeondong
from yeondong.app.assembly import make_worker
from yeondong.core.broker import Broker
from yeondong.core.delivery import Delivery
from yeondong.core.failpoint import Failpoint, never
from yeondong.core.message import Message
from yeondong.messaging.brokers.memory import MemoryBroker

BYTES = 256
KEYS = 1_000
RUN_MESSAGES = 64
WAIT_SECONDS = 0.05
CALLS = 1_000_000


class Order(Event, channel="orders", key="customer"):
    order_id: int
    customer: str
    note: str


class InMemory(Yeondong):
    """An app whose messages are in memory, as many as are measured."""

    def __init__(self, folder: str, messages: int) -> None:
        super().__init__("measured", store=f"sqlite:///{Path(folder) / 'store.db'}")
        self._memory = MemoryBroker(max_messages=messages + KEYS, max_bytes=(messages + KEYS) * BYTES)

    @property
    def broker(self) -> Broker:
        return self._memory


def declared() -> Yeondong:
    """Return an app that only makes messages."""
    app = Yeondong("measured")
    app.sends(Order)
    return app


def make_messages(app: Yeondong, count: int) -> list[Message]:
    """Make different messages of 256 bytes of data each, their keys in turn."""
    empty = len(msgspec.json.encode(Order(10_000_000, "customer-000", "")))
    orders = (
        Order(10_000_000 + number, f"customer-{number % KEYS:03}", "x" * (BYTES - empty)) for number in range(count)
    )
    return [message for order in orders for message in app.messages([order])]


def handle(order: Order) -> None:
    """Do nothing: what is measured is the way there."""


def ours(messages: int, lanes: int) -> Mapping[str, float]:
    """Run the app's flow, as ``yeondong run`` does, until all is settled."""
    return {"rate": _rate(messages, lanes, never)}


def counted(messages: int, lanes: int) -> Mapping[str, float]:
    """Say how much of the time goes into failpoints that are switched off: calls by the time of a call."""
    calls: deque[str] = deque()
    rate = _rate(messages, lanes, calls.append)
    began = time.perf_counter()
    for _ in range(CALLS):
        never("flow.received")
    seconds = (time.perf_counter() - began) / CALLS
    return {"percent": 100 * seconds * len(calls) / messages * rate, "calls_per_thousand": 1000 * len(calls) / messages}


def _rate(messages: int, lanes: int, failpoint: Failpoint) -> float:
    with tempfile.TemporaryDirectory() as folder:
        app = InMemory(folder, messages)
        app.subscribe(Order, group="search", lanes=lanes)(handle)
        app.register()
        sink = app.broker.sink()
        made = make_messages(app, messages)
        worker = make_worker(app, "handlers", failpoint=failpoint)
        flow = worker.flows[0]
        worker.start()
        # The first thousand show that the flow is open and at work; they don't count.
        sink.send(make_messages(app, KEYS), float("inf"))
        wait_for(lambda: flow.handled == KEYS)
        sink.send(made, float("inf"))
        began, already = time.perf_counter(), flow.handled
        wait_for(lambda: app.broker.groups()[0].waiting == 0)
        seconds = time.perf_counter() - began
        assert flow.handled == messages + KEYS
        worker.stop()
        return (messages + KEYS - already) / seconds


def thread_pool(messages: int, lanes: int) -> Mapping[str, float]:
    """Give each message to the executor as a call of its own."""
    decode = msgspec.json.Decoder(Order).decode

    def decode_and_handle(message: Message) -> None:
        handle(decode(message.data or b""))

    made = make_messages(declared(), messages)
    with ThreadPoolExecutor(lanes) as executor:
        began = time.perf_counter()
        for future in [executor.submit(decode_and_handle, message) for message in made]:
            future.result()
        return {"rate": messages / (time.perf_counter() - began)}


def bare_lanes(messages: int, lanes: int, in_flight: int) -> Mapping[str, float]:
    """Pass lists from one thread to lanes and back, keep each key on its lane, and settle prefixes: nothing else."""
    made = make_messages(declared(), messages)
    source = [Delivery(message, number, "orders") for number, message in enumerate(made)]
    return {"rate": messages / BareLanes(lanes, in_flight).pass_all(source)}


class BareLanes:
    """The least that an engine of threads has to do."""

    def __init__(self, lanes: int, in_flight: int) -> None:
        self._in_flight = in_flight
        self._decode: Callable[[Any], Order] = msgspec.json.Decoder(Order).decode
        self._lists: list[SimpleQueue[Sequence[Delivery] | None]] = [SimpleQueue() for _ in range(lanes)]
        self._results: deque[Sequence[Delivery]] = deque()
        self._wake = threading.Event()
        self._threads = [threading.Thread(target=self._lane, args=(lists,)) for lists in self._lists]

    def pass_all(self, source: Sequence[Delivery]) -> float:
        """Return how many seconds it took until all were settled."""
        for thread in self._threads:
            thread.start()
        began = time.perf_counter()
        received = settled = returned = 0
        done: set[int] = set()
        while settled < len(source):
            while self._results:
                run_of_one_lane = self._results.popleft()
                returned += len(run_of_one_lane)
                done.update([delivery.receipt for delivery in run_of_one_lane])
            while settled in done:
                done.remove(settled)
                settled += 1
            room = self._in_flight - (received - returned)
            if room > 0 and received < len(source):
                self._give(source[received : received + room])
                received = min(received + room, len(source))
            elif not self._results:
                self._wake.clear()
                if not self._results:
                    self._wake.wait(WAIT_SECONDS)
        seconds = time.perf_counter() - began
        for lists in self._lists:
            lists.put(None)
        return seconds

    def _give(self, deliveries: Sequence[Delivery]) -> None:
        split: list[list[Delivery]] = [[] for _ in self._lists]
        for delivery in deliveries:
            split[crc32((delivery.message.key or "").encode()) % len(split)].append(delivery)
        for lists, part in zip(self._lists, split, strict=True):
            if part:
                lists.put(part)

    def _lane(self, lists: SimpleQueue[Sequence[Delivery] | None]) -> None:
        decode = self._decode
        while (deliveries := lists.get()) is not None:
            for start in range(0, len(deliveries), RUN_MESSAGES):
                some = deliveries[start : start + RUN_MESSAGES]
                for delivery in some:
                    handle(decode(delivery.message.data))
                self._results.append(some)
                self._wake.set()


if __name__ == "__main__":
    run(ours, counted, thread_pool, bare_lanes)
