"""A store in memory that outlives its processes: transactions, fences, and lines that drop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from tests.simulation.world import Process, World
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Message, order_key
from yeondong.core.store import Claim, Control, HeldReceipt, Hold, OpenTransaction, WorkerReport
from yeondong.errors import ConnectionLost, FenceLost, StoreError

SYSTEM = "store"


@dataclass(slots=True)
class Entry:
    """One row of held."""

    id: int
    message: Message
    partition: str
    attempt: int
    due: float
    failed: bool
    blocks: bool
    error: str | None
    by: str = ""


@dataclass(slots=True)
class Lease:
    owner: str | None
    epoch: int
    until: float


@dataclass(slots=True)
class Owned:
    """Who claimed a partition last."""

    owner: str | None
    epoch: int


@dataclass(slots=True)
class SimStore:
    """What is on the disk."""

    world: World
    leases: dict[str, Lease] = field(default_factory=dict)
    owned: dict[str, Owned] = field(default_factory=dict)
    inbox: dict[tuple[str, str], None] = field(default_factory=dict)
    claimed: dict[tuple[str, str], SimTransaction] = field(default_factory=dict)
    held: dict[str, list[Entry]] = field(default_factory=dict)
    discarded: dict[tuple[str, str], None] = field(default_factory=dict)
    suspects: dict[str, dict[str, int]] = field(default_factory=dict)
    controls: dict[str, Control] = field(default_factory=dict)
    openers: dict[str, str | None] = field(default_factory=dict)
    effect: Callable[[str, str, int], None] = lambda _id, _by, _generation: None
    failed: Callable[[Entry], None] = lambda _entry: None
    failed_twice: Callable[[Entry], None] = lambda _entry: None
    put: Callable[[Entry], None] = lambda _entry: None
    wrote: Callable[[str, int, int], None] = lambda _what, _epoch, _newest: None
    most_held: int = 0
    last_entry: int = 0

    def entries(self, flow: str) -> list[Entry]:
        return self.held.setdefault(flow, [])

    def check(self, fences: Sequence[Fence]) -> None:
        """Refuse a write under an epoch that is not the newest, as each fenced statement does."""
        for fence in fences:
            if self.newest(fence) != fence.epoch:
                raise FenceLost(fence.name, fence.epoch, fence.partition)

    def newest(self, fence: Fence) -> int:
        """Return the epoch that counts now; 0 where nobody may write."""
        if fence.partition is not None:
            owned = self.owned.get(fence.partition)
            return owned.epoch if owned is not None and owned.owner is not None else 0
        lease = self.leases.get(fence.name)
        return 0 if lease is None else lease.epoch

    def written(self, what: str, fences: Sequence[Fence]) -> None:
        """Tell the observer under which epochs something was written, and which are the newest."""
        for fence in fences:
            self.wrote(what, fence.epoch, self.newest(fence))

    def suspected(self, partitions: Collection[str] | None) -> list[str]:
        """Return the partitions, of these, in which something is suspected."""
        return [place for place in self.suspects if partitions is None or place in partitions]

    def write(self, entry: Entry, hold: Hold) -> None:
        entry.attempt = hold.delivery.attempt
        entry.due = self.world.time + hold.after_seconds
        entry.failed = hold.failed
        entry.blocks = hold.blocks or not hold.failed
        entry.error = hold.error
        if hold.failed:
            self.failed(entry)

    # --- what persons do ----------------------------------------------------------------------------------------------

    def failures(self, flow: str) -> list[Entry]:
        return [entry for entry in self.entries(flow) if entry.failed]

    def retry(self, entry: Entry) -> None:
        entry.failed, entry.blocks, entry.attempt, entry.due = False, True, 1, self.world.time
        for begun in self.suspects.values():
            begun.pop(entry.message.id, None)

    def discard(self, flow: str, entry: Entry) -> None:
        self.entries(flow).remove(entry)
        self.discarded[flow, entry.message.id] = None


class SimTransaction:
    """A transaction: nothing shows before its commit."""

    def __init__(self, session: SimSession) -> None:
        self.connection = session
        self._session = session
        self._store = session.store
        self._claims: list[tuple[str, str]] = []
        self._unclaims: list[tuple[str, str]] = []
        self.effects: list[str] = []
        self._open = True

    def execute(self, statement: Any, values: Any = None) -> Iterable[Any]:
        raise NotImplementedError

    def current(self) -> bool:
        return self._open

    def claim(self, row: tuple[str, str]) -> bool:
        """Insert a row; False if it is there. Another transaction's uncommitted row makes us wait in vain."""
        if row in self._store.inbox:
            return False
        owner = self._store.claimed.get(row)
        if owner is not None and owner is not self:
            raise ConnectionLost(SYSTEM, "sim", "locked by another transaction")
        if owner is self:
            return False
        self._store.claimed[row] = self
        self._claims.append(row)
        return True

    def unclaim(self, row: tuple[str, str]) -> None:
        if row in self._claims:
            self._claims.remove(row)
            del self._store.claimed[row]
        else:
            self._unclaims.append(row)

    def commit(self) -> None:
        if not self._open:
            raise StoreError("the transaction has ended already")
        process = self._session.process
        try:
            process.gate(SYSTEM, "commit")
        except ConnectionLost:
            self._end()
            raise
        self.commit_at_once()
        process.after(SYSTEM, "commit")

    def commit_at_once(self) -> None:
        """Make everything visible."""
        store, process = self._store, self._session.process
        generations = {id: int(group.partition("~")[2] or 0) for group, id in self._claims}
        for row in self._claims:
            store.inbox[row] = None
        for row in self._unclaims:
            store.inbox.pop(row, None)
        for id in self.effects:
            store.effect(id, process.name, generations.get(id, 0))
        self._end()

    def rollback(self) -> None:
        self._end()

    def _end(self) -> None:
        for row in self._claims:
            self._store.claimed.pop(row, None)
        self._claims, self.effects, self._open = [], [], False


