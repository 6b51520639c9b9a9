"""The round of a flow: collect, hand out, take over, settle, receive.

Longer than its neighbours, because it is one state machine on one thread: each method is a step of the round and may
end in any other. What has a state of its own stands beside it (slots, settling, waiting, holding, intake, orphans,
tenure, decisions, suspicion, standing, watch).
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import ParamSpec, TypeVar, cast

from msgspec.structs import replace

from yeondong.core.delivery import Delivery, Done, Park, Retry, Settled, Unhandled
from yeondong.core.failpoint import RECEIVED, SETTLED, SETTLING
from yeondong.core.fence import Fence
from yeondong.core.message import order_key
from yeondong.core.source import AssignedSource, Source
from yeondong.core.store import Claim, FlowReport, Held, HeldReceipt, Hold, Session
from yeondong.core.traits import Partitions
from yeondong.engine.decisions import LOOK_SECONDS, Decisions
from yeondong.engine.holding import Holding
from yeondong.engine.intake import Intake
from yeondong.engine.lane import Halt, Work
from yeondong.engine.orphans import Orphans
from yeondong.engine.plan import Plan, Scope, Surroundings
from yeondong.engine.settling import Loans
from yeondong.engine.slots import EVERYTHING, NOTHING, Slot, Slots
from yeondong.engine.standing import Standing
from yeondong.engine.suspicion import Suspicion
from yeondong.engine.tenure import Tenure
from yeondong.engine.waiting import Wait, Waits
from yeondong.engine.waking import Waking
from yeondong.engine.watch import Watch
from yeondong.errors import ConnectionLost, DeclarationError, FenceLost, PositionLost, StoreError, UnknownName

log = logging.getLogger("yeondong.engine")

IDLE_SECONDS = 1.0
BUSY_SECONDS = 0.05
REVOKE_SECONDS = 5.0
ASKED = "the handler asked for a retry"

P = ParamSpec("P")
R = TypeVar("R")


class _SourceLost(Exception):
    """The source is away, not the store."""

    def __init__(self, lost: ConnectionLost) -> None:
        super().__init__(str(lost))
        self.lost = lost


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
    ) -> None:
        self.name = plan.name
        self.plan = plan
        self.handled = 0
        self.failed = 0
        self.at_rest = False
        self._source = source
        self._session = session
        self._fences = fences
        self._scope = scope
        self._clock = surroundings.clock
        self._random = surroundings.random
        self._failpoint = surroundings.failpoint
        self._owner = surroundings.owner
        self._tenure = self._make_tenure(source, held) if source.traits.partitions is Partitions.ASSIGNED else None
        self._waking = Waking(surroundings.make_bell(), source.wake)
        self._slots = Slots(
            plan.name, works, make_lane=surroundings.make_lane, make_halt=self._make_halt, ring=self._waking.ring
        )
        self._loans = Loans(source.traits.settles)
        self._waits = Waits()
        self._orphans = Orphans(4 * plan.limits.in_flight, alone=plan.exclusive)
        self._holding = Holding(plan.name, held, most=plan.limits.held, clock=self._clock, failpoint=self._failpoint)
        self._suspicion = Suspicion(plan.name, session.suspects, self._clock, self._failpoint, surroundings.turn)
        self._watch = Watch(plan.name, self._clock)
        self._standing = Standing(plan.name, self._clock, self._random)
        in_flight = plan.limits.in_flight
        self._intake = Intake(self._loans, self._slots, self._holding, self._suspicion, in_flight, self._tenure)
        self._decisions = Decisions(plan.name, session.flows)
        self._opened = False
        self._fence: Fence | None = None
        self._lost_epoch = 0
        self._opened_under = (0, 0)
        self._winding_down = False
        self._stopping = threading.Event()
        self._turned_at = self._clock.elapsed()

    def _make_tenure(self, source: Source, held: Held) -> Tenure:
        assigned = cast("AssignedSource", source)
        return Tenure(self.plan.name, self._owner, assigned, self._session.claims, held, self._clock)

    def _make_halt(self) -> Halt:
        if self._tenure is not None:
            return Halt(self._clock, self._tenure.until)
        return Halt(self._clock, self._leased_until if self.plan.exclusive else None)

    def _leased_until(self) -> float:
        fence = self._fences(self.name)
        return fence.deadline if fence is not None else float("-inf")

    # --- the round ----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Turn once; waits at most a second for something to do."""
        now = self._turned_at = self._clock.elapsed()
        self._collect()
        try:
            if not self._may_act(now) or not (self._opened or self._open()):
                return
            self._hand_out()
            self._take_over()
            self._settle()
            self._receive()
            self._hand_out()
            if self._standing.disturbed and not self._loans.count and not self._holding.pending:
                self._standing.recovered()
        except _SourceLost as away:
            self._standing.outage(str(away.lost))
            if self._opened:
                self._lose_source()
            else:
                self._source.close()
        except ConnectionLost as lost:
            self._standing.outage(str(lost))
        except FenceLost as lost:
            if lost.partition is None:
                self._lost_epoch = lost.epoch
            self._abandon(str(lost))
            if lost.partition is not None:
                self._standing.outage(str(lost))  # the broker decides anew who reads what
        except PositionLost as lost:
            # Only a person knows from where on to send or handle again; until then nothing is passed over.
            self._decisions.stop_for(str(lost))
            self._lose_source()

    def _may_act(self, now: float) -> bool:
        """Whether the flow has its lease, is in no outage, and nobody decided otherwise."""
        fence = self._fences(self.name) if self.plan.exclusive else None
        if fence is not None and fence.epoch <= self._lost_epoch:
            fence = None  # the keeper learns it at its next renewal
        if self.plan.exclusive and (fence is None or (self._fence is not None and fence.epoch != self._fence.epoch)):
            if self._opened:
                self._abandon("the lease was lost")
            self._fence = None
            self._standing.enter("standby")
            self._wait(IDLE_SECONDS)
            return False
        self._fence = fence
        if now < self._standing.resume_at:
            if self._opened:
                self._borrow()
            self._wait(min(self._standing.resume_at - now, IDLE_SECONDS))
            return False
        self._decisions.look(now)
        replayed = self._decisions.control.generation != self._scope.generation
        if replayed and self._opened and not self._decisions.hinder:
            self._abandon("another worker has replayed it")
        return self._nobody_decided_otherwise()

    def _nobody_decided_otherwise(self) -> bool:
        decisions = self._decisions
        if not decisions.hinder:
            self._slots.halted = self._slots.halted and not self._opened
            self._winding_down = False
            return True
        decisions.tell_stop()
        if self._opened and not self._wind_down():
            return False
        if self._slots.busy():  # the source was lost, and lanes still end what they had
            self._wait(BUSY_SECONDS)
            return False
        control = decisions.control
        if decisions.stop_reason is not None:
            decisions.stopped()
        elif control.stopped is not None or control.paused is not None:
            if control.stopped is not None:
                self._standing.enter("stopped", control.stopped, control.stopped_at)
            else:
                self._standing.enter("paused", control.paused, control.paused_at)
            self._wait(LOOK_SECONDS)
        elif control.replay is not None:
            self._replay(control.replay)
        return False

    def _replay(self, start: str) -> None:
        """Go back, under a new generation of the inbox.

        That it begins is written first: after a crash in between, what comes again is no repeat, though there may be
        nothing more to go back to. Where several workers share the flow, each of them may come here; the broker lets
        nobody go back before the last one has left, and only the first to say so counts.
        """
        self._decisions.look_soon()
        if self.plan.rewind is None:
            log.error("flow.cannot_replay flow=%r reason='its source keeps nothing to go back to'", self.name)
            self._session.flows.withdraw_replay(self.name, start)
            return
        # Opened once, so that an older owner's lease no longer counts at the source: it could move forward again.
        if self._tenure is None:
            with contextlib.suppress(PositionLost):  # this is what mends it
                self._at_source(self._source.open, self._fence, self._revoked)
            self._source.close()
        control = self._decisions.look_now()
        if control.replay != start:
            return
        begun, repeated = control.replay_begun, 0
        try:
            if self.plan.repeats is None:
                repeated = self.plan.rewind(start)
            elif begun or self.plan.repeats(start) > 0:
                self._session.flows.begin_replay(self.name)
                begun = True
                repeated = self.plan.rewind(start)
        except (UnknownName, DeclarationError) as error:
            log.error("flow.cannot_replay flow=%r reason=%r", self.name, str(error))  # noqa: TRY400 -- no fault of ours
        if repeated == 0 and not begun:
            # A new generation would forget, for nothing, what was handled already.
            log.info("flow.nothing_to_replay flow=%r start=%r", self.name, start)
            self._session.flows.withdraw_replay(self.name, start)
            return
        self._session.flows.replayed(self.name, start)
        self._orphans.clear()
        log.info("flow.replayed flow=%r start=%r messages=%d", self.name, start, repeated)

    # --- opening and closing ------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Open the source; False while lanes still end what they had when the flow was abandoned or wound down."""
        if (self._slots.halted or self._tenure is not None) and self._slots.busy():
            self._wait(BUSY_SECONDS)
            return False
        control = self._decisions.control
        under = (self._fence.epoch if self._fence is not None else 0, control.generation)
        if under != self._opened_under:
            # Another worker may have had the flow in between, and gone back to the start: what was done here once is
            # to be done again then.
            self._orphans.clear()
            self._opened_under = under
        self._scope.generation = control.generation
        self._slots.halted = False
        if self._tenure is not None:
            self._tenure.open()
        self._at_source(self._source.open, self._fence, self._revoked)
        try:
            self._holding.open()
            self._intake.open()
            if self.plan.exclusive:
                self._look_for_unclean_end()
        except ConnectionLost:
            self._source.close()  # a reader that does not read holds up its group
            raise
        self._opened = True
        self._standing.enter("running")
        return True

    def _look_for_unclean_end(self) -> None:
        self._suspicion.flush()
        begun = self._suspicion.load() if self.plan.suspicious else {}
        if self._session.flows.opened(self.name, self._owner) and self.plan.suspicious:
            log.warning("flow.unclean_end flow=%r in_hand_then=%r", self.name, dict(begun))
            self._suspicion.begin(begun)
        elif self._suspicion.active:
            self._suspicion.begin(begun)

    def _begin_partitions(self) -> None:
        """Take over what the broker has assigned: claim it, be sure of it, and know what is held of it."""
        tenure = self._tenure
        if tenure is None or not tenure.pending or tenure.in_doubt:
            return
        if not tenure.claim() or not self._at_source(tenure.confirm):
            return
        # Who joins the group just before a replay, or after a stop, has to know of it before it handles anything.
        control = self._decisions.look_now()
        if self._decisions.hinder or control.generation != self._scope.generation:
            return
        self._intake.gain()
        if self.plan.suspicious:
            self._suspect_unclean(tenure.claimed)
        tenure.begin()

    def _suspect_unclean(self, claims: Iterable[Claim]) -> None:
        unclean = [
            c.fence.partition or "" for c in claims if c.unclean or self._suspicion.left(c.fence.partition or "")
        ]
        if unclean:
            log.warning("flow.unclean_end flow=%r partitions=%r", self.name, unclean)
            self._suspicion.begin_in(unclean)

    def _abandon(self, reason: str) -> None:
        """Forget everything: another worker has the flow, or will. What is being handled counts for nothing."""
        log.warning("flow.abandoned flow=%r reason=%r", self.name, reason)
        self._slots.halted = True
        self._lose_source()
        self._holding.forget()
        self._fence = None
        self._standing.enter("standby", reason)

    def _lose_source(self) -> None:
        """End all loans. What was in work or finished is remembered by its id, for when it is lent again."""
        self._orphans.finished(self._loans.finished())
        self._orphans.tried(self._waits.drop(EVERYTHING)[0])
        self._orphans.tried(self._holding.drop_pending())
        self._orphans.tried(self._slots.drop(EVERYTHING))
        self._intake.drop(None)
        self._loans.drop()
        if self._tenure is not None:
            self._release(self._tenure.drop_all())
            self._holding.forget()
        self._source.close()
        self._opened = self._winding_down = False

    def _revoked(self, partitions: frozenset[str]) -> None:
        """End what runs of these partitions, settle it, forget the rest. Called by the source from within receive."""
        if self._tenure is not None:
            partitions = self._tenure.with_adopted(partitions)
        self._slots.halt(partitions)
        until = self._clock.elapsed() + REVOKE_SECONDS
        while self._slots.busy(partitions) and self._clock.elapsed() < until:
            self._wait(BUSY_SECONDS)
            self._collect()
        self._collect()
        try:
            self._take_over()
            self._settle()
            self._suspicion.flush()
        except (ConnectionLost, FenceLost, _SourceLost) as lost:
            # What could not be written is not settled either: the partitions' next owner handles it again.
            log.warning("flow.revoked_unsettled flow=%r reason=%r", self.name, str(lost))
        finally:
            self._forget(partitions)

    def _forget(self, partitions: frozenset[str]) -> None:
        heads, freed = self._waits.drop(partitions)
        self._orphans.tried(heads)
        for number, deliveries in freed:
            self._slots[number].backlog.extendleft(reversed(deliveries))
        self._orphans.tried(self._holding.drop(partitions))
        self._orphans.tried(self._slots.drop(partitions))
        self._intake.drop(partitions)
        self._loans.drop(partitions)
        if self._tenure is not None:
            self._release(self._tenure.drop(partitions))

    def _release(self, fences: Sequence[Fence]) -> None:
        """Let the next owner of these partitions know that this one's end was clean."""
        clean = [fence for fence in fences if not self._suspicion.suspects_in(fence.partition or "")]
        try:
            self._suspicion.drop({fence.partition or "" for fence in fences})
            if clean:
                self._session.claims.release(clean)
        except ConnectionLost as lost:
            log.warning("flow.not_released flow=%r reason=%r", self.name, str(lost))

    def _wind_down(self) -> bool:
        """Come to a standstill: end what runs, settle, give the rest back, close. True once it is closed."""
        if not self._winding_down:
            self._winding_down = self._slots.halted = True
        if self._slots.busy() or self._finish_loans():
            self._borrow()
            self._wait(BUSY_SECONDS)
            return False
        self._settle()
        self._close()
        return True

    def _finish_loans(self) -> bool:
        """Do what a clean end needs so that it repeats nothing; False once there is no more to wait for.

        Retries go into held: what is finished behind them could not be told to the source.
        """
        for wait in self._waits.beyond(0, math.inf, self._stays_at_source):
            self._hold_wait(wait)
        self._take_over()
        return self._in_doubt() or self._fill_gaps()

    def _fill_gaps(self) -> bool:
        """Hand out what something finished waits behind, so that a clean end repeats nothing; False if nothing."""
        gaps = self._loans.gaps()
        if not gaps or self._must_stop():
            return False
        self._slots.halted = False
        for slot in self._slots:
            if self._suspicion and self._slots.busy():
                break
            rest = deque(d for d in slot.backlog if (d.partition, d.receipt) not in gaps)
            slot.backlog = deque(d for d in slot.backlog if (d.partition, d.receipt) in gaps)
            free = self._free(slot)
            slot.backlog = rest
            if self._must_stop():
                slot.backlog.extendleft(reversed(free))
            elif self._suspicion and free:
                slot.backlog.extendleft(reversed(free[1:]))
                self._try_suspect(slot, free[0])
            else:
                slot.give(free)
        self._slots.halted = self._must_stop() or not self._slots.busy()
        return self._slots.busy()

    def _close(self) -> None:
        self._suspicion.flush()
        rest = self._loans.unfinished()
        if rest:
            self._at_source(self._source.give_back, rest)
        self._lose_source()
        self._slots.clear()
        self._holding.forget()

    def _at_source(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the source; its outage ends all loans, while the store's own leaves them as they are."""
        try:
            return call(*args, **kwargs)
        except ConnectionLost as lost:
            raise _SourceLost(lost) from lost

    # --- results ------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        results = self._slots.results
        while results:
            slot, settled = results.popleft()
            if settled is None:
                slot.ready()
                self._waits.flushed(slot.number)
            elif slot.orphaned is NOTHING:
                self._apply(slot, settled, settled.deliveries)
            else:
                self._apply(slot, settled, self._without_orphans(slot, settled))
        if not self._opened:
            self._leave_turn()

    def _apply(self, slot: Slot, settled: Settled, deliveries: Sequence[Delivery]) -> None:
        if self._suspicion.active:
            self._suspicion.ended(settled.deliveries, tried=type(settled.outcome) is not Unhandled)
        match settled.outcome:
            case Done():
                self._done(deliveries)
            case Retry(after=after):
                for delivery in deliveries:
                    self._retry(slot, delivery, after, settled.error or ASKED)
            case Park(reason=reason):
                for delivery in deliveries:
                    self._fail(delivery, settled.error or reason)
            case Unhandled(outage=outage):
                slot.returned.extend(deliveries)
                if outage is not None:
                    self._standing.outage(outage)

    def _without_orphans(self, slot: Slot, settled: Settled) -> list[Delivery]:
        """Remember the outcomes of orphans; return the deliveries that are still on loan."""
        kept: list[Delivery] = []
        for delivery in settled.deliveries:
            if isinstance(delivery.receipt, HeldReceipt):
                if self._holding.is_out(delivery):
                    kept.append(delivery)
            elif delivery.partition in slot.orphaned:
                self._orphans.ended(settled, delivery)
            else:
                kept.append(delivery)
        return kept

    def _done(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        self.handled += len(deliveries)
        if self._standing.disturbed:
            self._standing.recovered()
        if self._waits.failing:
            for delivery in deliveries:
                if delivery.attempt > 1:
                    self._waits.recovered(order_key(delivery.message))
        if self._holding.out:
            deliveries = self._holding.finished(deliveries)
        self._loans.finish(deliveries)

    def _retry(self, slot: Slot, delivery: Delivery, after: timedelta | None, error: str) -> None:
        if delivery.attempt >= self.plan.attempts:
            self._fail(delivery, error)
            return
        backoff = self.plan.backoff
        seconds = after.total_seconds() if after is not None else backoff.seconds(delivery.attempt, self._random)
        again = replace(delivery, attempt=delivery.attempt + 1)
        if isinstance(delivery.receipt, HeldReceipt):
            self._back(delivery, Hold(again, after_seconds=seconds, error=error))
            return
        now = self._clock.elapsed()
        since = self._waits.failing_since(delivery, now)
        self._waits.add(Wait(again, now + seconds, since, slot.number, error, flushed=not slot.busy))

    def _fail(self, delivery: Delivery, error: str) -> None:
        """Give up: nobody but a person can help this message."""
        held = isinstance(delivery.receipt, HeldReceipt)
        self._waits.recovered(order_key(delivery.message))
        policy = self.plan.policy(delivery.message.channel)
        if policy == "stop" and not held:
            message = delivery.message
            summary = error.partition("\n")[0]
            self._decisions.stop_for(f"message {message.id} ({message.type}, key {message.key!r}) failed: {summary}")
            self._slots.halted = True
            return
        self.failed += 1
        summary = error.partition("\n")[0]
        log.warning(
            "flow.failed flow=%r type=%r key=%r message=%r attempt=%d error=%r",
            self.name,
            delivery.message.type,
            delivery.message.key,
            delivery.message.id,
            delivery.attempt,
            summary,
        )
        blocks = policy != "park" and delivery.message.key is not None
        hold = Hold(delivery, failed=True, blocks=blocks, error=error)
        if held:
            self._back(delivery, hold)
        else:
            self._holding.add(hold)

    def _back(self, delivery: Delivery, hold: Hold) -> None:
        """Put back what came out of held, and what came out behind it."""
        self._suspicion.put_aside(self._holding.back(delivery, hold))

    # --- taking over and settling -------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Write to held what must outlive memory, commit, and only then let the source forget it."""
        limits = self.plan.limits
        if self._waits:
            # A retry at the front of its partition keeps everything finished behind it on loan.
            most = limits.in_flight // 4 if self._loans.stuck < limits.in_flight // 2 else 0
            for wait in self._waits.beyond(most, limits.memory_wait_seconds, self._stays_at_source):
                self._hold_wait(wait)
        put = self._holding.write(self._fences_of)
        self._standing.stop_for(self._holding.full)
        self._suspicion.put_aside(put)
        if put and self._holding.copies:
            self._loans.finish(put)
        elif put:
            self._at_source(self._source.give_back, put)
            self._loans.returned(put)

    def _fences_of(self, deliveries: Iterable[Delivery]) -> Sequence[Fence]:
        """Return what a write for these is fenced with."""
        if self._tenure is not None:
            return self._tenure.fences_of(deliveries)
        return [self._fence] if self._fence is not None else []

    def _hold_wait(self, wait: Wait) -> None:
        after = max(0.0, wait.due - self._clock.elapsed())
        self._holding.add(Hold(wait.head, after_seconds=after, error=wait.error))
        for later in wait.behind:
            self._hold_behind(later)

    def _stays_at_source(self, wait: Wait) -> bool:
        """What may come to stop the flow is not taken over: it is to be left where it is."""
        return self._holding.copies and self.plan.policy(wait.head.message.channel) == "stop"

    def _settle(self) -> None:
        ready = self._loans.ready()
        if ready:
            self._failpoint(SETTLING)
            self._at_source(self._source.settle, ready)
            self._loans.told()
            self._failpoint(SETTLED)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        limits = self.plan.limits
        self._intake.due()
        self._intake.take()
        room = limits.in_flight - self._loans.count
        if room <= 0 or self._loans.bytes >= limits.in_flight_bytes or self._holding.full is not None:
            self._borrow()
            self._begin_partitions()
            self._wait(BUSY_SECONDS)
            return
        with self._waking.receiving():
            # At most half of all, so that the lanes have work while what they had is settled and the rest is received.
            deliveries = self._borrow(min(room, (limits.in_flight + 1) // 2), self._seconds_to_wait())
        if deliveries:
            self._failpoint(RECEIVED)
            self._intake.arrive(deliveries)
        self._begin_partitions()
        self._intake.take()
        self._suspicion.end_if_over(idle=not (deliveries or self._loans.count or self._holding.out))

    def _borrow(self, limit: int = 0, wait_seconds: float = 0.0) -> Sequence[Delivery]:
        """Receive; without a limit only to keep session and loans alive, and to follow the broker."""
        deliveries = self._at_source(self._source.receive, limit, wait_seconds)
        if self._tenure is not None and not self._tenure.received() and self._at_source(self._tenure.confirm):
            self._tenure.dispel_doubt()
        return deliveries

    def _seconds_to_wait(self) -> float:
        # Under suspicion one lane works at a time: what waits for the others is no reason to turn without a pause.
        if self._slots.results or (self._slots.waiting() and not self._suspicion):
            return 0.0
        now = self._clock.elapsed()
        busy = self._loans.count or self._suspicion or (self._tenure is not None and self._tenure.pending)
        until = now + (BUSY_SECONDS if busy else IDLE_SECONDS)
        due = self._waits.next_due()
        until = min(until, self._holding.look_at, until if due is None else due)
        return max(0.0, until - now)

    # --- to the lanes -------------------------------------------------------------------------------------------------

    def _in_doubt(self) -> bool:
        """Whether the broker may have given to others what we have."""
        return self._tenure is not None and self._tenure.in_doubt

    def _hand_out(self) -> None:
        if self._slots.halted or self._in_doubt():
            return
        for wait in self._waits.due(self._clock.elapsed()) if self._waits else ():
            self._slots[wait.slot].backlog.extendleft(reversed(wait.all()))
        if self._suspicion.active:
            self._suspicion.flush()  # before another flow tries what may end the process
        self._leave_turn()
        if self._suspicion:
            self._hand_out_one()
            return
        for slot in self._slots:
            if slot.backlog and not slot.busy:
                free = self._free(slot)
                if self._must_stop():  # by what became of one of them under its former loan
                    slot.backlog.extendleft(reversed(free))
                    return
                slot.give(free)

    def _free(self, slot: Slot) -> list[Delivery]:
        """Empty the backlog of a lane at rest: put aside what must wait behind its key, return the rest."""
        backlog, slot.backlog = slot.backlog, deque()
        if not (self._waits or self._holding or self._orphans or slot.has_held):
            return list(backlog)
        slot.has_held = False
        free: list[Delivery] = []
        for delivery in backlog:
            if isinstance(delivery.receipt, HeldReceipt):
                if self._holding.is_out(delivery):
                    free.append(delivery)
                    slot.has_held = True
                continue
            current = self._adopted(slot, delivery) if self._orphans else delivery
            if current is None:
                continue
            key = order_key(current.message)
            if (wait := self._waits.get(key)) is not None:
                wait.behind.append(current)
            elif self._holding.blocks(key):
                self._hold_behind(current)
            else:
                free.append(current)
        return free

    def _must_stop(self) -> bool:
        """Whether a failure is to stop the flow."""
        return self._decisions.stop_reason is not None

    def _hold_behind(self, delivery: Delivery) -> None:
        """Take over what must wait behind its key."""
        if self._must_stop():
            return  # it is given back with all the rest
        if delivery.flaw is not None:
            self._fail(delivery, delivery.flaw)  # held keeps no flaw: it would come out as if it were sound
        else:
            self._holding.add(Hold(delivery))

    def _adopted(self, slot: Slot, delivery: Delivery) -> Delivery | None:
        """Apply what became of this message under its former loan; None if that was all."""
        orphan = self._orphans.pop(delivery.message.id)
        if orphan is None:
            return delivery
        current = replace(delivery, attempt=min(max(delivery.attempt, orphan.attempt), self.plan.attempts))
        key = order_key(delivery.message)
        blocked = self._waits.get(key) is not None or self._holding.blocks(key)
        if orphan.outcome is None or (blocked and not isinstance(orphan.outcome, Done)):
            return current
        self._apply(slot, Settled(orphan.outcome, [current], orphan.error), [current])
        return None

    def _hand_out_one(self) -> None:
        """Give one message to one lane while all are at rest."""
        if self._slots.busy():
            return
        for slot in self._slots:
            free = self._free(slot)
            if self._must_stop():
                slot.backlog.extendleft(reversed(free))
                return
            if free:
                slot.backlog.extend(free[1:])
                self._try_suspect(slot, free[0])
                return

    def _try_suspect(self, slot: Slot, delivery: Delivery) -> None:
        if not self._suspicion.suspects(delivery):
            slot.give([delivery])
            return
        attempt = self._suspicion.attempt(delivery)
        enough = f"the process ended {attempt - 1} times while this message was being handled"
        flaw = enough if attempt > self.plan.attempts else delivery.flaw
        current = replace(delivery, attempt=min(attempt, self.plan.attempts), flaw=flaw)
        if isinstance(delivery.receipt, HeldReceipt):
            self._holding.exchange(delivery, current)
        if flaw is enough:
            slot.give([current])  # no handler sees it, but the inbox is asked: a paused worker may have it in its hands
            return
        slot.backlog.appendleft(current)
        if self._suspicion.may_try(current, self.plan.attempts):
            self._suspicion.write(current)
            slot.give([slot.backlog.popleft()])

    def _leave_turn(self) -> None:
        if self._suspicion.has_turn and not self._slots.busy():
            self._suspicion.leave_turn()

    # --- life ---------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._waking.wait(seconds, lambda: bool(self._slots.results))

    def wake(self) -> None:
        """End the current wait. Any thread may call it."""
        self._waking.wake()

    def alive(self, within_seconds: float) -> bool:
        """Whether the round has turned within this time."""
        return self._clock.elapsed() - self._turned_at < within_seconds

    def report(self) -> FlowReport:
        """Tell how the flow is. One other thread may call it."""
        return FlowReport(
            flow=self.name,
            state=self._standing.state,
            since=self._standing.since,
            reason=self._standing.reason,
            in_flight=self._loans.count,
            retrying=len(self._waits),
            handled=self.handled,
            failed=self.failed,
            passed_over=self._slots.passed_over(),
            long_runs=tuple(self._watch.look(slot.work for slot in self._slots)),
        )

    def run(self, grace_seconds: float) -> None:
        """Turn until ``stop``, then come to a standstill within the grace period."""
        while not self._stopping.is_set():
            self._turn(self.round)
        self._turn(lambda: self._end(grace_seconds))
        self._slots.stop()

    def _turn(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreError as unusable:  # a table, a topic or a right is gone: a person mends that, and it goes on
            self._pause_for(str(unusable))
        except Exception as error:
            log.exception("flow.fault flow=%r", self.name)
            self._pause_for(f"internal error: {error!r}")

    def _pause_for(self, fault: str) -> None:
        self._standing.outage(fault)
        if self._opened:
            self._lose_source()

    def stop(self) -> None:
        """Borrow nothing more, and end. Any thread may call it."""
        self._stopping.set()
        self.wake()

    def _end(self, grace_seconds: float) -> None:
        until = self._clock.elapsed() + grace_seconds
        self._slots.halted = True
        try:
            while (self._slots.busy() or (self._opened and self._finish_loans())) and self._clock.elapsed() < until:
                self._turned_at = self._clock.elapsed()
                self._tend()
                self._wait(BUSY_SECONDS)
                self._collect()
            self._slots.halted = True
            self.at_rest = not self._slots.busy()
            if self._opened:
                self._take_over()
                self._settle()
                self._close()
            # Under suspicion it stays open: the next owner goes on to suspect.
            if self.at_rest and self.plan.exclusive and self._fence is not None and not self._suspicion.active:
                self._session.flows.closed(self.name, self._owner)
        except (_SourceLost, ConnectionLost, FenceLost) as lost:
            log.warning("flow.ended_unsettled flow=%r reason=%r", self.name, str(lost))
        self.at_rest = not self._slots.busy()
        self._source.close()

    def _tend(self) -> None:
        """Keep the source's session alive while lanes end; without a source they end all the same."""
        try:
            if self._opened:
                self._borrow()
        except _SourceLost as away:
            log.warning("flow.source_lost flow=%r reason=%r", self.name, str(away.lost))
            self._lose_source()
