"""Orders on PostgreSQL and Kafka while one of them is away: who places them, and what must have become of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance import orders
from tests.acceptance.checker import broken, state
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import Process, World, until, until_none
from yeondong.core.store import Transaction
from yeondong.errors import YeondongError

RECOVERY_SECONDS = 10.0  # what is promised
NOISE_SECONDS = 5.0  # what a busy machine may add
LEAST_RATE = 100  # effects a second, of the backlog that an outage has left
FLOWS = ("outbox", "orders/search", "orders/statistics", "orders/letters", "points/points")


class Site(World):
    """A world whose database is on PostgreSQL and whose broker is Kafka."""

    def __init__(self, folder: Path, store: str, broker: str, prefix: str = "") -> None:
        self._store = store
        self.prefix = prefix
        self._systems = {"store": store, "broker": broker, "kafka_prefix": prefix, "kafka_partitions": 2}
        super().__init__(folder)

    def set(self, **settings: Any) -> None:
        super().set(**{**self._systems, **settings})

    def rows(self, statement: str, *values: Any, database: Path | None = None) -> list[Any]:
        with psycopg.connect(self._store, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def work(self) -> Sequence[Process]:
        """Start a relay and two workers, and wait until they have applied something."""
        workers = [self.start("relay"), self.start("handlers"), self.start("handlers")]
        for worker in workers:
            worker.ready()
        return workers

    def effects(self) -> int:
        return self.count("effects")

    def apply_on(self, effects: int = 50) -> None:
        """Wait, for the promised time, until so many more effects have been applied."""
        enough = self.effects() + effects
        until(lambda: self.effects() >= enough, "orders have effects", RECOVERY_SECONDS + NOISE_SECONDS)

    def under_load(self) -> None:
        """Wait until every flow is at work."""
        until(lambda: self.count("effects", "receiver = 'points'") >= 10, "orders have become points")

    def wrong(self) -> list[str]:
        """Everything that is not as promised, once all is to be done."""
        return broken(state(self.rows, orders.LETTERS), letters=orders.LETTERS)

    def backlog(self) -> int:
        """How many effects are still to come."""
        return 3 * self.count("placed") - self.effects()

    def recovered(self) -> None:
        """Wait for the promised time, from now, until all that was placed has had its effects."""
        seconds = RECOVERY_SECONDS + self.backlog() / LEAST_RATE + NOISE_SECONDS
        began = time.monotonic()
        until_none(self.wrong, seconds)
        print(f"recovered after {time.monotonic() - began:.1f} s of {seconds:.1f} s")  # noqa: T201 - where a test fails

    def noticed(self) -> bool:
        """Whether a flow has paused, or lost what it had: an outage that nobody sees tests nothing."""
        logs = [process.log() for process in self.processes]
        return any(sign in log for log in logs for sign in ("flow.paused", "flow.abandoned", "keeper.no"))

    def blameless(self) -> None:
        """An outage is nobody's failure: it parks nothing, counts no attempt, and surprises nobody."""
        assert self.rows("SELECT DISTINCT attempt FROM effects") == [(1,)]
        for process in self.processes:
            assert "flow.failed" not in process.log()
            assert "flow.fault" not in process.log()


class Customers:
    """Place orders all the time, through outages too, as a program does that asks what became of a lost commit."""

    def __init__(self, count: int = 5, pause_seconds: float = 0.05) -> None:
        self._app = orders.make()
        self._names = [f"c{number:02}" for number in range(count)]
        self._pause_seconds = pause_seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._place_all)
        self.rounds = 0
        self.refused = 0

    @contextmanager
    def ordering(self) -> Iterator[Customers]:
        """Place orders meanwhile. In the end no order is half placed."""
        self._thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._thread.join(60)
            assert not self._thread.is_alive(), "the customers still wait for the database"

    def order_on(self, rounds: int = 3) -> None:
        """Wait until they have placed so many more."""
        enough = self.rounds + rounds
        until(lambda: self.rounds >= enough, "customers can order")

    def _place_all(self) -> None:
        while not self._closing.wait(self._pause_seconds):
            self._place_round()
            self.rounds += 1

    def _place_round(self) -> None:
        deadline = time.monotonic() + 50
        while True:
            try:
                with self._app.transaction() as tx:
                    if not self._placed(tx):
                        orders.add(self._app, tx, [OrderPlaced(name, self.rounds) for name in self._names])
            except (YeondongError, psycopg.Error):
                self.refused += 1
                assert time.monotonic() < deadline, "the database took no order for 50 seconds"
                time.sleep(0.1)
            else:
                return

    def _placed(self, tx: Transaction) -> bool:
        statement = "SELECT 1 FROM placed WHERE customer = :customer AND number = :number"
        return bool(list(tx.execute(statement, {"customer": self._names[0], "number": self.rounds})))
