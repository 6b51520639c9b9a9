"""`yeondong failures`: what waits for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.cells import cell_len

from yeondong.cli.command import AppCommand, Commands, json_option
from yeondong.cli.deciding import discard, retry
from yeondong.cli.editing import edit
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.payloads import pretty
from yeondong.cli.printing import print_json, say
from yeondong.cli.selecting import Asked, filter_options, refuse_unknown_flow
from yeondong.cli.wording import counted, moment, one_line, plain, seconds_since, span
from yeondong.core.store import Failure, FailureFilter

LIST_EXAMPLES = """
yeondong failures list shop.app
yeondong failures list shop.app --flow orders/search --error timeout
yeondong failures list shop.app --json | jq -r '.failures[].id'
"""
SHOW_EXAMPLES = """
yeondong failures show shop.app h12
yeondong failures show shop.app h12 o431 --json
"""


@click.group(cls=Commands)
def failures() -> None:
    """See, edit, retry and discard what failed.

    A failure is a message that was tried as often as its flow allows, or that can never be handled. It waits here until
    a person decides. Where its flow keeps the order of a key, later messages of that key wait behind it.
    """


@failures.command("list", cls=AppCommand, examples=LIST_EXAMPLES)
@filter_options
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=50, show_default=True, help="Show at most so many."
)
@json_option
def list_(chosen: Chosen, *, limit: int, as_json: bool, every: bool, **given: Any) -> Exit:
    """List failures, oldest first: all of them, or those that ids and filters name.

    Exits with 1 if there are any, so that a probe or a script can tell.
    """
    which = asked(given, every=every or not any(given.values())).filter()
    session = open_session(chosen)
    try:
        refuse_unknown_flow(chosen, session, which)
        total = session.failures.count(which)
        found = session.failures.find(which, limit)
    finally:
        session.close()
    now = chosen.app.clock.now()
    if as_json:
        print_json({"total": total, "failures": [as_fields(failure) for failure in found]})
    elif not total:
        say("no failures" if which == FailureFilter() else "no failure matches")
    else:
        for line in _lines(found, now):
            say(line)
        say()
        shown = "" if total == len(found) else f", the oldest {len(found):,} shown (--limit)"
        say(f"{counted(total, 'failure')}{shown}; details: {chosen.command('failures show', found[0].id)}")
    return Exit.ATTENTION if total else Exit.OK


@failures.command(cls=AppCommand, examples=SHOW_EXAMPLES)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
def show(chosen: Chosen, *, ids: Sequence[str], as_json: bool) -> Exit:
    """Show failures whole: payload, error with traceback, attempts, who waits behind, what was done before.

    An id that is no failure any more shows what was done about it, and makes the command exit with 1.
    """
    session = open_session(chosen)
    try:
        found = {failure.id: failure for failure in session.failures.find(FailureFilter(ids=ids), len(ids))}
        history = {id: session.failures.actions(id) for id in ids}
    finally:
        session.close()
    if as_json:
        print_json([{**_shown(id, found.get(id)), "actions": _actions(history[id])} for id in ids])
    else:
        for number, id in enumerate(ids):
            if number:
                say()
            for line in _told(id, found.get(id), history[id], chosen):
                say(line)
    return Exit.OK if all(id in found for id in ids) else Exit.ATTENTION


failures.add_command(edit)
failures.add_command(retry)
failures.add_command(discard)


def asked(given: Mapping[str, Any], *, every: bool) -> Asked:
    """Gather what ``filter_options`` gave."""
    return Asked(every=every, type=given["type_"], **{name: value for name, value in given.items() if name != "type_"})


def as_fields(failure: Failure) -> dict[str, Any]:
    """Return a failure for JSON: the payload as JSON where it is, else as text or base64."""
    message = failure.message
    return {
        "id": failure.id,
        "flow": failure.flow,
        "failed_at": failure.failed_at,
        "attempts": failure.attempts,
        "error": failure.error,
        "blocks": failure.blocks,
        "behind": failure.behind,
        "edited": failure.edited,
        "message": {
            "id": message.id,
            "type": message.type,
            "kind": message.kind,
            "channel": message.channel,
            "key": message.key,
            "origin": message.origin,
            "occurred_at": message.occurred_at,
            "headers": {name: _text(value) for name, value in message.headers.items()},
            "data": _json_or_text(message.data),
        },
    }


def _shown(id: str, failure: Failure | None) -> dict[str, Any]:
    return as_fields(failure) if failure is not None else {"id": id}


def _json_or_text(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return _text(data)
    return msgspec.Raw(data)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")


def _actions(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**action, "original": _json_or_text(action.get("original"))} for action in history]


# --- how it looks -----------------------------------------------------------------------------------------------------


def _lines(found: Sequence[Failure], now: Any) -> Iterator[str]:
    """Give two lines for each failure: what and where, then its error."""
    rows = [("id", "failed", "flow", "type", "key", "attempts", "behind")]
    rows += [
        (
            failure.id,
            f"{span(seconds_since(failure.failed_at, now) or 0)} ago",
            plain(failure.flow),
            plain(failure.message.type),
            "-" if failure.message.key is None else plain(failure.message.key),
            str(failure.attempts),
            f"{failure.behind:,}" + ("  edited" if failure.edited else ""),
        )
        for failure in found
    ]
    widths = [min(40, max(cell_len(row[column]) for row in rows)) for column in range(6)]
    for number, row in enumerate(rows):
        padded = [value + " " * max(0, width - cell_len(value)) for value, width in zip(row, [*widths, 0], strict=True)]
        yield "  ".join(padded).rstrip()
        if number:
            yield f"    {one_line(found[number - 1].error) or 'no error text'}"


def _told(id: str, failure: Failure | None, history: Sequence[Mapping[str, Any]], chosen: Chosen) -> Iterator[str]:
    if failure is None:
        yield f"{plain(id)} is no failure{', or no more' if history else '; nothing is recorded about it'}"
        yield from _history(history)
        return
    message = failure.message
    yield f"{failure.id}  {plain(message.type)}  in {plain(failure.flow)}"
    yield f"  failed    {moment(failure.failed_at)}, after {counted(failure.attempts, 'attempt')}"
    yield f"  message   {plain(message.id)}, {message.kind} on channel {plain(message.channel)}"
    yield f"  key       {'none' if message.key is None else plain(message.key)}"
    yield f"  behind    {_behind(failure)}"
    if message.occurred_at is not None:
        yield f"  occurred  {moment(message.occurred_at)}, at {plain(message.origin) or 'an unknown origin'}"
    for name, value in message.headers.items():
        yield f"  header    {plain(name)}: {plain(_text(value))}"
    yield "  payload" + (" (edited)" if failure.edited else "")
    yield from _indented(pretty(message.data))
    yield "  error"
    yield from _indented(failure.error or "no error text")
    yield from _history(history)
    yield f"  retry it: {chosen.command('failures retry', failure.id)}"


def _behind(failure: Failure) -> str:
    if failure.message.key is None:
        return "nothing waits: it has no key"
    if not failure.blocks:
        return "nothing waits: later messages of its key have gone on without it"
    if not failure.behind:
        return "nothing waits yet; later messages of its key would"
    waits = "waits" if failure.behind == 1 else "wait"
    return f"{counted(failure.behind, 'message')} of its key {waits} behind it, in order"


def _history(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not history:
        return
    yield "  done before"
    for action in history:
        yield f"    {moment(action['at'])}  {plain(str(action['action']))} by {plain(str(action['by']))}"
        if action.get("original") is not None:
            yield "      the data until then:"
            yield from _indented(pretty(action["original"]), 8)


def _indented(text: str, by: int = 4) -> Iterator[str]:
    for line in plain(text).splitlines():
        yield f"{'':{by}}{line}"
