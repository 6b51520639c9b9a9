"""`yeondong groups`: who receives at the broker, and how far each has come."""

from __future__ import annotations

from typing import Any

import click

from yeondong.cli.command import AppCommand, Commands, json_option, yes_option
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.observed import is_alive
from yeondong.cli.printing import agreed, cells, columns, print_json, say, show
from yeondong.cli.wording import counted, number, plain, seconds_since, span
from yeondong.core.broker import GroupLag
from yeondong.errors import UnknownName

LIST_EXAMPLES = """
yeondong groups list shop.app
yeondong groups list shop.app --json
"""
FORGET_EXAMPLES = """
yeondong groups forget shop.app orders old-search          (a dry run)
yeondong groups forget shop.app orders old-search --yes
"""


@click.group(cls=Commands)
def groups() -> None:
    """List and forget the groups that receive at an app's broker, those of other apps too."""


@groups.command("list", cls=AppCommand, examples=LIST_EXAMPLES)
@json_option
def list_(chosen: Chosen, *, as_json: bool) -> Exit:
    """Show each group at the broker of APP: its progress, and which apps receive in it.

    A group that nobody receives in any more keeps a full log from making room: forget it.
    """
    rows = _rows(chosen)
    if as_json:
        print_json(rows)
        return Exit.OK
    if not rows:
        say(f"no groups at {plain(chosen.app.broker.address)}: no app that receives was started yet")
        return Exit.OK
    table = columns("channel", "group", "waiting#", "oldest#", "dropped#", "apps", "types")
    for row in rows:
        oldest = "-" if row["oldest_seconds"] is None else span(row["oldest_seconds"])
        table.add_row(
            *cells(row["channel"], row["group"], number(row["waiting"]), oldest, number(row["dropped"]),
                   ", ".join(row["apps"]) or "none", ", ".join(row["types"]) or "none")
        )  # fmt: skip
    show(table)
    return Exit.OK


@groups.command(cls=AppCommand, examples=FORGET_EXAMPLES)
@click.argument("channel")
@click.argument("group")
@yes_option
def forget(chosen: Chosen, *, channel: str, group: str, yes: bool) -> Exit:
    """Remove a group and its progress from the broker.

    What it had not read is never given to it. Messages stay in the log for the other groups. A group that an app still
    declares is made anew at the app's next start.
    """
    name = f"{channel}/{group}"
    known = {f"{lag.channel}/{lag.group}": lag for lag in _lags(chosen)}
    if name not in known:
        raise UnknownName("group", name, known)
    say(plain(_consequence(chosen, known[name])))
    if not agreed(yes, f"Forget group {group} of channel {channel}?"):
        return Exit.OK
    chosen.app.broker.forget(channel, group)
    say(plain(f"forgot {name}"))
    return Exit.OK


def _consequence(chosen: Chosen, lag: GroupLag) -> str:
    name = f"{lag.channel}/{lag.group}"
    text = f"{name}: {counted(lag.waiting, 'message')} that it has not read would never be given to it"
    subscription = chosen.app.subscriptions.get(name)
    if subscription is not None:
        where = "the start of the log" if subscription.since == "start" else "what is sent from then on"
        text += f"; {chosen.app.name} declares it, so its next start makes it anew, from {where}"
    session = chosen.app.store.connect()
    try:
        busy = [r for r in session.flows.workers() if is_alive(r) and name in {f.flow for f in r.flows}]
    finally:
        session.close()
    if busy:
        text += f"; worker {busy[0].worker} is running it and will pause until it is restarted"
    return text


def _lags(chosen: Chosen) -> list[GroupLag]:
    open_session(chosen).close()
    return list(chosen.app.broker.groups())


def _rows(chosen: Chosen) -> list[dict[str, Any]]:
    lags = _lags(chosen)
    receivers = chosen.app.broker.receivers()
    now = chosen.app.clock.now()
    return [
        {
            "channel": lag.channel,
            "group": lag.group,
            "waiting": lag.waiting,
            "oldest_at": lag.since,
            "oldest_seconds": seconds_since(lag.since, now),
            "dropped": lag.dropped,
            "apps": sorted({r.app for r in receivers if (r.channel, r.group) == (lag.channel, lag.group)}),
            "types": sorted({r.type for r in receivers if (r.channel, r.group) == (lag.channel, lag.group)}),
        }
        for lag in lags
    ]
