"""Flows from declarations: what `run` and `relay` start."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, Literal, TypeAlias

from yeondong.app.application import Outbox, Yeondong
from yeondong.app.declared import Policy, Subscription
from yeondong.core.backoff import Backoff
from yeondong.core.failpoint import Failpoint, never
from yeondong.core.source import Source
from yeondong.core.store import RELAY, Held, OutboxLog, OutboxRows, Session
from yeondong.core.traits import Order, Partitions, Traits
from yeondong.engine.dispatch import Dispatch
from yeondong.engine.flow import Flow
from yeondong.engine.handling import Grouped, Plain
from yeondong.engine.janitor import Duty, Janitor
from yeondong.engine.keeper import Keeper
from yeondong.engine.lane import Work
from yeondong.engine.plan import Limits, OnFailure, Plan, Scope, Surroundings
from yeondong.engine.sending import Sending
from yeondong.engine.worker import Ground, Pace, Worker
from yeondong.errors import DeclarationError, FenceLost
from yeondong.outbox.holding import RowHolding
from yeondong.outbox.markings.position import PositionSource
from yeondong.outbox.markings.status import StatusSource

Parts: TypeAlias = Literal["all", "relay", "handlers"]

JANITORS: Final = 1


def make_worker(app: Yeondong, parts: Parts = "all", *, failpoint: Failpoint = never) -> Worker:
    """Build a worker with the app's flows. Opens nothing yet but what ``prepare`` of store and broker has opened."""
    return _Assembly(app, failpoint).worker(parts)


