"""What a test of a store needs around it: two sessions of independent objects, messages, leases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, TypeVar

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Kind, Message
from yeondong.core.store import Hold, OpenTransaction, OutboxLog, Session, Store
from yeondong.core.traits import Traits

FLOW: Final = "orders to search"
GROUP: Final = "search"
LONG_SECONDS: Final = 3600.0
SHORT_SECONDS: Final = 0.1
OCCURRED_AT: Final = datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC)

T = TypeVar("T")


def message(id: str, key: str | None = None, *, channel: str = "orders", data: bytes | None = b"{}") -> Message:
    return Message(id, "order.placed", Kind.EVENT, channel, key, data, origin="/shop", occurred_at=OCCURRED_AT)


RICH: Final = Message(
    "rich",
    "order.placed",
    Kind.COMMAND,
    "orders",
    "연동",
    bytes(range(256)),
    {"traceparent": "00-ab-cd-01", "raw": b"\x00\xff", "text": '{"base64": "not bytes"}'},
    "/shop",
    datetime(2026, 2, 3, 4, 5, 6, 789_123, UTC),
)
BARE: Final = Message("bare", "t", Kind.EVENT, "c", None, None)


def lent(message: Message, *, attempt: int = 1, receipt: object = 0) -> Delivery:
    """Return a delivery as a source would lend it."""
    return Delivery(message, receipt, "partition", attempt)


def hold(id: str, key: str | None = None, *, after_seconds: float = 0.0, attempt: int = 1) -> Hold:
    return Hold(lent(message(id, key), attempt=attempt), after_seconds=after_seconds)


def failed(id: str, key: str | None = None, *, blocks: bool = True, attempt: int = 1, error: str = "boom") -> Hold:
    return Hold(lent(message(id, key), attempt=attempt), failed=True, blocks=blocks, error=error)


def ids(found: Iterable[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in found]


class Scene:
    """One store, and another object on the same database, as another process would have it."""

    def __init__(self, store: Store, rival: Store, traits: Traits, *, patience_seconds: float) -> None:
        self.store = store
        self.rival_store = rival
        self.traits = traits
        self.session = store.connect()
        self.rival = rival.connect()
        self.patience_seconds = patience_seconds
        self._also: list[Session] = []

    def another(self, store: Store | None = None) -> Session:
        """Return one more session, as another thread would have it."""
        session = (store or self.store).connect()
        self._also.append(session)
        return session

    def needs(self, condition: object, promise: str) -> None:
        """Skip a test about what these Traits do not promise."""
        if not condition:
            pytest.skip(f"Traits: {promise}")

    @contextmanager
    def committed(self, session: Session | None = None) -> Iterator[OpenTransaction]:
        """Run a block in a transaction of the store."""
        tx = (session or self.session).begin("test")
        try:
            yield tx
            tx.commit()
        finally:
            tx.rollback()

    def add(self, *messages: Message) -> None:
        """Put messages into the outbox, in one transaction."""
        with self.committed() as tx:
            self.store.add(tx, messages)

    def waiting(self, on_loan: Sequence[int] = (), limit: int = 100) -> list[str]:
        return ids(self.session.outbox.waiting(limit, on_loan))

    def row(self, id: str) -> Delivery:
        """Return one outbox row that waits and is not blocked."""
        session = self.store.connect()
        try:
            return next(found for found in session.outbox.waiting(1_000, ()) if found.message.id == id)
        finally:
            session.close()

    def log(self, store: Store | None = None) -> OutboxLog:
        """Return the outbox's log as a relay sees it that has just been opened."""
        log = self.another(store).outbox_log
        log.resume()
        return log

    def claim(self, *claimed: str, group: str = GROUP) -> set[str]:
        with self.committed() as tx:
            return self.session.inbox.claim(tx, group, claimed)

    def lease(self, name: str = FLOW, *, seconds: float = LONG_SECONDS) -> Fence:
        fence = self.session.leases.take(name, "worker", seconds)
        assert fence is not None, f"the lease {name!r} was not free"
        return fence

    def overtaken(self, name: str = FLOW) -> tuple[Fence, Fence]:
        """Return the fence of a worker that was paused beyond its lease, and that of the one which took it over."""
        old = self.lease(name, seconds=SHORT_SECONDS)
        return old, self.until(lambda: self.rival.leases.take(name, "rival", LONG_SECONDS))

    def until(self, look: Callable[[], T | None]) -> T:
        """Look until there is something true, for as long as the test has patience."""
        give_up = time.monotonic() + self.patience_seconds
        pause = threading.Event()
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < give_up, f"did not come within {self.patience_seconds:g} s"
            pause.wait(0.01)

    def close(self) -> None:
        for session in (self.session, self.rival, *self._also):
            session.close()
