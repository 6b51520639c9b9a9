"""The round of a flow: collect, hold, settle, receive, hand out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from zlib import crc32

from msgspec.structs import replace

from yeondong.core.delivery import DONE, Delivery, Done, Outcome, Park, Retry, Settled, Unhandled
from yeondong.core.failpoint import HELD, HOLDING, RECEIVED, SETTLED, SETTLING, SUSPECTED
from yeondong.core.fence import Fence
from yeondong.core.message import order_key
from yeondong.core.source import Source
from yeondong.core.store import Control, FlowReport, Held, HeldReceipt, Hold, Session
from yeondong.core.traits import Settles
from yeondong.engine.lane import Halt, Lane, LaneMaker, Work
from yeondong.engine.plan import Plan, Scope, Surroundings
from yeondong.engine.settling import Loans
from yeondong.engine.waiting import Wait, Waits
from yeondong.errors import ConnectionLost, FenceLost

log = logging.getLogger("yeondong.engine")

IDLE_SECONDS = 1.0
BUSY_SECONDS = 0.05
LOOK_SECONDS = 1.0
OUTAGE_FIRST_SECONDS = 0.1
OUTAGE_MOST_SECONDS = 5.0
REVOKE_SECONDS = 5.0


class Bell(Protocol):
    """What a flow waits on when it waits for its lanes; threading.Event is one."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float) -> bool: ...


class Everything:
    """All partitions."""

    def __contains__(self, partition: object) -> bool:
        return True


NOTHING: frozenset[str] = frozenset()
EVERYTHING = Everything()


@dataclass(slots=True)
class Slot:
    """A lane as its flow sees it: what waits for it, what it has, and which of that belongs to a former opening."""

    lane: Lane
    work: Work
    backlog: deque[Delivery] = field(default_factory=deque)
    given: Sequence[Delivery] = ()
    busy: bool = False
    returned: list[Delivery] = field(default_factory=list)
    orphaned: frozenset[str] | Everything = NOTHING


@dataclass(slots=True)
class Orphan:
    """A message whose loan ended while it was in work, or before its outcome was told to the source.

    When it is lent again, ``outcome`` is applied to the new loan; while it is None the message is not done, and only
    its ``attempt`` counts on.
    """

    attempt: int
    outcome: Outcome | None = None
    error: str | None = None


