"""Lanes' work for handlers: alone, or in groups that share one transaction."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

from msgspec import Struct

from yeondong.core.delivery import DONE, UNHANDLED, Delivery, Done, Outcome, Park, Retry, Settled, Unhandled
from yeondong.core.failpoint import COMMITTED, HANDLED, Failpoint, never
from yeondong.core.message import order_key
from yeondong.core.store import OpenTransaction, Session, Transaction
from yeondong.engine.dispatch import Bound, Dispatch, checked, describe_error, describe_failure
from yeondong.engine.lane import Halt
from yeondong.engine.plan import Scope
from yeondong.errors import ConnectionLost, Unavailable

RUN_MESSAGES = 64
RUN_SECONDS = 0.005
SLICE_SECONDS = 0.5
GROUP_MESSAGES = 50
GROUP_SECONDS = 0.05


class _OfOneProcess:
    """Work that belongs to the process that began it.

    A handler may fork. In the child the lane's thread goes on as if nothing had happened: it would handle the rest
    of the list a second time, on the parent's connections.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def _leave_if_forked(self) -> None:
        """End a child that comes back from its handler, by an exception or by returning."""
        if os.getpid() != self._pid:
            os._exit(0)


class Plain(_OfOneProcess):
    """Calls handlers that take no transaction, one after the other."""

    def __init__(self, dispatch: Dispatch, *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._dispatch = dispatch
        self._clock = clock
        self._handlers = dispatch.handlers
        self._outages: tuple[type[BaseException], ...] = (Unavailable, ConnectionLost, *dispatch.unavailable)
        self.passed_over = 0
        self.in_hand: Delivery | None = None

    def __call__(self, deliveries: Sequence[Delivery], halt: Halt) -> Iterator[Settled]:  # noqa: C901 -- the hot loop: calls cost
        done: list[Delivery] = []
        behind: list[Delivery] = []
        blocked: set[tuple[str, ...]] = set()
        clock = self._clock
        ends = clock() + SLICE_SECONDS
        flush = clock() + RUN_SECONDS
        for index, delivery in enumerate(deliveries):
            if blocked and order_key(delivery.message) in blocked:
                behind.append(delivery)
                continue
            # The first three are what most messages cost; the call is for the rest.
            if (halt.fenced or halt.everything or halt.partitions) and halt.covers(delivery):
                blocked.add(order_key(delivery.message))  # the halt may end before the next one of the key
                behind.append(delivery)
                continue
            outcome, error = self._call(delivery)
            if outcome is DONE:
                done.append(delivery)
                if len(done) < RUN_MESSAGES and clock() < flush:
                    continue
            if done:
                yield Settled(DONE, done)
                done, flush = [], clock() + RUN_SECONDS
            if type(outcome) is Unhandled:
                yield Settled(outcome, [*behind, *deliveries[index:]])
                return
            if outcome is not DONE:
                yield Settled(outcome, [delivery], error)
                blocked.add(order_key(delivery.message))
            if clock() >= ends:
                behind.extend(deliveries[index + 1 :])
                break
        if done:
            yield Settled(DONE, done)
        if behind:
            yield Settled(UNHANDLED, behind)

    def _call(self, delivery: Delivery) -> tuple[Outcome | Unhandled, str | None]:
        """Decode and handle one message. ``resolve`` would do; this is the short way for what is well."""
        message = delivery.message
        bound = self._handlers.get(message.type)
        if bound is None or delivery.flaw is not None:
            return self._unresolved(delivery), None
        try:
            payload = bound.decode(message.data)  # type: ignore[arg-type]  # None, a tombstone, raises
        except Exception:  # noqa: BLE001 -- whatever a decoder raises, resolve tells it
            return self._unresolved(delivery), None
        self.in_hand = delivery
        try:
            outcome = bound.direct(payload) if bound.direct is not None else bound.invoke(payload, delivery, None)
        except self._outages as away:
            return Unhandled(outage=describe_error(away)), None
        except BaseException as raised:  # noqa: BLE001 -- SystemExit of a handler must not end the lane
            self._leave_if_forked()
            return Retry(), describe_failure(raised)
        return (DONE, None) if outcome is None else checked(outcome, bound)

    def _unresolved(self, delivery: Delivery) -> Outcome:
        found = self._dispatch.resolve(delivery)
        if isinstance(found, Park):
            return found
        self.passed_over += 1
        return DONE

    def close(self) -> None:
        """Nothing is kept open."""


class Refused:
    """Stands for the handler that a broken message lacks: it parks it, unless the inbox knows it.

    A person may have mended a message and had it handled out of held, before its source was told: lent again after a
    crash, it would fail a second time.
    """

    name = "engine"
    transactional = False
    direct = None

    def __init__(self, park: Park) -> None:
        self._park = park

    def decode(self, data: bytes) -> None:
        """Nothing can be decoded."""

    def invoke(self, payload: Any, delivery: Delivery, tx: Transaction | None) -> Outcome:
        return self._park


class Item(Struct, frozen=True, gc=False):
    """A delivery that is decoded and ready for its handler."""

    delivery: Delivery
    bound: Bound
    payload: Any


class _OneByOne(Exception):
    """The group cannot be kept together."""


class Grouped(_OfOneProcess):
    """Calls handlers that take the store's transaction: a group shares one inbox insert and one commit.

    There are no savepoints: measured on PostgreSQL they make a group slower than one commit per message is worth.
    Whatever goes wrong in a group undoes all of it, and each message then runs alone in a transaction of its own.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        session: Session,
        scope: Scope,
        *,
        failpoint: Failpoint = never,
        group: int = GROUP_MESSAGES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self._dispatch = dispatch
        self._session = session
        self._scope = scope
        self._failpoint = failpoint
        self._clock = clock
        self._most = group
        self._size = group
        self._claimed: list[str] | None = None
        self._outages: tuple[type[BaseException], ...] = (Unavailable, ConnectionLost, *dispatch.unavailable)
        self.passed_over = 0
        self.in_hand: Delivery | None = None

    def __call__(self, deliveries: Sequence[Delivery], halt: Halt) -> Iterator[Settled]:
        waiting = deque(deliveries)
        behind: list[Delivery] = []
        blocked: set[tuple[str, ...]] = set()
        ends = self._clock() + SLICE_SECONDS
        while waiting and self._clock() < ends:
            group: list[Item] = []
            for settled in self._gather(waiting, group, behind, blocked, halt):
                blocked.update(order_key(d.message) for d in settled.deliveries if type(settled.outcome) is not Done)
                yield settled
            for settled in self._handle(group, blocked, behind, lambda d: halt.covers(d) or self._clock() >= ends):
                if type(settled.outcome) is Unhandled:
                    yield Settled(settled.outcome, [*behind, *settled.deliveries, *waiting])
                    return
                yield settled
        if behind or waiting:
            yield Settled(UNHANDLED, [*behind, *waiting])

    def _gather(
        self,
        waiting: deque[Delivery],
        group: list[Item],
        behind: list[Delivery],
        blocked: set[tuple[str, ...]],
        halt: Halt,
    ) -> Iterator[Settled]:
        """Fill ``group`` from the front of ``waiting``; settle at once what nobody wants."""
        while waiting and len(group) < self._size:
            delivery = waiting[0]
            if (blocked and order_key(delivery.message) in blocked) or halt.covers(delivery):
                blocked.add(order_key(delivery.message))  # the halt may end before the next one of the key
                behind.append(waiting.popleft())
                continue
            found = self._dispatch.resolve(delivery)
            if found is not None:
                bound, payload = found if isinstance(found, tuple) else (Refused(found), None)
                if group and not (bound.transactional and group[0].bound.transactional):
                    return
                group.append(Item(waiting.popleft(), bound, payload))
                continue
            if group and any(order_key(item.delivery.message) == order_key(delivery.message) for item in group):
                return
            self.passed_over += 1
            yield Settled(DONE, [waiting.popleft()])

    def _handle(
        self,
        group: Sequence[Item],
        blocked: set[tuple[str, ...]],
        behind: list[Delivery],
        too_late: Callable[[Delivery], bool],
    ) -> Iterator[Settled]:
        rest = list(group)
        while rest and rest[0].bound.transactional:
            try:
                handled = self._together(rest)
            except ConnectionLost as away:
                yield Settled(Unhandled(outage=describe_error(away)), [item.delivery for item in rest])
                return
            except _OneByOne:
                break
            yield Settled(DONE, [item.delivery for item in rest[:handled]])
            del rest[:handled]
        for index, item in enumerate(rest):
            key = order_key(item.delivery.message)
            if key in blocked or (index > 0 and too_late(item.delivery)):
                blocked.add(key)
                behind.append(item.delivery)
                continue
            alone = item.bound.transactional or isinstance(item.bound, Refused)
            settled = self._alone(item) if alone else self._plain(item)
            if type(settled.outcome) is Unhandled:
                yield Settled(settled.outcome, [later.delivery for later in rest[index:]])
                return
            if type(settled.outcome) is not Done:
                blocked.add(key)
            yield settled

    def _together(self, group: Sequence[Item]) -> int:
        """Handle the front of the group in one transaction and return how many; ``_OneByOne`` if any of it fails."""
        began = self._clock()
        self._release_claims()
        tx = self._session.begin(group[0].bound.name, together=True)
        ids = [item.delivery.message.id for item in group]
        new: set[str] = set()
        handled = 0
        try:
            new = self._session.inbox.claim(tx, self._scope.name, ids)
            for item in group:
                handled += 1
                if ids[handled - 1] in new:
                    new.remove(ids[handled - 1])
                    self.in_hand = item.delivery
                    outcome = item.bound.invoke(item.payload, item.delivery, tx)
                    if not (outcome is None or type(outcome) is Done) or not tx.current():
                        raise _OneByOne  # noqa: TRY301 -- the way out of the transaction is one, whoever fails
                if self._clock() - began >= GROUP_SECONDS and handled < len(group):
                    self._session.inbox.unclaim(tx, self._scope.name, sorted(new))
                    break
            self._leave_if_forked()
            self._failpoint(HANDLED)
            tx.commit()
            self._failpoint(COMMITTED)
        except BaseException as error:
            self._leave_if_forked()
            failure = error if isinstance(error, _OneByOne) else self._outage_or(error, tx, _OneByOne())
            if handled and new and isinstance(failure, _OneByOne) and not tx.current():
                self._claimed = [ids[handled - 1], *sorted(new)]
            tx.rollback()
            if failure is error:
                raise
            raise failure from error
        self._size = max(1, min(self._most, int(GROUP_SECONDS * handled / max(self._clock() - began, 1e-6))))
        return handled

    def _release_claims(self) -> None:
        """Take back the claims that a handler committed for those behind it in its group, which were not handled yet.

        They would be taken for repeats, and be lost. Only a process that ends before this, right after a handler that
        ended the engine's transaction, loses them still.
        """
        if self._claimed is None:
            return
        ended_by, *ids = self._claimed
        tx = self._session.begin("engine")
        try:
            if self._session.inbox.claim(tx, self._scope.name, [ended_by, *ids]):
                tx.rollback()  # the handler had rolled back: nothing was claimed
            else:
                self._session.inbox.unclaim(tx, self._scope.name, ids)
                tx.commit()
        except BaseException:
            tx.rollback()
            raise
        self._claimed = None

    def _alone(self, item: Item) -> Settled:
        delivery = item.delivery
        try:
            self._release_claims()
            tx = self._session.begin(item.bound.name)
        except ConnectionLost as away:
            return Settled(Unhandled(outage=describe_error(away)), [delivery])
        try:
            return self._alone_in(tx, item)
        except self._outages as away:
            tx.rollback()
            return Settled(Unhandled(outage=describe_error(away)), [delivery])
        except BaseException as raised:  # noqa: BLE001 -- SystemExit of a handler must not end the lane
            self._leave_if_forked()
            tx.rollback()
            reason = self._session.lost(raised, tx)
            if reason is not None:
                return Settled(Unhandled(outage=reason), [delivery])
            return Settled(Retry(), [delivery], describe_failure(raised))

    def _alone_in(self, tx: OpenTransaction, item: Item) -> Settled:
        delivery = item.delivery
        if not self._session.inbox.claim(tx, self._scope.name, [delivery.message.id]):
            tx.rollback()
            return Settled(DONE, [delivery])
        self.in_hand = delivery
        returned = item.bound.invoke(item.payload, delivery, tx)
        outcome, error = checked(returned, item.bound)
        if outcome is not DONE:
            tx.rollback()
            return Settled(outcome, [delivery], error)
        if not tx.current():
            tx.rollback()
            return Settled(
                Retry(), [delivery], f"handler {item.bound.name} ended the transaction; the engine commits it"
            )
        self._failpoint(HANDLED)
        tx.commit()
        self._failpoint(COMMITTED)
        return Settled(DONE, [delivery])

    def _plain(self, item: Item) -> Settled:
        self.in_hand = item.delivery
        try:
            outcome = item.bound.invoke(item.payload, item.delivery, None)
        except self._outages as away:
            return Settled(Unhandled(outage=describe_error(away)), [item.delivery])
        except BaseException as raised:  # noqa: BLE001 -- SystemExit of a handler must not end the lane
            self._leave_if_forked()
            return Settled(Retry(), [item.delivery], describe_failure(raised))
        checked_outcome, error = checked(outcome, item.bound)
        return Settled(checked_outcome, [item.delivery], error)

    def _outage_or(self, error: BaseException, tx: OpenTransaction, otherwise: Exception) -> Exception:
        """Tell the store's own outage from everything else, which is for the messages one by one to tell."""
        if isinstance(error, ConnectionLost) and error.system == self._session.system:
            return error
        away = self._session.lost(error, tx)
        if away is not None:
            return ConnectionLost(self._session.system, self._session.address, away)
        return otherwise

    def close(self) -> None:
        self._session.close()
