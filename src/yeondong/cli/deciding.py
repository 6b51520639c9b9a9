"""`yeondong failures retry` and `discard`: first what would happen, then doing it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import click

from yeondong.app import Yeondong
from yeondong.cli.command import AppCommand, by_option, yes_option
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.observed import is_alive
from yeondong.cli.printing import agreed, note, say
from yeondong.cli.selecting import Asked, filter_options, missing, refuse_unknown_flow, sum_behind
from yeondong.cli.wording import counted, plain
from yeondong.core.store import RELAY, Failure, Session

Verb: TypeAlias = Literal["retry", "discard"]

LISTED = 10
_ENDED = re.compile(r"the process ended \d+ times? while this message was being handled")
RETRY_EXAMPLES = """
yeondong failures retry shop.app h12                       (a dry run)
yeondong failures retry shop.app h12 h13 --yes
yeondong failures retry shop.app --flow orders/search --error timeout --yes
yeondong failures retry shop.app --all --limit 10 --yes
"""
DISCARD_EXAMPLES = """
yeondong failures discard shop.app h12                     (a dry run)
yeondong failures discard shop.app --type OldOrder --before 2026-01-31T09:00:00Z --yes
"""

limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", default=1000, show_default=True,
                            help="At most so many, the oldest first.")  # fmt: skip


@click.command(cls=AppCommand, examples=RETRY_EXAMPLES)
@filter_options
@limit_option
@by_option
@yes_option
def retry(chosen: Chosen, *, limit: int, by: str, yes: bool, every: bool, **given: Any) -> Exit:
    """Let failures be tried again, from their first attempt.

    Each is tried before the messages that wait behind it; when it is through they follow in order. One that fails again
    comes back into the list, and what waits behind it goes on waiting.
    """
    return _decide(chosen, "retry", _asked(given, every=every), limit, by, yes=yes)


@click.command(cls=AppCommand, examples=DISCARD_EXAMPLES)
@filter_options
@limit_option
@by_option
@yes_option
def discard(chosen: Chosen, *, limit: int, by: str, yes: bool, every: bool, **given: Any) -> Exit:
    """Give failures up for good: they are never handled.

    What waits behind them goes on in order, without them. The data, who decided and when stay recorded and are shown by
    `yeondong failures show`.
    """
    return _decide(chosen, "discard", _asked(given, every=every), limit, by, yes=yes)


def _asked(given: dict[str, Any], *, every: bool) -> Asked:
    return Asked(every=every, type=given.pop("type_"), **given)


def _decide(chosen: Chosen, verb: Verb, asked: Asked, limit: int, by: str, *, yes: bool) -> Exit:
    which = asked.filter()
    session = open_session(chosen)
    try:
        refuse_unknown_flow(chosen, session, which)
        gone = missing(session, which)
        for id in gone:
            note(plain(f"{id} is no failure, or no more ({chosen.command('failures show', id)})"))
        found = session.failures.find(which, limit)
        if not found:
            say("no failure matches: nothing to do")
            return Exit.ATTENTION if gone else Exit.OK
        idle = _without_worker(chosen, session, verb, found)
        warnings = list(_in_vain(chosen.app, found)) if verb == "retry" else []
        for line in _consequences(verb, found, session.failures.count(which), [*warnings, *(() if yes else idle)]):
            say(plain(line))
        if agreed(yes, f"{verb.capitalize()} {counted(len(found), 'failure')}?"):
            act: Callable[[Sequence[str], str], int] = getattr(session.failures, verb)
            _tell_done(verb, found, act([failure.id for failure in found], by), idle)
    finally:
        session.close()
    return Exit.ATTENTION if gone else Exit.OK


def _tell_done(verb: Verb, found: Sequence[Failure], done: int, idle: Sequence[str]) -> None:
    word = "will be tried again" if verb == "retry" else "discarded"
    say(f"done: {counted(done, 'failure')} {word}")
    for line in idle if done else ():
        say(plain(line))
    if done < len(found):
        say(f"{counted(len(found) - done, 'failure')} had been decided by somebody else meanwhile")


def _consequences(verb: Verb, found: Sequence[Failure], total: int, idle: Sequence[str]) -> Iterator[str]:
    listed = ", ".join(failure.id for failure in found[:LISTED]) + (", …" if len(found) > LISTED else "")
    oldest = "" if total == len(found) else f"the oldest of {total:,} (--limit); "
    would = "would be tried again, from the first attempt" if verb == "retry" else "would be given up for good"
    yield f"{counted(len(found), 'failure')} {would}: {oldest}{listed}"
    counts = Counter((failure.flow, failure.message.type) for failure in found)
    for (flow, type_), count in sorted(counts.items()):
        yield f"  {flow}: {count:,} of {type_}"
    if verb == "retry":
        yield from _out_of_order(found)
    behind = sum_behind(found)
    if not behind:
        yield "no messages are held behind"
    elif verb == "retry":
        follows = "it then follows" if behind == 1 else "they then follow"
        yield f"{counted(behind, 'message')} held behind: {follows}, in order within each key"
    else:
        goes = "it goes on" if behind == 1 else "they go on"
        them = "it" if len(found) == 1 else "them"
        yield f"{counted(behind, 'message')} held behind: {goes} without {them}, in order within each key"
    yield from idle


def _out_of_order(found: Sequence[Failure]) -> Iterator[str]:
    """Warn of those whose keys have gone on without them: a retry may undo what came later."""
    late = [failure for failure in found if not failure.blocks and failure.message.key is not None]
    if late:
        names = ", ".join(failure.id for failure in late[:LISTED]) + (", …" if len(late) > LISTED else "")
        key = "its key has" if len(late) == 1 else "their keys have"
        yield f"out of order: {key} gone on, so that later messages may have been handled before: {names}"


def _in_vain(app: Yeondong, found: Sequence[Failure]) -> Iterator[str]:
    """Warn of what may end its worker again, and of what this app's code has no handler for."""
    for failure in found:
        if _ENDED.search(failure.error):
            yield f"{failure.id}: its worker's process ended while it was handled; it may end its worker again"
    for flow, type_ in sorted({(failure.flow, failure.message.type) for failure in found}):
        subscription = app.subscriptions.get(flow)
        if subscription is not None and type_ not in subscription.handlers:
            yield f"{flow} has no handler for {type_} in this app: with a worker of this version it fails again"


def _without_worker(chosen: Chosen, session: Session, verb: Verb, found: Sequence[Failure]) -> list[str]:
    """Say for which flows nothing is handled yet, and when it is."""
    what = "the retry begins" if verb == "retry" else "what is held behind goes on"
    alive = {f.flow for r in session.flows.workers() if is_alive(r) for f in r.flows}
    lines = []
    for flow in sorted({failure.flow for failure in found}):
        control = session.flows.control(flow)
        if control.stopped is not None or control.paused is not None:
            state = "stopped" if control.stopped is not None else "paused"
            lines.append(f"{flow} is {state}: {what} after {chosen.command('flows resume', flow)}")
        elif flow not in alive:
            start = chosen.command("relay" if flow == RELAY else "run")
            lines.append(f"no live worker has {flow}: {what} when one runs ({start})")
    return lines
