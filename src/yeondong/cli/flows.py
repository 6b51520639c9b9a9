"""`yeondong flows`: what there is, and pausing and resuming it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from yeondong.cli.command import AppCommand, Commands, by_option, json_option
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.observed import PAUSING, flow_names, is_alive, state_of
from yeondong.cli.printing import cells, columns, print_json, say, show, state
from yeondong.cli.wording import one_line, plain
from yeondong.core.store import RELAY, Session, WorkerReport
from yeondong.errors import UnknownName

LIST_EXAMPLES = """
yeondong flows list shop.app
"""
PAUSE_EXAMPLES = """
yeondong flows pause shop.app orders/search --reason 'the index is rebuilt'
yeondong flows pause shop.app --all --wait 60 && rebuild-index
"""
RESUME_EXAMPLES = """
yeondong flows resume shop.app orders/search
yeondong flows resume shop.app --all
"""
LOOK_SECONDS: Final = 0.1


@click.group(cls=Commands)
def flows() -> None:
    """List, pause and resume the flows of an app."""


@flows.command("list", cls=AppCommand, examples=LIST_EXAMPLES)
@json_option
def list_(chosen: Chosen, *, as_json: bool) -> Exit:
    """Show each flow of APP: what it does, its state and why it is in it."""
    session = open_session(chosen)
    try:
        rows = _rows(chosen, session)
    finally:
        session.close()
    if as_json:
        print_json(rows)
        return Exit.OK
    table = columns("flow", "state", "does")
    for row in rows:
        why = f"\n{one_line(row['reason'])}" if row["reason"] else ""
        table.add_row(*cells(row["flow"], state(row["state"]), row["does"] + why))
    show(table)
    return Exit.OK


@flows.command(cls=AppCommand, examples=PAUSE_EXAMPLES, exits=(Exit.OK, Exit.USAGE, Exit.UNUSABLE, Exit.STILL_AT_WORK))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All flows of the app.")
@click.option("--reason", default="paused by hand", metavar="TEXT", help="Why; everybody sees it in status.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(min=0), default=10.0, show_default=True,
              metavar="SECONDS", help="How long to wait until they are at rest; 0: do not wait.")  # fmt: skip
@by_option
def pause(chosen: Chosen, *, names: Sequence[str], every: bool, reason: str, wait_seconds: float, by: str) -> Exit:
    """Pause flows until they are resumed, also across restarts, and wait until they are at rest.

    A worker finishes what is in work, gives the rest back and takes nothing more. Until it tells so its handlers may
    still write, and the flow is pausing. Nothing is lost: the backlog waits at its source. Mind the broker's retention
    and a full log during a long pause.
    """
    session = open_session(chosen)
    try:
        at = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
        asked = _named(chosen, session, names, every=every)
        for name in asked:
            session.flows.pause(name, f"{reason} (by {by}, {at})")
        return _wait_for_rest(chosen, session, asked, wait_seconds)
    finally:
        session.close()


def _wait_for_rest(chosen: Chosen, session: Session, names: Sequence[str], wait_seconds: float) -> Exit:
    """Tell of each flow when it has come to rest, or that it has not within this time."""
    until = time.monotonic() + wait_seconds
    left = list(names)
    while left:
        for name in names:
            if name in left and (now := _state(chosen, session, name)) != PAUSING:
                left.remove(name)
                say(plain(f"{name}: {now}; {_effect(chosen, session, name, 'is at rest')}"))
        if not left or time.monotonic() >= until:
            break
        time.sleep(LOOK_SECONDS)
    rest = f"was not at rest within {wait_seconds:g} s" if wait_seconds else "comes to rest in a moment"
    for name in left:
        say(plain(f"{name}: pausing; its worker {rest}, see {chosen.command('flows list')}"))
    return Exit.STILL_AT_WORK if left and wait_seconds else Exit.OK


@flows.command(cls=AppCommand, examples=RESUME_EXAMPLES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All flows of the app.")
def resume(chosen: Chosen, *, names: Sequence[str], every: bool) -> Exit:
    """End a pause or a stop.

    A flow that had stopped because of a message tries that message again first, from its first attempt: mend the cause
    before. Failures stay failures; see `yeondong failures`.
    """
    session = open_session(chosen)
    try:
        for name in _named(chosen, session, names, every=every):
            control = session.flows.control(name)
            if control.paused is None and control.stopped is None:
                say(plain(f"{name}: was neither paused nor stopped"))
                continue
            was = f"stopped: {control.stopped}" if control.stopped is not None else f"paused: {control.paused}"
            session.flows.resume(name)
            say(plain(f"{name}: resumed; {_effect(chosen, session, name, 'goes on within 2 s')} (was {one_line(was)})"))
    finally:
        session.close()
    return Exit.OK


def _named(chosen: Chosen, session: Session, names: Sequence[str], *, every: bool) -> Sequence[str]:
    known = flow_names(chosen.app, _alive(chosen, session))
    if every == bool(names):
        raise click.UsageError(f"name flows, or say --all; flows of {chosen.app.name}: {', '.join(known) or 'none'}")
    for name in names:
        if name not in known:
            raise UnknownName("flow", name, known)
    return known if every else names


def _alive(chosen: Chosen, session: Session) -> list[WorkerReport]:
    app = chosen.app
    return [r for r in session.flows.workers() if r.app == app.name and is_alive(r)]


def _state(chosen: Chosen, session: Session, name: str) -> str:
    reports = [f for r in _alive(chosen, session) for f in r.flows if f.flow == name]
    return state_of(session.flows.control(name), reports)[0]


def _effect(chosen: Chosen, session: Session, name: str, then: str) -> str:
    has = [r for r in _alive(chosen, session) if name in {f.flow for f in r.flows}]
    return f"its worker {then}" if has else "no worker is alive, the next one finds it so"


def _rows(chosen: Chosen, session: Session) -> list[dict[str, Any]]:
    app = chosen.app
    alive = _alive(chosen, session)
    rows: list[dict[str, Any]] = []
    for name in flow_names(app, alive):
        reports = [f for r in alive for f in r.flows if f.flow == name]
        now, since, reason = state_of(session.flows.control(name), reports)
        rows.append({"flow": name, "does": describe(chosen, name), "state": now, "since": since, "reason": reason})
    return rows


def describe(chosen: Chosen, name: str) -> str:
    """Say what a flow does."""
    app = chosen.app
    if name == RELAY and app.relay is not None:
        return f"sends the outbox, marked by {app.relay.marking}"
    subscription = app.subscriptions.get(name)
    if subscription is None:
        return "is run by a worker of another version of this app"
    return f"handles {', '.join(sorted(subscription.handlers))}"
