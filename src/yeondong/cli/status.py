"""`yeondong status`: how an app is, for people and for probes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from yeondong.cli.command import AppCommand, json_option
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.observed import PAUSING, AppStatus, Finding, FlowStatus, WorkerStatus, observe, told_run
from yeondong.cli.printing import cells, columns, console, print_json, print_json_line, show, state
from yeondong.cli.wording import MINUTE, counted, moment, number, one_line, plain, short_span, span
from yeondong.core.store import Session
from yeondong.errors import ConnectionLost

EXAMPLES = """
yeondong status shop.app
yeondong status shop.app --watch
yeondong status shop.app --json | jq '.flows[] | {flow, backlog}'
yeondong status shop.app --fail-on down    (for a liveness probe)
"""


@click.command(
    cls=AppCommand, examples=EXAMPLES, exits=(Exit.OK, Exit.ATTENTION, Exit.USAGE, Exit.UNUSABLE, Exit.NO_WORKER)
)
@json_option
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C. With --json one line each time.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, metavar="SECONDS",
              help="Pause between two looks of --watch.")  # fmt: skip
@click.option("--old", "old_minutes", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="MINUTES",
              help="A backlog whose oldest message is older needs a person.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(["attention", "down"]), default="attention", show_default=True,
              help="down: exit with 0 also when only failures, stops or old backlogs need a person.")  # fmt: skip
def status(chosen: Chosen, *, as_json: bool, watch: bool, interval: float, old_minutes: float, fail_on: str) -> Exit:
    """Show each flow of APP: which is stuck, since when, why.

    Backlogs, holds and failures come from the store and the broker, so they are true when no worker is alive. Rates, in
    flight and retrying are what live workers told last.
    """
    if watch:
        return _watch(chosen, old_minutes * MINUTE, interval, as_json=as_json)
    session = open_session(chosen)
    try:
        found = observe(chosen, session, old_minutes * MINUTE)
    finally:
        session.close()
    if as_json:
        print_json(found)
    else:
        show(render(found))
    if fail_on == "down" and found.exit == Exit.ATTENTION:
        return Exit.OK
    return Exit(found.exit)


def _watch(chosen: Chosen, old_seconds: float, interval: float, *, as_json: bool) -> Exit:
    screen = console()
    with (
        contextlib.closing(open_session(chosen)) as session,
        contextlib.suppress(KeyboardInterrupt),
        _interrupted() as interrupted,
    ):
        if as_json or not screen.is_terminal:
            while not interrupted.is_set():
                found = observe(chosen, session, old_seconds)
                if as_json:
                    print_json_line(found)
                else:
                    show(render(found), Text())
                interrupted.wait(interval)
            return Exit.OK
        with Live(console=screen, auto_refresh=False) as live:
            while not interrupted.is_set():
                live.update(_look(chosen, session, old_seconds), refresh=True)
                interrupted.wait(interval)
    return Exit.OK


@contextlib.contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Note the first Ctrl-C, which would else break off a look wherever it is; a second one does."""
    event = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        event.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _look(chosen: Chosen, session: Session, old_seconds: float) -> RenderableType:
    try:
        return render(observe(chosen, session, old_seconds))
    except ConnectionLost as lost:
        return Text(f"{plain(str(lost))}; looking again", style="bold red")


# --- how it looks -----------------------------------------------------------------------------------------------------


def render(found: AppStatus) -> Group:
    """Lay a status out: flows, why they stand, what needs a person, and workers last: a low terminal cuts them off."""
    parts: list[RenderableType] = [_headline(found), Text(), _flows(found)]
    reasons = list(_reasons(found))
    if reasons:
        parts += [Text(), _grid(reasons)]
    if found.findings:
        parts += [Text(), _grid(_findings(found))]
    return Group(*parts, Text(), *_workers(found))


def _headline(found: AppStatus) -> Text:
    words = {Exit.ATTENTION: "needs a person", Exit.UNUSABLE: "cannot be used", Exit.NO_WORKER: "NO WORKER"}
    text = Text.assemble((plain(found.app), "bold"), " · ")
    if found.exit in words:
        text.append(words[Exit(found.exit)], style="bold red")
    elif standing := _standing(found):
        text.append(standing, style="yellow")
    else:
        text.append("all is well", style="green")
    return text.append(f" · {moment(found.at)}\nstore {plain(found.store)}, {_broker(found)}")


def _standing(found: AppStatus) -> str:
    """Count the flows that need nobody yet and handle nothing all the same: '1 flow pausing, 2 flows paused'."""
    counts = [(sum(flow.state == state for flow in found.flows), state) for state in (PAUSING, "paused")]
    return ", ".join(f"{counted(count, 'flow')} {state}" for count, state in counts if count)


def _broker(found: AppStatus) -> str:
    return "broker in the same file" if found.broker == found.store else f"broker {plain(found.broker)}"


def _flows(found: AppStatus) -> Table:
    table = columns("flow", "state", "rate/s#", "backlog#", "oldest#", "in flight#", "retry#", "held#", "failed#")
    for flow in found.flows:
        table.add_row(
            *cells(flow.flow, state(flow.state), number(flow.rate, 1), number(flow.backlog), _oldest(flow),
                   number(flow.in_flight), number(flow.retrying), number(flow.held), _failed(flow))
        )  # fmt: skip
    return table


def _oldest(flow: FlowStatus) -> str:
    return "-" if flow.oldest_seconds is None else short_span(flow.oldest_seconds)


def _failed(flow: FlowStatus) -> Text:
    return Text(number(flow.failed), style="bold red" if flow.failed else "")


def _reasons(found: AppStatus) -> Iterator[tuple[Text, Text]]:
    for flow in found.flows:
        if flow.passed_over:
            passed = counted(flow.passed_over, "message")
            yield Text(plain(flow.flow)), Text(f"passed over {passed} of types that it does not want, since its start")
        for run in flow.long_runs:
            yield Text(plain(flow.flow)), Text(plain(told_run(run)))
        if flow.state == "running" or (flow.since is None and flow.reason is None):
            continue
        since = "" if flow.since is None else f" for {span((found.at - flow.since).total_seconds())}"
        why = one_line(flow.reason or "") or "another worker has the lease, or had it until a moment ago"
        yield Text(plain(flow.flow)), Text(f"{flow.state}{since}: {why}")


def _workers(found: AppStatus) -> Iterator[RenderableType]:
    alive = [worker for worker in found.workers if worker.alive]
    if not found.workers:
        yield Text("No worker was seen within the last day.")
        return
    yield Text(f"{counted(len(alive), 'worker')} alive" + _gone(len(found.workers) - len(alive)))
    yield _grid([(Text(plain(worker.worker)), _worker(worker, found)) for worker in (alive or found.workers)[:8]])


def _gone(count: int) -> str:
    return f", {count:,} seen earlier and gone" if count else ""


def _worker(worker: WorkerStatus, found: AppStatus) -> Text:
    age = span((found.at - worker.started_at).total_seconds())
    seen = f"seen {span(worker.seen_seconds)} ago" + ("" if worker.alive else " (not alive)")
    return Text(f"pid {worker.pid} on {plain(worker.host)}, {seen}, started {age} ago")


def _findings(found: AppStatus) -> list[tuple[Text, Text]]:
    return [
        (Text("!", style="bold red") if finding.code else Text("-"), _finding(finding)) for finding in found.findings
    ]


def _finding(finding: Finding) -> Text:
    text = Text(plain(finding.text))
    return text if finding.hint is None else text.append(f"\n{plain(finding.hint)}", style="cyan")


def _grid(rows: list[tuple[Text, Text]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold", max_width=30)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid
