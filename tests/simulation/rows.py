"""A source that keeps failures and waits on its own rows, as the outbox marked by status does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

from tests.simulation.sources import Partition, SimLog, SimSource
from tests.simulation.store import Entry, SimSession, SimStore
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import order_key
from yeondong.core.store import Hold
from yeondong.core.traits import Traits

Standing: TypeAlias = Literal["now", "later", "behind", "failed"]


class SimRows(SimLog):
    """Rows with a state: ``store.entries`` has those that failed or were put off."""

    def __init__(self, store: SimStore, flow: str, names: Sequence[str], traits: Traits) -> None:
        super().__init__(store.world, names, traits)
        self._store = store
        self._flow = flow

    def state(self, name: str, offset: int) -> Entry | None:
        id = self.partitions[name].messages[offset].id
        return next((entry for entry in self._store.entries(self._flow) if entry.message.id == id), None)

    def standings(self, partition: Partition) -> Iterator[tuple[int, Standing]]:
        """Tell, in order, how each row stands that was neither sent nor given up."""
        states = {entry.message.id: entry for entry in self._store.entries(self._flow)}
        blocked: dict[tuple[str, ...], Standing] = {}
        for offset, message in enumerate(partition.messages):
            if offset in partition.settled or (self._flow, message.id) in self._store.discarded:
                continue
            key, state = order_key(message), states.get(message.id)
            if key in blocked:
                yield offset, "behind" if blocked[key] == "failed" else "later"
            elif state is None or (not state.failed and state.due <= self.world.time):
                yield offset, "now"
            else:
                standing: Standing = "failed" if state.failed else "later"
                if state.blocks:
                    blocked[key] = standing
                yield offset, standing

    def waiting(self, partition: Partition) -> Iterator[int]:
        """Yield, in order, what may be lent now."""
        return (offset for offset, standing in self.standings(partition) if standing == "now")

    def drained(self) -> bool:
        return all(
            standing in ("failed", "behind") for p in self.partitions.values() for _, standing in self.standings(p)
        )

    def behind(self) -> list[str]:
        return [
            partition.messages[offset].id
            for partition in self.partitions.values()
            for offset, standing in self.standings(partition)
            if standing == "behind"
        ]

    def sound(self, delivery: Delivery) -> None:
        """Forget the state of a row that was sent."""
        entries = self._store.entries(self._flow)
        entries[:] = [entry for entry in entries if entry.message.id != delivery.message.id]


class RowSource(SimSource):
    """Lends rows, those first that are lowest."""

    _log: SimRows

    def _candidates(self, partition: Partition) -> Iterator[int]:
        on_loan = self._on_loan[partition.name]
        return (offset for offset in list(self._log.waiting(partition)) if offset not in on_loan)

    def _attempt(self, name: str, offset: int) -> int:
        state = self._log.state(name, offset)
        return 1 if state is None else state.attempt

    def settled(self, partition: Partition, delivery: Delivery) -> None:
        state = self._log.state(delivery.partition, delivery.receipt)
        if state is None or not state.failed:  # only a waiting row is marked
            super().settled(partition, delivery)
            self._log.sound(delivery)


class SimOutboxRows:
    """The part of ``OutboxRows`` that keeps failures and waits."""

    def __init__(self, session: SimSession, log: SimRows, flow: str) -> None:
        self._session = session
        self._log = log
        self._flow = flow

    def hold(self, holds: Sequence[Hold], fence: Fence) -> None:
        session, store = self._session, self._session.store
        session.gate("outbox.hold")
        store.check([fence])
        store.written("outbox.hold", [fence])
        for hold in holds:
            delivery = hold.delivery
            if delivery.receipt in self._log.partitions[delivery.partition].settled:
                continue
            entry = self._log.state(delivery.partition, delivery.receipt)
            if (entry is not None and entry.failed) or (self._flow, delivery.message.id) in store.discarded:
                continue
            if entry is None:
                store.last_entry += 1
                entry = Entry(store.last_entry, delivery.message, delivery.partition, 0, 0.0, False, True, None)
                store.entries(self._flow).append(entry)
            session.world.note("row: %s %s", delivery.message.id, "has failed" if hold.failed else "is put off")
            store.write(entry, hold)
        session.after("outbox.hold")

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)
