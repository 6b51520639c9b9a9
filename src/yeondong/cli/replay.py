"""`yeondong replay`: handling again what was handled before."""

from __future__ import annotations

import re
from typing import Final

import click

from yeondong.app import Yeondong
from yeondong.cli.command import AppCommand, yes_option
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, open_session
from yeondong.cli.observed import flow_names, is_alive
from yeondong.cli.printing import agreed, say
from yeondong.cli.wording import counted, parse_time, plain
from yeondong.core.store import RELAY, Session
from yeondong.errors import DeclarationError, UnknownName

EXAMPLES = """
yeondong replay shop.app orders/search --from start        (a dry run)
yeondong replay shop.app orders/search --from 2026-01-31T09:00:00+09:00 --yes
yeondong replay shop.app orders/search --from 3:1200       (partition 3, offset 1200)
yeondong replay shop.app outbox --from 2026-01-31T09:00:00+09:00 --yes
"""

PARTITION_AND_OFFSET: Final = re.compile(r"[0-9]+:[0-9]+")


@click.command(cls=AppCommand, examples=EXAMPLES)
@click.argument("flow")
@click.option("--from", "start", required=True, metavar="TIME|start|PARTITION:OFFSET",
              help="A time with an offset, the start of what the broker keeps, or a place in Kafka.")  # fmt: skip
@yes_option
def replay(chosen: Chosen, *, flow: str, start: str, yes: bool) -> Exit:
    """Give FLOW of APP again everything since TIME that the broker still keeps.

    Its handlers run again for each of these messages: effects in the store's database are written once more, and so is
    whatever a handler does elsewhere. What is held or failed stays as it is. A flow is never moved forward. The flow's
    worker carries it out, between two messages; without one the next worker does.

    FLOW may be ``outbox``: then messages that were sent, and are still in its table, are sent again, under their ids.
    """
    app = chosen.app
    _require_replayable(app, flow)
    one_partition = flow != RELAY and PARTITION_AND_OFFSET.fullmatch(start) is not None
    asked = start if start == "start" or one_partition else parse_time(start, "--from").isoformat()
    session = open_session(chosen)
    try:
        since = "the start of the log" if start == "start" else f"offset {asked}" if one_partition else asked
        if flow == RELAY:
            _announce_outbox(app, session, asked, since)
        else:
            _announce(app, flow, asked, since)
        alive = any(is_alive(report) and flow in {f.flow for f in report.flows} for report in session.flows.workers())
        if not agreed(yes, "Replay?"):
            return Exit.OK
        session.flows.ask_replay(flow, asked)
        when = "its worker carries it out within 2 s" if alive else "no worker is alive: the next one carries it out"
        say(plain(f"{flow}: replay asked for; {when}; see {chosen.command('status')}"))
        if session.flows.control(flow).stopped is not None:
            say(plain(f"{flow} is stopped: it goes on after `{chosen.command('flows resume', flow)}`"))
    finally:
        session.close()
    return Exit.OK


def _announce(app: Yeondong, flow: str, start: str, since: str) -> None:
    lag = next((lag for lag in app.broker.groups() if f"{lag.channel}/{lag.group}" == flow), None)
    if lag is None:
        raise UnknownName("group at the broker", flow, [f"{g.channel}/{g.group}" for g in app.broker.groups()])
    again = app.broker.repeats(lag.channel, lag.group, start)
    say(plain(f"{flow}: its handlers would run again for {counted(again, 'message')} since {since}, in order"))
    say(plain(f"  {counted(lag.waiting, 'message')} not yet handled would come after them"))


def _announce_outbox(app: Yeondong, session: Session, start: str, since: str) -> None:
    by_position = app.relay is not None and app.relay.marking == "position"
    rows = session.outbox_log if by_position else session.outbox
    say(plain(f"{RELAY}: {counted(rows.repeats(start), 'message')} since {since} would be sent again, in order"))
    say(plain("  receivers that remember what they handled (the inbox) drop them by their ids"))


def _require_replayable(app: Yeondong, flow: str) -> None:
    if flow == RELAY and app.relay is not None:
        return
    if flow not in app.subscriptions:
        raise UnknownName("flow", flow, flow_names(app))
    if not app.broker.traits.replay:
        raise DeclarationError(f"the broker {app.broker.address} forgets what was read: {flow} cannot be replayed")
