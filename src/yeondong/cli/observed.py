"""How an app is: read from the store and the broker, not from a worker, so that it is known when none is alive."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from yeondong.app import Yeondong
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen
from yeondong.cli.wording import counted, one_line, seconds_since, span
from yeondong.core.source import Lag
from yeondong.core.store import RELAY, Control, FailureFilter, FlowReport, Session, WorkerReport
from yeondong.errors import ConnectionLost, StoreError

NO_WORKER: Final = "no worker"
PAUSING: Final = "pausing"
SILENT_SECONDS: Final = 300  # whose last sign is no older may still be at work, unable to write
LONG_SECONDS: Final = 60  # with its handler for longer, a message needs a person
# What a broker says when its log has no room, and mostly which group has not read it.
_FULL_LOG: Final = re.compile(r"\bfull: (?:.*\bgroup '(?P<group>[^']+)' of channel '(?P<channel>[^']+)')?.*")
# Which of several workers' states is the flow's: the one that works on it, then the one that would.
_WEIGHT: Final = {"running": 0, "paused": 1, "stopped": 2, "standby": 3}


class LongRunStatus(Struct, frozen=True):
    """A message that is with its handler for long, and in which process."""

    message_id: str
    type: str
    key: str | None
    seconds: float
    worker: str
    pid: int


class FlowStatus(Struct, frozen=True):
    """One flow. None means not known.

    ``decided``: it is paused or stopped until somebody resumes it. ``held`` counts what waits in the store for a retry
    or behind one. ``passed_over`` counts since its live workers' start.
    """

    flow: str
    state: str
    since: datetime | None = None
    reason: str | None = None
    decided: bool = False
    rate: float | None = None
    backlog: int | None = None
    oldest_at: datetime | None = None
    oldest_seconds: float | None = None
    dropped: int = 0
    in_flight: int = 0
    retrying: int = 0
    held: int = 0
    failed: int = 0
    passed_over: int = 0
    replay: str | None = None
    workers: Sequence[str] = ()
    long_runs: Sequence[LongRunStatus] = ()


class WorkerStatus(Struct, frozen=True):
    """A worker process that was seen within the last day."""

    worker: str
    host: str
    pid: int
    alive: bool
    started_at: datetime
    seen_seconds: float
    notice: str | None = None


class Finding(Struct, frozen=True):
    """Something to know. With a ``code`` other than 0 a person is needed; ``hint`` is the command that may help."""

    text: str
    code: int = Exit.OK
    hint: str | None = None


class AppStatus(Struct, frozen=True):
    """Everything that ``status`` shows; ``--json`` prints it as it is. ``exit`` is the exit code."""

    version: int
    app: str
    at: datetime
    store: str
    broker: str
    flows: Sequence[FlowStatus]
    workers: Sequence[WorkerStatus]
    findings: Sequence[Finding]
    exit: int


def observe(chosen: Chosen, session: Session, old_seconds: float) -> AppStatus:
    """Read everything once. Raises ``ConnectionLost`` or ``StoreError`` for the store; the broker's is a finding."""
    app = chosen.app
    now = app.clock.now()
    reports = [report for report in session.flows.workers() if report.app == app.name]
    alive = [report for report in reports if is_alive(report)]
    lags, away = _lags(app, session)
    flows = [
        _flow(name, session, [r for r in alive if name in {f.flow for f in r.flows}], lags.get(name), now)
        for name in flow_names(app, alive)
    ]
    workers = [
        WorkerStatus(r.worker, r.host, r.pid, r in alive, r.started_at, round(r.age_seconds, 1), r.notice)
        for r in reports
    ]
    others = session.failures.count(FailureFilter()) - sum(flow.failed for flow in flows)
    findings = [
        *away,
        *_about_workers(chosen, workers, flows),
        *(finding for flow in flows for finding in _about_flow(chosen, flow, old_seconds)),
        *_about_full_log(chosen, flows),
        *_about_rows(app, flows),
        *_about_others(chosen, others),
        *(Finding(f"worker {w.worker}: {w.notice}") for w in workers if w.alive and w.notice),
        *(Finding(f"settings: {warning}") for warning in app.settings.warnings()),
    ]
    return AppStatus(
        version=1,
        app=app.name,
        at=now,
        store=app.store.address,
        broker=app.broker.address,
        flows=flows,
        workers=workers,
        findings=findings,
        exit=exit_code(findings),
    )


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the code of what is worst: no system, then no worker, then what a person should look at."""
    codes = {finding.code for finding in findings}
    return next((code for code in (Exit.UNUSABLE, Exit.NO_WORKER, Exit.ATTENTION) if code in codes), Exit.OK)


def flow_names(app: Yeondong, reports: Sequence[WorkerReport] = ()) -> list[str]:
    """Return the flows that the app declares, then those that a running worker of another version has besides."""
    declared = [RELAY] if app.relay is not None else []
    declared += app.subscriptions
    running = sorted({flow.flow for report in reports for flow in report.flows})
    return list(dict.fromkeys((*declared, *running)))


def is_alive(report: WorkerReport) -> bool:
    """Whether a worker's last sign of life is no older than it should be, by the worker's own settings."""
    return report.age_seconds <= report.silent_seconds


# --- one flow ---------------------------------------------------------------------------------------------------------


def _lags(app: Yeondong, session: Session) -> tuple[Mapping[str, tuple[Lag, int]], list[Finding]]:
    lags: dict[str, tuple[Lag, int]] = {}
    if app.relay is not None:
        rows = session.outbox_log if app.relay.marking == "position" else session.outbox
        lags[RELAY] = rows.lag(), 0
    try:
        for group in app.broker.groups():
            lags[f"{group.channel}/{group.group}"] = Lag(group.waiting, group.since), group.dropped
    except (ConnectionLost, StoreError) as error:
        return lags, [Finding(f"the broker cannot be used: {error}", Exit.UNUSABLE)]
    if app.subscriptions and not app.broker.traits.durable:
        note = f"the broker {app.broker.address} lives inside each process: its backlog cannot be seen from here"
        return lags, [Finding(note)]
    return lags, []


def _flow(
    name: str, session: Session, alive: Sequence[WorkerReport], lag: tuple[Lag, int] | None, now: datetime
) -> FlowStatus:
    control = session.flows.control(name)
    reports = sorted((f for r in alive for f in r.flows if f.flow == name), key=lambda f: _WEIGHT.get(f.state, 0))
    failed = session.failures.count(FailureFilter(flow=name))
    state, since, reason = state_of(control, reports)
    waiting, dropped = lag if lag is not None else (None, 0)
    oldest_at = waiting.since if waiting is not None else None
    return FlowStatus(
        flow=name,
        state=state,
        since=since,
        reason=reason,
        decided=control.paused is not None or control.stopped is not None,
        rate=round(sum(report.rate for report in reports), 1) if reports else None,
        backlog=waiting.waiting if waiting is not None else None,
        oldest_at=oldest_at,
        oldest_seconds=seconds_since(oldest_at, now),
        dropped=dropped,
        in_flight=sum(report.in_flight for report in reports),
        retrying=sum(report.retrying for report in reports),
        held=max(0, session.held.count(name) - failed),
        failed=failed,
        passed_over=sum(report.passed_over for report in reports),
        replay=control.replay,
        workers=[report.worker for report in alive],
        long_runs=[
            LongRunStatus(run.message_id, run.type, run.key, round(run.seconds, 1), worker.worker, worker.pid)
            for worker in alive
            for report in worker.flows
            if report.flow == name
            for run in report.long_runs
        ],
    )


def state_of(control: Control, reports: Sequence[FlowReport]) -> tuple[str, datetime | None, str | None]:
    """Say state, since when and why. What was decided counts before what workers report; they may be all gone.

    A pause that a person has decided is ``pausing`` until the worker tells that it has come to rest for this reason:
    before, it may still handle. ``reports`` are those of live workers, the one that works on the flow first.
    """
    if control.stopped is not None:
        return "stopped", control.stopped_at or _since("stopped", reports), control.stopped
    if control.paused is not None:
        if not _at_rest(control.paused, reports):
            return PAUSING, control.paused_at, control.paused
        return "paused", control.paused_at or _since("paused", reports), control.paused
    if reports:
        return reports[0].state, reports[0].since, reports[0].reason
    return NO_WORKER, None, None


def _since(state: str, reports: Sequence[FlowReport]) -> datetime | None:
    return next((report.since for report in reports if report.state == state), None)


def _at_rest(reason: str, reports: Sequence[FlowReport]) -> bool:
    """Whether nobody is at work on a flow that is to be paused for this reason, which bears its time.

    A standby alone proves nothing: it may have got the lease since it told so.
    """
    paused = [report for report in reports if (report.state, report.reason) == ("paused", reason)]
    standby = [report for report in reports if report.state == "standby"]
    return not reports or bool(paused and len(paused) + len(standby) == len(reports))


# --- what a person should know ----------------------------------------------------------------------------------------


def _about_workers(chosen: Chosen, workers: Sequence[WorkerStatus], flows: Sequence[FlowStatus]) -> Iterator[Finding]:
    if not any(worker.alive for worker in workers):
        silent = [worker for worker in workers if worker.seen_seconds <= SILENT_SECONDS and _runs_here(worker)]
        for worker in silent:
            yield Finding(
                f"worker {worker.worker} (pid {worker.pid}) is alive and has not written for "
                f"{span(worker.seen_seconds)}: the store may be locked or full",
                Exit.UNUSABLE,
            )
        if silent:
            return
        last = min((worker.seen_seconds for worker in workers), default=None)
        seen = "none was seen within the last day" if last is None else f"the last one was seen {span(last)} ago"
        yield Finding(f"NO worker of {chosen.app.name} is alive: {seen}", Exit.NO_WORKER, chosen.command("run"))
        return
    for flow in flows:
        if not flow.workers:
            start = chosen.command("relay" if flow.flow == RELAY else "run")
            yield Finding(f"no live worker has {flow.flow}", Exit.NO_WORKER, start)


def _runs_here(worker: WorkerStatus) -> bool:
    """Whether the worker's process runs on this machine. One that has ended and waits for its parent does not."""
    if sys.platform == "win32" or worker.host != socket.gethostname():
        return False  # on Windows this question would end the process
    try:
        os.kill(worker.pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    try:
        told = Path(f"/proc/{worker.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return told.rpartition(")")[2].split()[:1] != ["Z"]


def _about_flow(chosen: Chosen, flow: FlowStatus, old_seconds: float) -> Iterator[Finding]:
    name = flow.flow
    if flow.state == "stopped":
        yield Finding(
            f"{name} is stopped: {one_line(flow.reason or 'no reason is known')}",
            Exit.ATTENTION,
            chosen.command("flows resume", name) if flow.decided else chosen.command("failures list", "--flow", name),
        )
    if flow.failed:
        waits = "waits" if flow.failed == 1 else "wait"
        yield Finding(
            f"{name}: {counted(flow.failed, 'failure')} {waits} for a person",
            Exit.ATTENTION,
            chosen.command("failures list", "--flow", name),
        )
    if flow.oldest_seconds is not None and flow.oldest_seconds >= old_seconds:
        waiting = counted(flow.backlog or 0, "message")
        rests = f"; it is {flow.state} until somebody resumes it" if flow.decided else ""
        yield Finding(
            f"{name}: {waiting} in its backlog, the oldest for {span(flow.oldest_seconds)}{rests}",
            Exit.ATTENTION,
            chosen.command("flows resume", name) if flow.decided else None,
        )
    for run in flow.long_runs:
        if run.seconds > LONG_SECONDS:
            yield Finding(f"{name}: {told_run(run)}", Exit.ATTENTION)
    if flow.dropped:
        yield Finding(f"{name}: the full log dropped {counted(flow.dropped, 'message')} before they were read")
    if flow.replay is not None:
        yield Finding(f"{name}: a replay from {flow.replay} is asked for; its worker carries it out")


def _about_full_log(chosen: Chosen, flows: Sequence[FlowStatus]) -> Iterator[Finding]:
    """Say that nothing can be sent, and which group keeps the log full: resuming its flow loses nothing."""
    decided = {flow.flow: flow.state for flow in flows if flow.decided}
    for flow in flows:
        full = None if flow.decided or flow.state != "paused" else _FULL_LOG.search(flow.reason or "")
        if full is None:
            continue
        reader = f"{full['channel']}/{full['group']}"
        if reader in decided:
            text = f"{flow.flow}: the broker is full, and {reader}, which keeps it full, is {decided[reader]}"
            text = f"{text} until somebody resumes it"
            yield Finding(text, Exit.ATTENTION, chosen.command("flows resume", reader))
        else:
            yield Finding(f"{flow.flow}: the broker is {one_line(full.group())}", Exit.ATTENTION)


def told_run(run: LongRunStatus) -> str:
    """Say which message is with its handler, for how long and where."""
    key = "" if run.key is None else f" key {run.key!r}"
    return f"{run.type}{key}, message {run.message_id}: with its handler for {span(run.seconds)}, worker pid {run.pid}"


def _about_rows(app: Yeondong, flows: Sequence[FlowStatus]) -> Iterator[Finding]:
    most = app.settings.outbox_warning_rows
    for flow in flows:
        if flow.flow == RELAY and flow.backlog is not None and flow.backlog > most:
            yield Finding(f"{flow.backlog:,} rows wait in the outbox, more than {most:,} (outbox_warning_rows)",
                          Exit.ATTENTION)  # fmt: skip


def _about_others(chosen: Chosen, others: int) -> Iterator[Finding]:
    if others > 0:
        yield Finding(
            f"{counted(others, 'failure')} in this store of flows that {chosen.app.name} does not declare",
            Exit.OK,
            chosen.command("failures list", "--all"),
        )