class Flow:
    """Borrows deliveries, has them handled, and settles them with their outcomes.

    ``round`` is the whole of it and may be driven step by step; ``run`` turns it in a thread until ``stop``.
    """

    def __init__(
        self,
        plan: Plan,
        source: Source,
        works: Sequence[Work],
        *,
        session: Session,
        held: Held,
        fences: Callable[[str], Fence | None],
        scope: Scope,
        surroundings: Surroundings,
        make_lane: LaneMaker,
        bell: Bell | None = None,
    ) -> None:
        self.name = plan.name
        self.plan = plan
        self._source = source
        self._session = session
        self._held = held
        self._fences = fences
        self._scope = scope
        self._clock = surroundings.clock
        self._random = surroundings.random
        self._failpoint = surroundings.failpoint
        self._owner = surroundings.owner
        self._bell: Bell = bell if bell is not None else threading.Event()
        fence = (lambda: fences(plan.name)) if plan.exclusive else None
        self._halt = Halt(self._clock, fence)
        self._results: deque[tuple[Slot, Settled | None]] = deque()
        self._slots: list[Slot] = []
        for number, work in enumerate(works):
            self._slots.append(self._slot(number, work, make_lane))
        self._seeds: dict[str, int] = {}

        self._loans = Loans(source.traits.settles)
        self._waits = Waits()
        self._holds: list[Hold] = []
        self._held_keys: dict[tuple[str, ...], int] = {}
        self._held_busy: dict[int, Delivery] = {}
        self._held_done: list[Delivery] = []
        self._held_again: list[Hold] = []
        self._held_count = 0
        self._orphans: dict[str, Orphan] = {}
        self._lookups: dict[str, int] = {}
        self._suspects: dict[str, int] | None = None
        self._suspects_left = 0

        self._opened = False
        self._fence: Fence | None = None
        self._control = Control()
        self._failed_stop: str | None = None
        self._outages = 0
        self._resume_at = 0.0
        self._look_at = 0.0
        self._held_look_at = 0.0
        self._in_receive = False
        self._in_wait = False
        self._stopping = threading.Event()
        self._turned_at = self._clock.elapsed()
        self._state = "standby"
        self._reason: str | None = None
        self._since = self._clock.now()
        self.handled = 0
        self.failed = 0
        self.at_rest = False

    # --- the round ----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Turn once; waits at most a second for something to do."""
        now = self._turned_at = self._clock.elapsed()
        self._collect()
        try:
            if not self._may_act(now):
                return
            if not self._opened and not self._open():
                return
            self._hand_out()
            self._take_over()
            self._settle()
            self._receive()
            self._hand_out()
            if self._outages and not (self._loans.count or self._holds):
                self._recovered()
        except ConnectionLost as lost:
            self._outage(str(lost), source_lost=lost.system != self._session.system)
        except FenceLost as lost:
            self._abandon(str(lost))

    def _may_act(self, now: float) -> bool:
        fence = self._fences(self.name) if self.plan.exclusive else None
        if self.plan.exclusive and (fence is None or (self._fence is not None and fence.epoch != self._fence.epoch)):
            if self._opened:
                self._abandon("the lease was lost")
            self._enter("standby")
            self._wait(IDLE_SECONDS)
            return False
        self._fence = fence
        if now < self._resume_at:
            if self._opened:
                self._source.receive(0, 0)
            self._wait(min(self._resume_at - now, IDLE_SECONDS))
            return False
        if now >= self._look_at:
            self._control = self._session.flows.control(self.name)
            self._look_at = now + LOOK_SECONDS
        return self._decided(self._control)

    def _decided(self, control: Control) -> bool:
        """Do what persons decided; True if the flow may go on."""
        if control.stopped is None and control.paused is None and control.replay is None and self._failed_stop is None:
            self._halt.everything = self._halt.everything and not self._opened
            return True
        if self._opened and not self._wind_down():
            return False
        if self._failed_stop is not None:
            self._session.flows.stop(self.name, self._failed_stop)
            self._failed_stop = None
            self._look_at = 0.0
        elif control.stopped is not None:
            self._enter("stopped", control.stopped)
            self._wait(LOOK_SECONDS)
        elif control.paused is not None:
            self._enter("paused", control.paused)
            self._wait(LOOK_SECONDS)
        elif control.replay is not None:
            self._replay(control.replay)
        return False

    def _replay(self, start: str) -> None:
        if self.plan.rewind is None:
            log.warning("flow.cannot_replay flow=%r", self.name)
        else:
            repeated = self.plan.rewind(start)
            log.info("flow.replayed flow=%r start=%r messages=%d", self.name, start, repeated)
        self._session.flows.replayed(self.name)
        self._orphans.clear()
        self._look_at = 0.0

    # --- opening and closing ------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Open the source; False while lanes still end what they had when the flow was abandoned or wound down."""
        if self._halt.everything and any(slot.busy for slot in self._slots):
            self._wait(BUSY_SECONDS)
            return False
        self._scope.generation = self._control.generation
        self._halt.everything = False
        self._source.open(self._fence, self._revoked)
        self._held_keys = dict(self._held.keys(self.name))
        self._held_count = self._held.count(self.name)
        self._held_look_at = 0.0
        self._lookups = {"": self.plan.limits.in_flight} if self._source.traits.settles is Settles.EACH else {}
        if self.plan.exclusive and self._session.flows.opened(self.name, self._owner) and self.plan.suspicious:
            self._suspects = dict(self._session.suspects.load(self.name))
            self._suspects_left = self.plan.limits.in_flight
            log.warning("flow.unclean_end flow=%r", self.name)
        self._opened = True
        self._enter("running")
        return True

    def _abandon(self, reason: str) -> None:
        """Forget everything: another worker has the flow, or will. What is being handled ends and counts for nothing."""
        log.warning("flow.abandoned flow=%r reason=%r", self.name, reason)
        self._halt.everything = True
        self._lose_source()
        self._held_busy.clear()
        self._held_done, self._held_again, self._holds = [], [], []
        self._suspects = None
        self._fence = None
        self._enter("standby", reason)

    def _lose_source(self) -> None:
        """End all loans. What was in work or finished is remembered by its id, for when it is lent again."""
        for delivery in self._loans.finished():
            self._orphans[delivery.message.id] = Orphan(delivery.attempt, DONE)
        self._let_go(None)
        self._loans.drop()
        self._source.close()
        self._opened = False

    def _let_go(self, partitions: frozenset[str] | None) -> None:
        """Forget queued work of these partitions, or of all, and mark what lanes have as orphaned."""
        for head in self._waits.drop(partitions):
            self._orphans[head.message.id] = Orphan(head.attempt)
        for hold in self._holds:
            if partitions is None or hold.delivery.partition in partitions:
                self._orphans[hold.delivery.message.id] = Orphan(hold.delivery.attempt)
        self._holds = [] if partitions is None else [h for h in self._holds if h.delivery.partition not in partitions]
        for slot in self._slots:
            keep = (d for d in slot.backlog if isinstance(d.receipt, HeldReceipt) or not _among(d, partitions))
            for delivery in slot.backlog:
                if delivery.attempt > 1 and _among(delivery, partitions):
                    self._orphans[delivery.message.id] = Orphan(delivery.attempt)
            slot.backlog = deque(keep)
            slot.returned = [d for d in slot.returned if not _among(d, partitions)]
            if slot.busy:
                slot.orphaned = EVERYTHING if partitions is None else _joined(slot.orphaned, partitions)

    def _revoked(self, partitions: frozenset[str]) -> None:
        """The source loses these partitions: end what runs, settle it, forget the rest. Called from within receive."""
        self._halt.partitions = partitions
        until = self._clock.elapsed() + REVOKE_SECONDS
        while self._running(partitions) and self._clock.elapsed() < until:
            self._wait(BUSY_SECONDS)
            self._collect()
        self._collect()
        self._take_over()
        self._settle()
        self._let_go(partitions)
        self._loans.drop(partitions)
        self._halt.partitions = NOTHING
        for partition in partitions:
            self._lookups.pop(partition, None)

    def _running(self, partitions: Collection[str]) -> bool:
        return any(slot.busy and any(d.partition in partitions for d in slot.given) for slot in self._slots)

    def _wind_down(self) -> bool:
        """Come to a standstill: end what runs, settle, give the rest back, close. True once it is closed."""
        self._halt.everything = True
        if any(slot.busy for slot in self._slots):
            self._wait(BUSY_SECONDS)
            return False
        self._collect()
        self._take_over()
        self._settle()
        self._close()
        return True

    def _close(self) -> None:
        rest = self._loans.unfinished()
        if rest:
            self._source.give_back(rest)
        self._let_go(None)
        self._loans.drop()
        for slot in self._slots:
            slot.backlog.clear()
        self._held_busy.clear()
        self._source.close()
        self._opened = False

    # --- results ------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        results = self._results
        while results:
            slot, settled = results.popleft()
            if settled is None:
                self._lane_ready(slot)
                continue
            deliveries = settled.deliveries
            if slot.orphaned is not NOTHING:
                deliveries = self._without_orphans(slot, settled)
            match settled.outcome:
                case Done():
                    self._done(deliveries)
                case Retry(after=after):
                    for delivery in deliveries:
                        self._retry(slot, delivery, after, settled.error or "the handler asked for a retry")
                case Park(reason=reason):
                    for delivery in deliveries:
                        self._fail(delivery, settled.error or reason)
                case Unhandled(outage=outage):
                    slot.returned.extend(deliveries)
                    if outage is not None:
                        self._outage(outage, source_lost=False)

    def _without_orphans(self, slot: Slot, settled: Settled) -> Sequence[Delivery]:
        """Note the outcomes of orphans; return the deliveries that are still on loan."""
        kept: list[Delivery] = []
        for delivery in settled.deliveries:
            if isinstance(delivery.receipt, HeldReceipt):
                if delivery.receipt.id in self._held_busy:
                    kept.append(delivery)
            elif delivery.partition not in slot.orphaned:
                kept.append(delivery)
            elif isinstance(settled.outcome, Unhandled):
                self._orphans[delivery.message.id] = Orphan(delivery.attempt)
            else:
                self._orphans[delivery.message.id] = Orphan(delivery.attempt, settled.outcome, settled.error)
        return kept

    def _lane_ready(self, slot: Slot) -> None:
        slot.busy = False
        slot.given = ()
        slot.orphaned = NOTHING
        slot.backlog.extendleft(reversed(slot.returned))
        slot.returned = []
        self._waits.flushed(self._slots.index(slot))

    def _done(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        self.handled += len(deliveries)
        if self._outages:
            self._recovered()
        if self._waits.failing:
            for delivery in deliveries:
                if delivery.attempt > 1:
                    self._waits.recovered(order_key(delivery.message))
        if self._held_busy:
            deliveries = self._held_finished(deliveries)
        self._loans.finish(deliveries)

    def _recovered(self) -> None:
        self._outages = 0
        self._enter("running")

    def _held_finished(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Put aside those that came out of held; return the others."""
        others: list[Delivery] = []
        for delivery in deliveries:
            if isinstance(delivery.receipt, HeldReceipt):
                if self._held_busy.pop(delivery.receipt.id, None) is not None:
                    self._held_done.append(delivery)
            else:
                others.append(delivery)
        return others

    def _retry(self, slot: Slot, delivery: Delivery, after: timedelta | None, error: str) -> None:
        if delivery.attempt >= self.plan.attempts:
            self._fail(delivery, error)
            return
        seconds = (
            after.total_seconds() if after is not None else self.plan.backoff.seconds(delivery.attempt, self._random)
        )
        again = replace(delivery, attempt=delivery.attempt + 1)
        if isinstance(delivery.receipt, HeldReceipt):
            if self._forget_held(delivery.receipt.id, delivery):
                self._held_again.append(Hold(again, after_seconds=seconds, error=error))
            return
        now = self._clock.elapsed()
        since = self._waits.failing_since(order_key(delivery.message), now)
        self._waits.add(Wait(again, now + seconds, since, self._slots.index(slot), error, flushed=not slot.busy))

    def _fail(self, delivery: Delivery, error: str) -> None:
        """Nobody but a person can help this message."""
        key = order_key(delivery.message)
        self._waits.recovered(key)
        if self.plan.on_failure == "stop" and not isinstance(delivery.receipt, HeldReceipt):
            self._failed_stop = f"message {delivery.message.id} failed: {error}"
            self._halt.everything = True
            return
        self.failed += 1
        log.warning("flow.failed flow=%r message=%r attempt=%d error=%r", self.name, delivery.message.id, delivery.attempt,
                    error.partition("\n")[0])  # fmt: skip
        blocks = self.plan.on_failure != "park" and delivery.message.key is not None
        hold = Hold(delivery, failed=True, blocks=blocks, error=error)
        if isinstance(delivery.receipt, HeldReceipt):
            if self._forget_held(delivery.receipt.id, delivery):
                self._held_again.append(hold)
            return
        self._holds.append(hold)
        if blocks:
            self._held_keys[key] = self._held_keys.get(key, 0) + 1

    def _forget_held(self, id: int, delivery: Delivery) -> bool:
        """Take this entry, and those behind it that were taken with it, out of work; False if it is ours no more."""
        if self._held_busy.pop(id, None) is None:
            return False
        key = order_key(delivery.message)
        for other, later in list(self._held_busy.items()):
            if order_key(later.message) == key:
                del self._held_busy[other]
        return True

    # --- holding ------------------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Write to held what must outlive memory, commit, and only then let the source forget it."""
        limits = self.plan.limits
        if self._waits:
            too_late = limits.memory_wait_seconds
            for wait in self._waits.beyond(limits.in_flight // 4, lambda w: w.due - w.since > too_late):
                self._hold_all(wait)
        if self._held_done or self._held_again:
            self._held.settle(self.name, self._held_done, self._held_again, self._fence)
            self._held_count -= len(self._held_done)
            for delivery in self._held_done:
                self._release_key(order_key(delivery.message))
            self._held_done, self._held_again = [], []
            self._held_look_at = 0.0
        if self._holds:
            self._put()

    def _hold_all(self, wait: Wait) -> None:
        key = order_key(wait.head.message)
        after = max(0.0, wait.due - self._clock.elapsed())
        self._holds.append(Hold(wait.head, after_seconds=after, error=wait.error))
        self._holds.extend(Hold(later) for later in wait.behind)
        self._held_keys[key] = self._held_keys.get(key, 0) + 1 + len(wait.behind)

    def _put(self) -> None:
        holds = self._holds
        if self._held_count + len(holds) > self.plan.limits.held:
            reason = f"{self._held_count} messages are held, and at most {self.plan.limits.held} may be: retry or discard some"
            self._outages = max(self._outages, 6)
            self._outage(reason, source_lost=False, state="stopped")
            self._held_count = self._held.count(self.name)
            return
        self._failpoint(HOLDING)
        self._held.put(self.name, holds, self._fence)
        self._failpoint(HELD)
        self._holds = []
        deliveries = [hold.delivery for hold in holds]
        if self._held.copies:
            self._held_count += len(holds)
            self._loans.finish(deliveries)
        else:
            self._source.give_back(deliveries)
            self._loans.returned(deliveries)

    def _release_key(self, key: tuple[str, ...]) -> None:
        left = self._held_keys.get(key, 0) - 1
        if left > 0:
            self._held_keys[key] = left
        else:
            self._held_keys.pop(key, None)

    def _drain_held(self, now: float) -> None:
        """Take what is due out of held. What persons decided there is seen here too."""
        if now < self._held_look_at:
            return
        self._held_look_at = now + LOOK_SECONDS
        if not self._holds and not self._held_busy:
            still = {} if self._held.copies else {k: n for k, n in self._held_keys.items() if self._in_hand(k)}
            self._held_keys = {**self._held.keys(self.name), **still}
            self._held_count = self._held.count(self.name)
        most = max(1, self.plan.limits.in_flight // 4)
        busy_keys = {order_key(d.message) for d in self._held_busy.values()}
        for delivery in self._held.due(self.name, most + len(self._held_busy)):
            key = order_key(delivery.message)
            if key in busy_keys or len(self._held_busy) >= most or self._waits.get(key) is not None:
                continue
            self._held_keys.setdefault(key, 1)
            self._held_busy[delivery.receipt.id] = delivery
            self._slot_for(delivery).backlog.append(delivery)

    def _in_hand(self, key: tuple[str, ...]) -> bool:
        """Whether messages of the key are with a lane or wait for one."""
        return any(order_key(d.message) == key for slot in self._slots for d in (*slot.given, *slot.backlog))

    # --- the source ---------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        ready = self._loans.ready()
        if ready:
            self._failpoint(SETTLING)
            self._source.settle(ready)
            self._loans.told()
            self._failpoint(SETTLED)

    def _receive(self) -> None:
        now = self._clock.elapsed()
        self._drain_held(now)
        limits = self.plan.limits
        room = limits.in_flight - self._loans.count
        if room <= 0 or self._loans.bytes >= limits.in_flight_bytes or self._stopping.is_set():
            self._source.receive(0, 0)
            self._wait(BUSY_SECONDS)
            return
        self._in_receive = True
        wait = self._seconds_to_wait(now)
        deliveries = self._source.receive(room, wait)
        self._in_receive = False
        if deliveries:
            self._failpoint(RECEIVED)
            self._admit(deliveries)
        elif self._suspects is not None and not self._loans.count and not self._held_busy:
            self._trust()

    def _seconds_to_wait(self, now: float) -> float:
        if self._results or any(slot.backlog and not slot.busy for slot in self._slots):
            return 0.0
        wait = BUSY_SECONDS if self._loans.count else IDLE_SECONDS
        due = self._waits.next_due()
        wait = wait if due is None else min(wait, due - now)
        return max(0.0, min(wait, self._held_look_at - now))

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        """Put new loans into the backlogs of their lanes, but what is held already."""
        for partition in self._loans.lend(deliveries):
            self._lookups[partition] = self.plan.limits.in_flight
        if self._lookups:
            deliveries = self._not_yet_held(deliveries)
        if len(self._slots) == 1:
            self._slots[0].backlog.extend(deliveries)
            return
        slots, seeds, count = self._slots, self._seeds, len(self._slots)
        for delivery in deliveries:
            message = delivery.message
            seed = seeds.get(message.channel)
            if seed is None:
                seed = seeds[message.channel] = crc32(message.channel.encode())
            key = message.key if message.key is not None else message.id
            slots[crc32(key.encode(), seed) % count].backlog.append(delivery)

    def _slot_for(self, delivery: Delivery) -> Slot:
        message = delivery.message
        key = message.key if message.key is not None else message.id
        return self._slots[crc32(key.encode(), crc32(message.channel.encode())) % len(self._slots)]

    def _not_yet_held(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Settle what is in held since before a crash, so that it makes no second record.

        Only what could have been in flight then can be there: the first deliveries of each partition.
        """
        prefix = self._source.traits.settles is Settles.PREFIX
        first: list[Delivery] = []
        for delivery in deliveries:
            partition = delivery.partition if prefix else ""
            left = self._lookups.get(partition)
            if left is not None:
                first.append(delivery)
                self._lookups[partition] = left - 1
        for partition in [p for p, left in self._lookups.items() if left <= 0]:
            del self._lookups[partition]
        known = self._held.known(self.name, [d.message.id for d in first]) if first else set()
        if not known:
            return deliveries
        self._loans.finish([d for d in first if d.message.id in known])
        firsts = {id(d) for d in first}
        return [d for d in deliveries if d.message.id not in known or id(d) not in firsts]

    # --- to the lanes -------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        if self._halt.everything or self._failed_stop is not None:
            return
        if self._waits:
            self._bring_back_due()
        if self._suspects is not None:
            self._hand_out_one()
            return
        for slot in self._slots:
            if slot.backlog and not slot.busy:
                self._give(slot, self._clear(slot))

    def _give(self, slot: Slot, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            slot.busy = True
            slot.given = deliveries
            slot.lane.give(deliveries)

    def _bring_back_due(self) -> None:
        for wait in self._waits.due(self._clock.elapsed()):
            self._slots[wait.slot].backlog.extendleft(reversed(wait.all()))

    def _clear(self, slot: Slot) -> list[Delivery]:
        """Empty the backlog: put what must wait behind its key, return the rest. The lane is at rest."""
        backlog = slot.backlog
        slot.backlog = deque()
        if not (self._waits or self._held_keys or self._orphans):
            return list(backlog)
        free: list[Delivery] = []
        for delivery in backlog:
            current = self._adopted(slot, delivery) if self._orphans else delivery
            if current is None:
                continue
            key = order_key(current.message)
            if isinstance(current.receipt, HeldReceipt):
                if current.receipt.id in self._held_busy:
                    free.append(current)
            elif (wait := self._waits.get(key)) is not None:
                wait.behind.append(current)
            elif key in self._held_keys:
                self._hold_behind(key, current)
            else:
                free.append(current)
        return free

    def _hold_behind(self, key: tuple[str, ...], delivery: Delivery) -> None:
        self._held_keys[key] += 1
        self._holds.append(Hold(delivery))

    def _adopted(self, slot: Slot, delivery: Delivery) -> Delivery | None:
        """Apply what became of this message under its former loan; None if that was all."""
        orphan = self._orphans.pop(delivery.message.id, None)
        if orphan is None or isinstance(delivery.receipt, HeldReceipt):
            return delivery
        key = order_key(delivery.message)
        current = replace(delivery, attempt=max(delivery.attempt, orphan.attempt))
        if self._waits.get(key) is not None or key in self._held_keys:
            if isinstance(orphan.outcome, Done):
                self._done([current])
                return None
            return current
        match orphan.outcome:
            case None:
                return current
            case Done():
                self._done([current])
            case Retry(after=after):
                self._retry(slot, current, after, orphan.error or "the handler asked for a retry")
            case Park(reason=reason):
                self._fail(current, orphan.error or reason)
        return None

    # --- a message that kills its process -----------------------------------------------------------------------------

    def _hand_out_one(self) -> None:
        """After an unclean end: one message at a time, its attempt written first."""
        if any(slot.busy for slot in self._slots):
            return
        for slot in self._slots:
            free = self._clear(slot)
            if not free:
                continue
            slot.backlog.extend(free)
            self._try_suspect(slot, slot.backlog.popleft())
            return

    def _try_suspect(self, slot: Slot, delivery: Delivery) -> None:
        if self._suspects is None:
            return
        begun = self._suspects.get(delivery.message.id, 0)
        attempt = max(delivery.attempt, begun + 1)
        if attempt > self.plan.attempts:
            self._fail(delivery, f"the process ended {begun} times while this message was being handled")
        else:
            self._session.suspects.begin(self.name, delivery.message.id, attempt)
            self._failpoint(SUSPECTED)
            current = replace(delivery, attempt=attempt)
            if isinstance(current.receipt, HeldReceipt):
                self._held_busy[current.receipt.id] = current
            self._give(slot, [current])
        self._suspects_left -= 1
        if self._suspects_left <= 0:
            self._trust()

    def _trust(self) -> None:
        """What was in flight at the unclean end is through."""
        self._session.suspects.clear(self.name)
        self._suspects = None

    # --- outages, waiting, state --------------------------------------------------------------------------------------

    def _outage(self, reason: str, *, source_lost: bool, state: str = "paused") -> None:
        """Pause, longer each time; no attempt is counted and nothing is given up."""
        seconds = min(OUTAGE_MOST_SECONDS, OUTAGE_FIRST_SECONDS * 2.0**self._outages) * (0.75 + 0.25 * self._random())
        if self._clock.elapsed() >= self._resume_at:
            self._outages = min(self._outages + 1, 10)
        self._resume_at = max(self._resume_at, self._clock.elapsed() + seconds)
        self._enter(state, reason)
        if source_lost and self._opened:
            self._lose_source()

    def _enter(self, state: str, reason: str | None = None) -> None:
        if state == self._state and reason == self._reason:
            return
        if state != self._state:
            self._since = self._clock.now()
            level = logging.INFO if state in ("running", "standby") else logging.WARNING
            log.log(level, "flow.%s flow=%r reason=%r", state, self.name, reason)
        self._state, self._reason = state, reason

    def _wait(self, seconds: float) -> None:
        """Wait for the lanes, or for a wake-up."""
        self._in_wait = True
        if not self._results:
            self._bell.wait(seconds)
        self._bell.clear()
        self._in_wait = False

    def wake(self) -> None:
        """End the current wait. Any thread may call it."""
        self._bell.set()
        if self._in_receive:
            self._source.wake()

    def _slot(self, number: int, work: Work, make_lane: LaneMaker) -> Slot:
        def report(settled: Settled | None) -> None:
            self._results.append((slot, settled))
            # The flow sets its mark before it looks at the results, and this adds the result before it looks at the
            # mark: whichever comes first, one of them sees the other.
            if self._in_receive:
                self._source.wake()
            elif self._in_wait:
                self._bell.set()

        lane = make_lane(f"{self.name}-{number}", work, self._halt, report)
        slot = Slot(lane, work)
        return slot

    def alive(self, within_seconds: float) -> bool:
        """Whether the round has turned within this time."""
        return self._clock.elapsed() - self._turned_at < within_seconds

    def report(self) -> FlowReport:
        """Tell how the flow is. Any thread may call it."""
        since: datetime = self._since
        return FlowReport(
            flow=self.name,
            state=self._state,
            since=since,
            reason=self._reason,
            in_flight=self._loans.count,
            retrying=len(self._waits),
            handled=self.handled,
            failed=self.failed,
            passed_over=sum(slot.work.passed_over for slot in self._slots),
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    def run(self, grace_seconds: float) -> None:
        """Turn until ``stop``, then come to a standstill within the grace period."""
        while not self._stopping.is_set():
            self._turn(self.round)
        self._turn(lambda: self._end(grace_seconds))
        for slot in self._slots:
            slot.lane.stop()

    def _turn(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            log.exception("flow.fault flow=%r", self.name)
            self._outage(f"internal error: {error!r}", source_lost=True)

    def stop(self) -> None:
        """Borrow nothing more, and end. Any thread may call it."""
        self._stopping.set()
        self.wake()

    def _end(self, grace_seconds: float) -> None:
        until = self._clock.elapsed() + grace_seconds
        self._halt.everything = True
        while any(slot.busy for slot in self._slots) and self._clock.elapsed() < until:
            self._turned_at = self._clock.elapsed()
            self._wait(BUSY_SECONDS)
            self._collect()
        self._collect()
        clean = self.at_rest = not any(slot.busy for slot in self._slots)
        try:
            if self._opened:
                self._take_over()
                self._settle()
                self._close()
            if clean and self.plan.exclusive and self._fence is not None:
                self._session.flows.closed(self.name, self._owner)
        except (ConnectionLost, FenceLost) as lost:
            log.warning("flow.ended_unsettled flow=%r reason=%r", self.name, str(lost))
        self._source.close()


def _among(delivery: Delivery, partitions: Collection[str] | None) -> bool:
    return partitions is None or delivery.partition in partitions


def _joined(first: frozenset[str] | Everything, second: Iterable[str]) -> frozenset[str] | Everything:
    return first if isinstance(first, Everything) else first.union(second)