class _Assembly:
    def __init__(self, app: Yeondong, failpoint: Failpoint) -> None:
        self._app = app
        self._settings = app.settings
        self._surroundings = Surroundings(
            owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}", clock=app.clock, failpoint=failpoint
        )
        self._keeper = Keeper(
            app.store.connect(apart=True),
            owner=self._surroundings.owner,
            clock=app.clock,
            lease_seconds=self._settings.lease_seconds,
            failpoint=failpoint,
        )
        self._writing_lanes = 0

    def worker(self, parts: Parts) -> Worker:
        app, settings = self._app, self._settings
        flows: list[Flow] = []
        if parts != "handlers" and app.relay is not None:
            flows.append(self._relay(app.relay))
        if parts != "relay":
            flows.extend(self._subscription(subscription) for subscription in app.subscriptions.values())
        if not flows:
            raise DeclarationError(f"app {app.name!r} has nothing to run: it declares no {_missing(parts)}")
        janitor = Janitor(app.name, self._duties(), self._keeper.fence, settings.janitor_seconds)
        return Worker(
            app.name,
            flows,
            keeper=self._keeper,
            janitor=janitor,
            owner=self._surroundings.owner,
            clock=app.clock,
            pace=Pace(
                lease_seconds=settings.lease_seconds,
                heartbeat_seconds=settings.heartbeat_seconds,
                grace_seconds=settings.grace_seconds,
            ),
            ground=Ground(
                ready=partial(app.store.expect, len(flows) + self._writing_lanes + JANITORS), notice=app.store.notice
            ),
        )

    def _relay(self, outbox: Outbox) -> Flow:
        app, settings = self._app, self._settings
        session = app.store.connect()
        by_status = outbox.marking == "status"
        if by_status and session.positions.load(RELAY) is not None:
            raise DeclarationError(
                "the outbox has been marked by position so far, where every row stays WAITING: marking='status' would "
                "send all of them again; keep marking='position'"
            )
        failed = session.outbox.failed()
        if not by_status and failed:
            raise DeclarationError(
                f"the outbox was marked by status so far and has {failed} failures, which marking='position' would "
                "send again: retry or discard them first, with marking='status'"
            )
        source = StatusSource(app.store) if by_status else PositionSource(app.store)
        rows = session.outbox if by_status else session.outbox_log
        plan = self._plan(
            RELAY,
            outbox.policy,
            source.traits,
            suspicious=False,
            rewind=partial(self._rewind_outbox, rows),
            on_failure_in=outbox.on_failure_in,
            in_flight=settings.relay_in_flight,
        )
        sinks = [app.broker.sink() for _ in range(outbox.policy.get("lanes", settings.relay_lanes))]
        return self._flow(
            plan,
            source,
            [Sending(sink, failpoint=self._surroundings.failpoint) for sink in sinks],
            session,
            held=RowHolding(session.outbox) if by_status else session.held,
        )

    def _rewind_outbox(self, rows: OutboxRows | OutboxLog, start: str) -> int:
        fence = self._keeper.fence(RELAY)
        if fence is None:
            raise FenceLost(RELAY, 0)
        return rows.rewind(start, fence)

    def _subscription(self, subscription: Subscription) -> Flow:
        app, settings = self._app, self._settings
        source = app.broker.source(subscription.channel, subscription.group)
        rewind = partial(app.broker.rewind, subscription.channel, subscription.group)
        plan = self._plan(
            subscription.name,
            subscription.policy,
            source.traits,
            rewind=rewind if source.traits.replay else None,
            repeats=partial(app.broker.repeats, subscription.channel, subscription.group),
            suspicious=source.traits.partitions is not Partitions.SHARED,
        )
        scope = Scope(subscription.name)
        dispatch = Dispatch(
            handlers=subscription.handlers,
            passed_over=app.passed_over(subscription),
            park_unknown=subscription.unknown == "park",
            unavailable=subscription.policy.get("unavailable", ()),
        )
        works: list[Work] = []
        for _ in range(subscription.policy.get("lanes", settings.lanes)):
            if any(bound.transactional for bound in subscription.handlers.values()):
                works.append(Grouped(dispatch, app.store.connect(), scope, failpoint=self._surroundings.failpoint))
                self._writing_lanes += 1
            else:
                works.append(Plain(dispatch))
        session = app.store.connect()
        return self._flow(plan, source, works, session, held=session.held, scope=scope)

    def _plan(
        self,
        name: str,
        policy: Policy,
        traits: Traits,
        *,
        suspicious: bool,
        rewind: Callable[[str], int] | None = None,
        repeats: Callable[[str], int] | None = None,
        on_failure_in: Mapping[str, OnFailure] | None = None,
        in_flight: int | None = None,
    ) -> Plan:
        settings = self._settings
        default: OnFailure = "park" if traits.order is Order.NONE else "hold_key"
        on_failure = policy.get("on_failure", default)
        if on_failure == "hold_key" and traits.order is Order.NONE:
            raise DeclarationError(f"{name}: on_failure='hold_key' needs a source that keeps the order of a key")
        return Plan(
            name=name,
            on_failure=on_failure,
            on_failure_in=on_failure_in or {},
            attempts=policy.get("attempts", settings.attempts),
            backoff=policy.get(
                "backoff",
                Backoff(
                    timedelta(seconds=settings.backoff_first_seconds), timedelta(seconds=settings.backoff_most_seconds)
                ),
            ),
            limits=Limits(
                in_flight=settings.in_flight if in_flight is None else in_flight,
                in_flight_bytes=settings.in_flight_bytes,
                held=settings.held,
                memory_wait_seconds=settings.memory_wait_seconds,
            ),
            exclusive=traits.partitions is Partitions.LEASED,
            suspicious=suspicious,
            rewind=rewind,
            repeats=repeats,
        )

    def _flow(
        self,
        plan: Plan,
        source: Source,
        works: Sequence[Work],
        session: Session,
        *,
        held: Held,
        scope: Scope | None = None,
    ) -> Flow:
        return Flow(
            plan,
            source,
            works,
            session=session,
            held=held,
            fences=self._keeper.fence,
            scope=scope if scope is not None else Scope(plan.name),
            surroundings=self._surroundings,
        )

    def _duties(self) -> list[Duty]:
        settings, broker = self._settings, self._app.broker
        session = self._app.store.connect()
        outbox_age = timedelta(days=settings.outbox_retention_days)
        inbox_age = timedelta(days=settings.inbox_retention_days)

        def sweep_outbox(limit: int) -> int:
            # Asked of the store, because the app that has the outbox may be another one.
            by_status = session.positions.load(RELAY) is None
            return (session.outbox if by_status else session.outbox_log).sweep(outbox_age, limit)

        return [
            Duty("outbox", sweep_outbox),
            Duty("inbox", lambda limit: session.inbox.sweep(inbox_age, limit)),
            Duty("log", lambda _limit: broker.sweep()),
        ]


def _missing(parts: Parts) -> str:
    return {"all": "outbox, no subscription and no handler", "relay": "outbox", "handlers": "subscription or handler"}[
        parts
    ]
