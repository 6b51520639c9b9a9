"""`yeondong check`: settings, declarations, receivers and tables, without starting or changing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from yeondong.app import Yeondong
from yeondong.app.assembly import Parts, make_worker
from yeondong.app.drivers import scheme_of
from yeondong.cli.command import AppCommand, json_option
from yeondong.cli.exits import Exit
from yeondong.cli.flows import describe
from yeondong.cli.loading import Chosen, is_there
from yeondong.cli.observed import flow_names
from yeondong.cli.printing import cells, columns, print_json, say, show
from yeondong.cli.wording import plain
from yeondong.core.broker import Receiver, refuse_second_receivers
from yeondong.errors import ConnectionLost, DeclarationError, ReceiverError, StoreError
from yeondong.settings import mask

EXAMPLES = """
yeondong check shop.app
yeondong check shop.app --json | jq '.settings[] | select(.source != "default")'
"""


@click.command(cls=AppCommand, examples=EXAMPLES, exits=(Exit.OK, Exit.ATTENTION, Exit.USAGE, Exit.UNUSABLE))
@json_option
def check(chosen: Chosen, *, as_json: bool) -> Exit:
    """Show the settings of APP and where each was set, its flows and receivers, and check its store.

    The environment comes before yeondong.toml, that before the code, that before the default. Passwords are masked.
    Settings of a broker that is not used are left out.
    """
    app = chosen.app
    settings = [
        {"name": s.name, "value": _value(app, s.name, s.value), "source": s.source} for s in app.explain_settings()
    ]
    flows = [{"flow": name, "does": describe(chosen, name)} for name in flow_names(app)]
    unusable: list[str] = []
    differences: list[str] = []
    notes: list[str] = []
    usable = is_there(app.store.address)
    if not usable:
        notes.append(f"there is no store at {app.store.address} yet; the first start makes it")
    else:
        try:
            differences += app.store.check()
            usable = not differences
        except (ConnectionLost, StoreError) as error:
            unusable.append(f"store: {error}")
            usable = False
        try:
            if app.broker.address != app.store.address and app.broker.traits.durable:
                differences += app.broker.check(app.channels())
            differences += _receiver_flaws(app)
        except (ConnectionLost, StoreError) as error:
            unusable.append(f"broker: {error}")
    differences += _declaration_flaws(app, "all" if usable else "handlers")
    notes += [f"settings: {warning}" for warning in app.settings.warnings()]
    notes += app.store.cautions()
    if as_json:
        print_json({"app": app.name, "settings": settings, "flows": flows, "unusable": unusable,
                    "wrong": differences, "notes": notes})  # fmt: skip
    else:
        _print(app, settings, flows)
        for sign, lines in (("!", unusable), ("!", differences), ("-", notes)):
            for line in lines:
                say(plain(f"{sign} {line}"))
        if any(line.endswith(" is missing") for line in differences):
            say("`yeondong db create` makes what is missing")
        if not (unusable or differences):
            say("nothing is wrong")
    return Exit.UNUSABLE if unusable else Exit.ATTENTION if differences else Exit.OK


def _value(app: Yeondong, name: str, value: Any) -> Any:
    if value is not None:
        return value
    if name == "store":
        return mask(app.store_url)
    return "in the store's file" if name == "broker" and scheme_of(app.store_url) == "sqlite" else "not set"


def _receiver_flaws(app: Yeondong) -> Iterator[str]:
    registered: list[Receiver] = [r for r in app.broker.receivers() if r.app != app.name]
    own = app.receivers()
    try:
        refuse_second_receivers(registered, own)
        app.check_sent([*registered, *own])
    except ReceiverError as error:
        yield str(error)


def _declaration_flaws(app: Yeondong, parts: Parts) -> Iterator[str]:
    """Build what a worker would run, and begin none of it. The relay looks into the store, where it can."""
    if not app.subscriptions and (app.relay is None or parts == "handlers"):
        return
    try:
        make_worker(app, parts)
    except DeclarationError as error:
        yield str(error)


def _print(app: Yeondong, settings: list[dict[str, Any]], flows: list[dict[str, str]]) -> None:
    here = f"{Path.cwd()}{os.sep}"
    table = columns("setting", "value", "set in")
    broker = scheme_of(app.settings.broker or "")
    for setting in settings:
        if setting["name"].startswith("kafka_") and broker != "kafka" and setting["source"] == "default":
            continue
        table.add_row(*cells(setting["name"], _shown(setting["value"]), setting["source"].removeprefix(here)))
    show(table)
    say()
    table = columns("flow", "does")
    for flow in flows:
        table.add_row(*cells(flow["flow"], flow["does"]))
    if flows:
        show(table)
    else:
        say(f"{app.name} declares no flows")
    say()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