class SimInbox:
    def __init__(self, session: SimSession) -> None:
        self._session = session

    def claim(self, tx: Any, group: str, ids: Sequence[str]) -> set[str]:
        self._session.gate("inbox.claim")
        return {id for id in sorted(ids) if tx.claim((group, id))}

    def unclaim(self, tx: Any, group: str, ids: Sequence[str]) -> None:
        self._session.gate("inbox.unclaim")
        for id in ids:
            tx.unclaim((group, id))

    def sweep(self, older: timedelta, limit: int) -> int:
        return 0


class SimHeld:
    """Held as its contract has it: entries of one key in the order put, failed ones block or stand aside.

    One thing more: an id that a person discarded stays known, and is not put again. A source that was not told yet
    lends it once more after a crash, and it would fail a second time.
    """

    copies = True

    def __init__(self, session: SimSession) -> None:
        self.session = session
        self._store = session.store

    def put(self, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
        self.session.gate("held.put")
        self.commit(flow, holds, fences)
        self.session.after("held.put")

    def commit(self, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
        """Put, with nothing in between."""
        self._store.check(fences)
        self._store.written("held.put", fences)
        entries = self._store.entries(flow)
        there = {entry.message.id: entry for entry in entries}
        by = self.session.process.name
        for hold in holds:
            delivery = hold.delivery
            known = there.get(delivery.message.id)
            if known is not None and known.failed and hold.failed and fences and known.by != by:
                # The same process may not have got its answer; another one has to know what is there.
                self._store.failed_twice(known)
            if known is not None or (flow, delivery.message.id) in self._store.discarded:
                continue
            self._store.last_entry += 1
            entry = Entry(self._store.last_entry, delivery.message, delivery.partition, 0, 0.0, False, True, None)
            entry.by = by
            there[delivery.message.id] = entry
            self._store.write(entry, hold)
            entries.append(entry)
            self._store.put(entry)
            self.session.world.note("held: %s put%s", entry.message.id, " as failed" if entry.failed else "")
        self._store.most_held = max(self._store.most_held, len(entries))

    def known(self, flow: str, ids: Collection[str]) -> set[str]:
        self.session.gate("held.known")
        held = {entry.message.id for entry in self._store.entries(flow)}
        return {id for id in ids if id in held or (flow, id) in self._store.discarded}

    def keys(self, flow: str) -> Mapping[tuple[str, ...], int]:
        self.session.gate("held.keys")
        counts: dict[tuple[str, ...], int] = {}
        for entry in self._store.entries(flow):
            if entry.blocks:
                key = order_key(entry.message)
                counts[key] = counts.get(key, 0) + 1
        return counts

    def due(self, flow: str, limit: int, partitions: Collection[str] | None = None) -> Sequence[Delivery]:
        self.session.gate("held.due")
        open_keys: dict[tuple[str, ...], bool] = {}
        found: list[Delivery] = []
        for entry in self._store.entries(flow):
            if not entry.blocks:
                continue
            key = order_key(entry.message)
            turn = open_keys.get(key)
            if turn is None:
                turn = open_keys[key] = not entry.failed and entry.due <= self._store.world.time
            elif entry.failed:
                turn = open_keys[key] = False
            if partitions is not None and entry.partition not in partitions:
                open_keys[key] = False
                continue
            if turn and len(found) < limit:
                found.append(Delivery(entry.message, HeldReceipt(entry.id), entry.partition, entry.attempt))
        return found

    def settle(self, flow: str, done: Sequence[Delivery], again: Sequence[Hold], fences: Sequence[Fence]) -> None:
        self.session.gate("held.settle")
        self._store.check(fences)
        self._store.written("held.settle", fences)
        gone = {delivery.receipt.id for delivery in done}
        entries = self._store.entries(flow)
        for entry in entries:
            if entry.id in gone:
                self.session.world.note("held: %s is done", entry.message.id)
        entries[:] = [entry for entry in entries if entry.id not in gone]
        by_id = {entry.id: entry for entry in entries}
        for hold in again:
            found = by_id.get(hold.delivery.receipt.id)
            if found is not None and not found.failed:
                self.session.world.note("held: %s %s", found.message.id, "has failed" if hold.failed else "is to wait")
                self._store.write(found, hold)
        self.session.after("held.settle")

    def count(self, flow: str) -> int:
        self.session.gate("held.count")
        return len(self._store.entries(flow))

    def partitions(self, flow: str) -> Mapping[str, int]:
        self.session.gate("held.partitions")
        return Counter(entry.partition for entry in self._store.entries(flow))


class SimClaims:
    def __init__(self, session: SimSession) -> None:
        self._session = session
        self._store = session.store

    def claim(self, flow: str, partitions: Collection[str], owner: str) -> Sequence[Claim]:
        self._session.gate("claims.claim")
        claims: list[Claim] = []
        for partition in sorted(partitions):
            owned = self._store.owned.setdefault(partition, Owned(None, 0))
            unclean = owned.owner not in (None, owner)
            owned.owner, owned.epoch = owner, owned.epoch + 1
            claims.append(Claim(Fence(flow, owner, owned.epoch, partition=partition), unclean))
        self._session.after("claims.claim")
        return claims

    def release(self, fences: Sequence[Fence]) -> None:
        self._session.gate("claims.release")
        for fence in fences:
            if fence.partition is not None and self._store.newest(fence) == fence.epoch:
                self._store.owned[fence.partition].owner = None
        self._session.after("claims.release")


class SimLeases:
    def __init__(self, session: SimSession) -> None:
        self._session = session
        self._store = session.store

    def take(self, name: str, owner: str, seconds: float) -> Fence | None:
        began = self._session.process.clock.elapsed()
        self._session.gate("lease.take")
        now = self._store.world.time
        lease = self._store.leases.setdefault(name, Lease(None, 0, 0.0))
        if lease.owner not in (None, owner) and lease.until > now:
            return None
        lease.owner, lease.epoch, lease.until = owner, lease.epoch + 1, now + seconds
        fence = Fence(name, owner, lease.epoch, began + seconds)
        self._session.after("lease.take")
        return fence

    def renew(self, fence: Fence, seconds: float) -> Fence | None:
        began = self._session.process.clock.elapsed()
        self._session.gate("lease.renew")
        lease = self._store.leases[fence.name]
        if lease.epoch != fence.epoch:
            return None
        lease.owner, lease.until = fence.owner, self._store.world.time + seconds
        self._session.after("lease.renew")
        return Fence(fence.name, fence.owner, fence.epoch, began + seconds)

    def release(self, fence: Fence) -> None:
        self._session.gate("lease.release")
        lease = self._store.leases[fence.name]
        if lease.epoch == fence.epoch:
            lease.owner, lease.until = None, 0.0


class SimSuspects:
    def __init__(self, session: SimSession) -> None:
        self._session = session
        self._store = session.store

    def load(self, flow: str, partitions: Collection[str] | None = None) -> Mapping[str, int]:
        self._session.gate("suspects.load")
        return {
            id: attempt
            for place in self._store.suspected(partitions)
            for id, attempt in self._store.suspects[place].items()
        }

    def begin(self, flow: str, partition: str, message_id: str, attempt: int) -> None:
        self._session.gate("suspects.begin")
        self._store.suspects.setdefault(partition, {})[message_id] = attempt

    def clear(self, flow: str, partitions: Collection[str] | None = None) -> None:
        self._session.gate("suspects.clear")
        for place in self._store.suspected(partitions):
            del self._store.suspects[place]


class SimFlows:
    def __init__(self, session: SimSession) -> None:
        self._session = session
        self._store = session.store

    def control(self, flow: str) -> Control:
        self._session.gate("flows.control")
        return self._store.controls.get(flow, Control())

    def pause(self, flow: str, reason: str) -> None:
        raise NotImplementedError

    def resume(self, flow: str) -> None:
        raise NotImplementedError

    def stop(self, flow: str, reason: str) -> None:
        self._session.gate("flows.stop")
        before = self._store.controls.get(flow, Control())
        self._store.controls[flow] = replace(before, stopped=reason)
        self._session.world.note("%s stops the flow: %s", self._session.process.name, reason.partition("\n")[0])

    def ask_replay(self, flow: str, start: str) -> None:
        raise NotImplementedError

    def begin_replay(self, flow: str) -> None:
        self._session.gate("flows.begin_replay")
        before = self._store.controls.get(flow, Control())
        if before.replay is not None:
            self._store.controls[flow] = replace(before, replay_begun=True)
        self._session.after("flows.begin_replay")

    def replayed(self, flow: str, start: str) -> int:
        self._session.gate("flows.replayed")
        before = self._store.controls.get(flow, Control())
        if before.replay is None:
            return before.generation
        left = None if before.replay == start else before.replay
        after = replace(before, replay=left, generation=before.generation + 1, replay_begun=False)
        self._store.controls[flow] = after
        self._session.world.note("%s notes the replay", self._session.process.name)
        self._session.after("flows.replayed")
        return after.generation

    def withdraw_replay(self, flow: str, start: str) -> None:
        self._session.gate("flows.withdraw_replay")
        before = self._store.controls.get(flow, Control())
        if before.replay == start and not before.replay_begun:
            self._store.controls[flow] = replace(before, replay=None)

    def opened(self, flow: str, owner: str) -> bool:
        self._session.gate("flows.opened")
        before = self._store.openers.get(flow)
        self._store.openers[flow] = owner
        return before is not None and before != owner

    def closed(self, flow: str, owner: str) -> None:
        self._session.gate("flows.closed")
        if self._store.openers.get(flow) == owner:
            self._store.openers[flow] = None

    def beat(self, report: WorkerReport) -> None:
        raise NotImplementedError

    def workers(self) -> Sequence[WorkerReport]:
        raise NotImplementedError

    def forget_worker(self, worker: str) -> None:
        raise NotImplementedError


class SimSession:
    """One party's line to the store."""

    system = SYSTEM
    address = "sim"

    def __init__(self, store: SimStore, process: Process) -> None:
        self.store = store
        self.process = process
        self.world = store.world
        self.inbox = SimInbox(self)
        self.held = SimHeld(self)
        self.leases = SimLeases(self)
        self.claims = SimClaims(self)
        self.suspects = SimSuspects(self)
        self.flows = SimFlows(self)
        self.positions: Any = None
        self.outbox: Any = None
        self.failures: Any = None
        self._transaction: SimTransaction | None = None
        process.on_death(self.close)

    def gate(self, what: str) -> None:
        self.process.gate(SYSTEM, what)

    def after(self, what: str) -> None:
        self.process.after(SYSTEM, what)

    def begin(self, holder: str, *, together: bool = False) -> SimTransaction:
        self.gate("begin")
        self._transaction = SimTransaction(self)
        return self._transaction

    def lost(self, error: BaseException, tx: OpenTransaction | None = None) -> str | None:
        return None

    def close(self) -> None:
        if self._transaction is not None:
            self._transaction.rollback()
