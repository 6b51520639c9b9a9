"""Transactions as they come in bad hours, a relay that reads meanwhile, and what the two must agree on.

Each writer locks a key's row before it writes messages about it, as applications are told to. Apart from that nothing
is orderly: transaction ids and row ids are taken early and committed late, savepoints and whole transactions are rolled
back, one runs for nearly all of the time, and so does one in another database of the server.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.store import RELAY, Store
from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite.scene import message

KEYS = 12
WRITERS = 6
TRANSACTIONS = 50
LONG_SECONDS = 1.5
GIVE_UP_SECONDS = 45.0

TABLE = "CREATE TABLE counters (key text PRIMARY KEY, value int NOT NULL)"
FILL = "INSERT INTO counters SELECT 'k' || number, 0 FROM generate_series(0, %s) AS number"
CHANGE = "UPDATE counters SET value = value + 1 WHERE key = %s RETURNING value"
WRITTEN = "SELECT message_id FROM yeondong_outbox"


class Reader(Protocol):
    """A relay: what it reads, and how it remembers what was sent. Made anew at each opening."""

    def read(self, limit: int) -> Sequence[Delivery]: ...

    def sent(self, deliveries: Sequence[Delivery]) -> None: ...


@dataclass
class ByStatus:
    """The relay's part of marking by status."""

    store: Store
    fence: Fence
    on_loan: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.outbox = self.store.connect().outbox

    def read(self, limit: int) -> Sequence[Delivery]:
        found = self.outbox.waiting(limit, self.on_loan)
        self.on_loan.update(delivery.receipt for delivery in found)
        return found

    def sent(self, deliveries: Sequence[Delivery]) -> None:
        ids = [delivery.receipt for delivery in deliveries]
        self.outbox.mark(ids, self.fence)
        self.on_loan.difference_update(ids)


@dataclass
class ByPosition:
    """The relay's part of marking by position."""

    store: Store
    fence: Fence

    def __post_init__(self) -> None:
        self.log = self.store.connect().outbox_log
        self.log.resume()

    def read(self, limit: int) -> Sequence[Delivery]:
        return self.log.read(limit)

    def sent(self, deliveries: Sequence[Delivery]) -> None:
        self.log.save(deliveries[-1].receipt, self.fence)


MakeReader = Callable[[Store, Fence], Reader]


def torture(url: str, elsewhere: str, make: MakeReader, seed: int) -> list[str]:
    """Write and read at the same time; return what is wrong afterwards."""
    store = PostgresqlStore(url)
    store.create()
    with psycopg.connect(url) as connection:
        connection.execute(TABLE)
        connection.execute(FILL, (KEYS,))
    fence = store.connect().leases.take(RELAY, "torture", 3600)
    assert fence is not None
    over = threading.Event()
    writers = [threading.Thread(target=_write, args=(url, number, seed, over)) for number in range(WRITERS)]
    with _open_elsewhere(elsewhere), contextlib.ExitStack() as stack:
        stack.callback(over.set)
        for writer in writers:
            writer.start()
        sent = _relay(store, fence, make, seed, writers)
    return _findings(url, sent)


@contextlib.contextmanager
def _open_elsewhere(url: str) -> Iterator[None]:
    """Keep a transaction that writes open in another database of the server."""
    with psycopg.connect(url) as other:
        other.execute("CREATE TABLE own (number int)")
        yield
        other.rollback()


# --- writers ----------------------------------------------------------------------------------------------------------


def _write(url: str, number: int, seed: int, over: threading.Event) -> None:
    chance = random.Random(f"{seed}/{number}")
    store = PostgresqlStore(url)
    with psycopg.connect(url, autocommit=True) as connection:
        if number == 0:
            _one_long(store, connection, over)
        for _ in range(TRANSACTIONS):
            if not over.is_set():
                _one(store, connection, chance, over)


def _one_long(store: Store, connection: psycopg.Connection[Any], over: threading.Event) -> None:
    """Take ids first of all, and commit last."""
    with connection.transaction():
        store.add(connection, [_message(connection, f"k{KEYS}")])
        over.wait(LONG_SECONDS)
        store.add(connection, [_message(connection, f"k{KEYS}")])


def _one(store: Store, connection: psycopg.Connection[Any], chance: random.Random, over: threading.Event) -> None:
    undone = chance.random() < 0.2
    with connection.transaction(force_rollback=undone):
        if chance.random() < 0.5:
            connection.execute("SELECT pg_current_xact_id()")  # early: the order of these is not that of the changes
            over.wait(chance.random() * 0.02)
        # Always in this order, so that nobody waits in a circle.
        for key in sorted({chance.randrange(KEYS) for _ in range(chance.choice((1, 1, 2, 3)))}):
            with connection.transaction(force_rollback=chance.random() < 0.15):
                store.add(connection, [_message(connection, f"k{key}") for _ in range(chance.choice((1, 1, 2, 5)))])
        # A few commit late.
        over.wait(chance.random() * (0.15 if chance.random() < 0.2 else 0.004))


def _message(connection: psycopg.Connection[Any], key: str) -> Any:
    row = connection.execute(CHANGE, (key,)).fetchone()
    assert row is not None
    # A number that was rolled back is given again, to another message: its id says which attempt it is.
    return message(f"{key}/{row[0]}/{random.getrandbits(32):x}", key)


# --- the relay --------------------------------------------------------------------------------------------------------


def _relay(
    store: Store, fence: Fence, make: MakeReader, seed: int, writers: Sequence[threading.Thread]
) -> list[list[str]]:
    """Read and mark until nothing comes any more; return the ids that each opening sent."""
    chance = random.Random(seed)
    sent: list[list[str]] = []
    give_up = time.monotonic() + GIVE_UP_SECONDS
    ended = False
    while not ended:
        reader, opening = make(store, fence), list[str]()
        sent.append(opening)
        for _ in range(chance.randrange(20, 60)):
            last_look = not any(writer.is_alive() for writer in writers)
            found = reader.read(chance.choice((1, 3, 10, 50, 200)))
            opening.extend(delivery.message.id for delivery in found)
            time.sleep(chance.random() * 0.01)  # between its looks others commit, and that is what is tested
            if found and chance.random() < 0.9:
                reader.sent(found[: chance.randrange(1, len(found) + 1)] if chance.random() < 0.1 else found)
            elif found:
                break  # it dies with what it sent and did not mark
            if last_look and not found:
                ended = True
                break
        assert time.monotonic() < give_up, "the relay does not come to an end"
    return sent


# --- the verdict ------------------------------------------------------------------------------------------------------


def _findings(url: str, sent: Sequence[Sequence[str]]) -> list[str]:
    with psycopg.connect(url) as connection:
        committed = {id for (id,) in connection.execute(WRITTEN)}
    assert len(committed) > 200, "too little was written to prove anything"
    first: dict[str, None] = {}
    for opening in sent:
        first.update(dict.fromkeys(opening))
    found = [f"{id} was committed and never sent" for id in sorted(committed - first.keys())]
    found += [f"{id} was sent and never committed" for id in first if id not in committed]
    found += [f"an opening sent {id} twice" for opening in sent for id in opening if opening.count(id) > 1]
    last: dict[str, int] = {}
    for id in first:
        key, number, _ = id.split("/")
        if int(number) < last.get(key, 0):
            found.append(f"{id} was sent after number {last[key]} of its key")
        last[key] = int(number)
    return found
