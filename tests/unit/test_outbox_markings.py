"""The outbox's sources against a table in memory: what they lend, mark and find again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread
from typing import Any, cast

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Kind, Message
from yeondong.core.source import Lag, Source
from yeondong.core.store import Session, Store
from yeondong.errors import ConnectionLost, FenceLost, PositionLost
from yeondong.outbox.markings import PositionSource, StatusSource
from yeondong.outbox.markings.doorbell import Doorbell

FENCE = Fence("outbox", "me", epoch=1, deadline=10.0)
LONG_SECONDS = 30.0
SINCE = datetime(2026, 11, 20, tzinfo=UTC)


@dataclass
class Table:
    """Store, session and rows of an outbox at once. Row ids count from 1."""

    states: dict[int, str] = field(default_factory=dict)
    blocked: set[int] = field(default_factory=set)
    positions_saved: dict[str, str] = field(default_factory=dict)
    last_read: int = 0
    epoch: int = 1
    sessions: int = 0
    looks: int = 0
    watchers: list[Callable[[], None]] = field(default_factory=list)
    away: bool = False
    during_look: Callable[[], None] | None = None

    system = "store"
    address = "memory"
    poll_seconds: float | None = None

    def insert(self, count: int, state: str = "WAITING") -> None:
        first = max(self.states, default=0) + 1
        self.states |= dict.fromkeys(range(first, first + count), state)
        for wake in list(self.watchers):
            wake()

    # as the store

    def connect(self, *, apart: bool = False) -> Session:
        self.sessions += 1
        return cast("Session", self)

    def expect(self, threads: int) -> None:
        raise NotImplementedError

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._require_present()
        self.watchers.append(wake)
        return lambda: self.watchers.remove(wake)

    # as the session

    @property
    def outbox(self) -> Table:
        return self

    @property
    def positions(self) -> Table:
        return self

    def close(self) -> None:
        self.sessions -= 1

    # as the rows

    def waiting(self, limit: int, on_loan: Collection[int]) -> Sequence[Delivery]:
        self._look()
        ids = [id for id in self._in_state("WAITING") if id not in on_loan and id not in self.blocked]
        return [delivery(id) for id in ids[:limit]]

    def mark(self, ids: Sequence[int], fence: Fence) -> None:
        self._check(fence)
        for id in ids:
            self.states[id] = "DONE" if self.states[id] == "WAITING" else self.states[id]

    def lag(self) -> Lag:
        position = int(self.positions_saved.get("outbox", 0))
        ids = [id for id in self._in_state("WAITING") if id > position]
        return Lag(len(ids), SINCE if ids else None)

    # as the log

    @property
    def outbox_log(self) -> Table:
        return self

    def resume(self) -> None:
        self._require_present()
        self.last_read = int(self.positions_saved.get("outbox", 0))

    def read(self, limit: int) -> Sequence[Delivery]:
        self._look()
        found = [delivery(id) for id in sorted(self.states) if id > self.last_read][:limit]
        self.last_read = found[-1].receipt if found else self.last_read
        return found

    def save(self, receipt: int, fence: Fence) -> None:
        self._check(fence)
        self.positions_saved["outbox"] = str(receipt)

    # as the positions

    def load(self, name: str) -> str | None:
        self._require_present()
        return self.positions_saved.get(name)

    def _in_state(self, state: str) -> list[int]:
        return [id for id in sorted(self.states) if self.states[id] == state]

    def _look(self) -> None:
        self._require_present()
        self.looks += 1
        if self.during_look is not None:
            found, self.during_look = self.during_look, None
            found()

    def _check(self, fence: Fence) -> None:
        self._require_present()
        if fence.epoch < self.epoch:
            raise FenceLost(fence.name, fence.epoch)

    def _require_present(self) -> None:
        if self.away:
            raise ConnectionLost("store", self.address, "away")


def delivery(id: int) -> Delivery:
    message = Message(f"m{id}", "OrderPlaced", Kind.EVENT, "orders", str(id % 3), b"{}")
    return Delivery(message, receipt=id, partition="outbox")


def ids(deliveries: Sequence[Delivery]) -> list[Any]:
    return [lent.receipt for lent in deliveries]


def ignore(_partitions: frozenset[str]) -> None:
    """A leased source is never revoked."""


@pytest.fixture
def table() -> Table:
    return Table()


def by_status(table: Table) -> Source:
    source = StatusSource(cast("Store", table))
    source.open(FENCE, ignore)
    return source


def by_position(table: Table) -> Source:
    source = PositionSource(cast("Store", table))
    source.open(FENCE, ignore)
    return source


MARKINGS = [by_status, by_position]
Opened = Callable[[Table], Source]


# --- both


@pytest.mark.parametrize("opened", MARKINGS)
def test_rows_are_lent_once_lowest_id_first(table: Table, opened: Opened) -> None:
    table.insert(5)
    source = opened(table)

    assert ids(source.receive(3, 0)) == [1, 2, 3]
    assert ids(source.receive(3, 0)) == [4, 5]
    assert ids(source.receive(3, 0)) == []


@pytest.mark.parametrize("opened", MARKINGS)
def test_what_is_settled_is_not_lent_again_after_a_restart(table: Table, opened: Opened) -> None:
    table.insert(5)
    source = opened(table)
    lent = source.receive(5, 0)
    source.settle(lent[:2])
    source.settle(lent[:2])
    source.close()

    assert ids(opened(table).receive(5, 0)) == [3, 4, 5]


@pytest.mark.parametrize("opened", MARKINGS)
def test_what_was_on_loan_is_lent_again_after_a_restart(table: Table, opened: Opened) -> None:
    table.insert(3)
    source = opened(table)
    source.receive(3, 0)
    source.close()
    source.close()
    source.open(FENCE, ignore)

    assert ids(source.receive(5, 0)) == [1, 2, 3]


@pytest.mark.parametrize("opened", MARKINGS)
def test_what_is_given_back_is_lent_again_in_order(table: Table, opened: Opened) -> None:
    table.insert(6)
    source = opened(table)
    lent = source.receive(4, 0)

    source.give_back([lent[2], lent[1]])
    source.give_back([lent[1]])

    again = [*source.receive(3, 0), *source.receive(3, 0)]
    assert ids(again)[:2] == [2, 3]
    assert sorted(ids(again)) == [2, 3, 5, 6]


@pytest.mark.parametrize("opened", MARKINGS)
def test_nothing_is_borrowed_at_the_limit(table: Table, opened: Opened) -> None:
    table.insert(1)
    source = opened(table)

    assert list(source.receive(0, LONG_SECONDS)) == []
    assert ids(source.receive(1, 0)) == [1]


@pytest.mark.parametrize("opened", MARKINGS)
def test_an_older_epoch_marks_nothing(table: Table, opened: Opened) -> None:
    table.insert(2)
    source = opened(table)
    lent = source.receive(2, 0)
    table.epoch = 2

    with pytest.raises(FenceLost):
        source.settle(lent)

    assert table.lag().waiting == 2
    assert table.positions_saved == {}


@pytest.mark.parametrize("opened", MARKINGS)
def test_loans_count_as_waiting(table: Table, opened: Opened) -> None:
    table.insert(4)
    source = opened(table)
    lent = source.receive(3, 0)
    source.settle(lent[:1])

    assert source.lag() == Lag(3, SINCE)


@pytest.mark.parametrize("opened", MARKINGS)
def test_a_lost_store_is_reported_and_leaves_nothing_open(table: Table, opened: Opened) -> None:
    table.insert(1)
    source = opened(table)
    table.away = True
    with pytest.raises(ConnectionLost):
        source.receive(1, 0)
    source.close()
    with pytest.raises(ConnectionLost):
        source.open(FENCE, ignore)

    assert (table.sessions, table.watchers) == (0, [])

    table.away = False
    source.open(FENCE, ignore)
    assert ids(source.receive(1, 0)) == [1]


@pytest.mark.parametrize("source", [StatusSource(cast("Store", Table())), PositionSource(cast("Store", Table()))])
def test_a_source_needs_its_lease(source: Source) -> None:
    with pytest.raises(ValueError, match="open the source with its fence"):
        source.open(None, ignore)
    with pytest.raises(RuntimeError, match="used before open"):
        source.receive(1, 0)


# --- waiting


@pytest.mark.parametrize("opened", MARKINGS)
def test_a_commit_ends_the_wait(table: Table, opened: Opened) -> None:
    source = opened(table)
    table.during_look = lambda: Thread(target=table.insert, args=(2,)).start()

    assert ids(source.receive(5, LONG_SECONDS)) == [1, 2]


@pytest.mark.parametrize("opened", MARKINGS)
def test_a_wake_ends_the_wait_that_is_under_way(table: Table, opened: Opened) -> None:
    source = opened(table)
    table.during_look = lambda: Thread(target=source.wake).start()

    assert ids(source.receive(5, LONG_SECONDS)) == []


@pytest.mark.parametrize("opened", MARKINGS)
def test_a_wake_is_kept_for_the_next_wait_and_only_for_that(table: Table, opened: Opened) -> None:
    source = opened(table)
    source.wake()
    table.looks = 0

    assert ids(source.receive(5, LONG_SECONDS)) == []
    assert table.looks == 1
    assert ids(source.receive(5, 0.001)) == []
    assert table.looks == 3


def test_a_commit_between_looks_does_not_cost_the_next_wait() -> None:
    doorbell = Doorbell()
    looks: list[int] = []

    def look() -> Sequence[Delivery]:
        looks.append(1)
        return []

    doorbell.committed()
    doorbell.wait_for(look, 0.001)

    assert len(looks) == 2


def test_a_ring_during_the_last_look_is_heard_by_the_next_wait() -> None:
    doorbell = Doorbell()
    looks: list[int] = []

    def look() -> Sequence[Delivery]:
        looks.append(1)
        if len(looks) == 2:
            doorbell.ring()
        return []

    doorbell.wait_for(look, 0.001)
    doorbell.wait_for(look, LONG_SECONDS)

    assert len(looks) == 3


# --- where not every commit is told


def test_it_looks_by_itself_soon_after_work_and_less_often_when_idle() -> None:
    doorbell = Doorbell(poll_seconds=0.05)
    looks: list[int] = []

    def look() -> Sequence[Delivery]:
        looks.append(1)
        return [delivery(1)] if len(looks) == 4 else []

    assert ids(doorbell.wait_for(look, LONG_SECONDS)) == [1]
    for _ in range(3):
        assert ids(doorbell.wait_for(look, 0.1)) == []
    # One look at once, some in quick succession, and then at most one in 50 ms; a wait does not begin with one more.
    assert 5 <= len(looks) - 4 <= 11


def test_a_commit_between_two_waits_in_vain_is_heard() -> None:
    doorbell = Doorbell(poll_seconds=LONG_SECONDS)
    doorbell.wait_for(list, 0.001)
    doorbell.committed()

    assert ids(doorbell.wait_for(lambda: [delivery(1)], LONG_SECONDS)) == [1]


def test_a_look_without_a_wait_is_a_look() -> None:
    doorbell = Doorbell(poll_seconds=LONG_SECONDS)
    doorbell.wait_for(list, 0.001)

    assert ids(doorbell.wait_for(lambda: [delivery(1)], 0)) == [1]


# --- by status


def test_a_row_that_is_held_is_not_marked_when_it_is_given_back(table: Table) -> None:
    table.insert(2)
    source = by_status(table)
    lent = source.receive(2, 0)
    table.blocked = {1}

    source.give_back(lent[:1])
    source.settle(lent[1:])

    assert table.states == {1: "WAITING", 2: "DONE"}
    assert ids(source.receive(2, 0)) == []
    table.blocked = set()
    assert ids(source.receive(2, 0)) == [1]


def test_a_row_that_becomes_visible_late_is_lent_all_the_same(table: Table) -> None:
    table.states = {1: "WAITING", 3: "WAITING"}
    source = by_status(table)
    source.settle(source.receive(5, 0))
    table.states[2] = "WAITING"

    assert ids(source.receive(5, 0)) == [2]


# --- by position


def test_the_position_is_saved_once_for_a_batch_and_never_goes_back(table: Table) -> None:
    table.insert(4)
    source = by_position(table)
    lent = source.receive(4, 0)
    source.settle(lent[:3])
    source.settle(lent[:1])
    source.settle([])

    assert table.positions_saved == {"outbox": "3"}
    assert set(table.states.values()) == {"WAITING"}


def test_a_fresh_table_is_read_from_its_start(table: Table) -> None:
    table.insert(150)

    assert ids(by_position(table).receive(1, 0)) == [1]


def test_an_empty_table_is_read_from_its_start(table: Table) -> None:
    source = by_position(table)
    table.insert(1)

    assert ids(source.receive(1, 0)) == [1]


def test_what_is_lost_ends_the_opening_and_leaves_nothing_open(table: Table) -> None:
    class Lost(Table):
        def resume(self) -> None:
            raise PositionLost("a dump")

    lost = Lost()
    with pytest.raises(PositionLost):
        by_position(lost)
    assert lost.sessions == 0


def test_a_saved_position_is_where_it_goes_on(table: Table) -> None:
    table.insert(5)
    table.positions_saved = {"outbox": "3"}

    assert ids(by_position(table).receive(5, 0)) == [4, 5]
