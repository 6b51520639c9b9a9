"""`yeondong failures edit`: mending the data of one failure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import IO

import click

from yeondong.cli.command import AppCommand, by_option, yes_option
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.payloads import compact, decoding_flaw, pretty, with_fields
from yeondong.cli.printing import agreed, note, on_terminal, say
from yeondong.cli.wording import plain
from yeondong.core.store import Failure, FailureFilter
from yeondong.errors import MessageRefused, Undecodable, UnknownName

EXAMPLES = """
yeondong failures edit shop.app h12                            (opens $EDITOR)
yeondong failures edit shop.app h12 --set amount=300 --set address.city=Seoul --yes
yeondong failures edit shop.app h12 --data order.json --yes
generate-order | yeondong failures edit shop.app h12 --data - --yes
"""


@click.command(cls=AppCommand, examples=EXAMPLES)
@click.argument("id_", metavar="ID")
@click.option("--data", "source", type=click.File("rb"), metavar="FILE|-", help="Take the new data from here.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Set one field; may be repeated.")
@by_option
@yes_option
def edit(chosen: Chosen, *, id_: str, source: IO[bytes] | None, changes: Sequence[str], by: str, yes: bool) -> Exit:
    """Replace the data of one failure; the original is kept. It is not retried by that: see `yeondong failures retry`.

    Without --data and --set it opens $EDITOR. The new data has to decode for its handler, where the app has it. Key,
    type, id and place in the order stay as they were.
    """
    if source is not None and changes:
        raise click.UsageError("give --data or --set, not both")
    session = open_session(chosen)
    try:
        found = session.failures.find(FailureFilter(ids=[id_]), 1)
        if not found:
            some = session.failures.find(FailureFilter(), 10)
            raise UnknownName("failure", id_, [failure.id for failure in some])
        failure = found[0]
        data = _new_content(failure, source, changes)
        if data is None or data == failure.message.data:
            say(f"{failure.id}: nothing was changed")
            return Exit.OK
        _check(chosen, failure, data)
        for line in _difference(failure.message.data, data):
            say(line)
        if not agreed(yes, f"Replace the data of {failure.id}?"):
            return Exit.OK
        if not session.failures.edit(failure.id, data, by):
            note(f"{failure.id} is no failure any more: somebody else has decided meanwhile; nothing was changed")
            return Exit.ATTENTION
        say(
            f"{failure.id}: data replaced, the original is kept; try it: {chosen.command('failures retry', failure.id)}"
        )
    finally:
        session.close()
    return Exit.OK


def _new_content(failure: Failure, source: IO[bytes] | None, changes: Sequence[str]) -> bytes | None:
    if source is not None:
        return compact(source.read().strip())
    if changes:
        return with_fields(failure.message.data, changes)
    if not on_terminal():
        raise click.UsageError("there is no terminal for $EDITOR; give --data FILE, --data - or --set field=value")
    old = failure.message.data if failure.message.data is not None else b""
    edited = click.edit(pretty(old), extension=".json", require_save=True)
    return None if edited is None else compact(edited.strip().encode())


def _check(chosen: Chosen, failure: Failure, data: bytes) -> None:
    """Refuse data that its handler could not take; a typo would only come back as the next failure."""
    most = chosen.app.settings.max_message_bytes
    if len(data) > most:
        raise MessageRefused(
            f"the new data has {len(data):,} bytes and at most {most:,} are allowed (max_message_bytes)"
        )
    type_ = failure.message.type
    known, flaw = decoding_flaw(chosen.app, failure.flow, type_, data)
    if flaw is not None:
        raise Undecodable(type_, f"{flaw.partition(': ')[2]}; nothing was changed")
    if not known:
        note(plain(f"not checked: {chosen.app.name} has no handler of {type_}"))


def _difference(old: bytes | None, new: bytes) -> Iterator[str]:
    before = [] if old is None else plain(pretty(old)).splitlines()
    lines = difflib.unified_diff(before, plain(pretty(new)).splitlines(), "before", "after", lineterm="", n=2)
    yield from lines
