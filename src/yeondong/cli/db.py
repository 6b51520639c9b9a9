"""`yeondong db`: the tables of the store and of the broker."""

from __future__ import annotations

from collections.abc import Sequence

import click

from yeondong.cli.command import AppCommand, Commands
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen
from yeondong.cli.printing import say
from yeondong.cli.wording import counted, plain
from yeondong.core.broker import Broker
from yeondong.core.store import Store

CREATE_EXAMPLES = """
yeondong db create shop.app
"""
SQL_EXAMPLES = """
yeondong db sql shop.app > yeondong.sql
"""
CHECK_EXAMPLES = """
yeondong db check shop.app
"""


@click.group(cls=Commands)
def db() -> None:
    """Create, print and check the tables and topics of an app's store and broker."""


@db.command(cls=AppCommand, examples=CREATE_EXAMPLES)
def create(chosen: Chosen) -> Exit:
    """Create the tables and topics that are missing in the store of APP and at its broker. What is there stays."""
    for address, systems in _systems(chosen):
        made = [name for system in systems for name in _create(chosen, system)]
        for name in made:
            say(plain(f"created {name}"))
        say(plain(f"{address}: " + (counted(len(made), "object") + " created" if made else "nothing was missing")))
    return Exit.OK


@db.command(cls=AppCommand, examples=SQL_EXAMPLES)
def sql(chosen: Chosen) -> Exit:
    """Print the statements that create the tables, for a migration. Nothing is connected to or changed."""
    statements = {
        address: [each for system in systems for each in system.statements()] for address, systems in _systems(chosen)
    }
    for address, there in statements.items():
        if sum(map(bool, statements.values())) > 1:
            say(plain(f"-- {address}\n"))
        for statement in there:
            say(f"{statement.rstrip().rstrip(';')};\n")
    return Exit.OK


@db.command(cls=AppCommand, examples=CHECK_EXAMPLES)
def check(chosen: Chosen) -> Exit:
    """Compare the tables with what this version needs. Exits with 1 if something differs."""
    exit_code = Exit.OK
    remarks = chosen.app.store.remarks()
    by_position = chosen.app.relay is not None and chosen.app.relay.marking == "position"
    for address, systems in _systems(chosen):
        found = list(dict.fromkeys(difference for system in systems for difference in _check(chosen, system)))
        if by_position and chosen.app.store in systems:
            found += remarks  # without the view nobody sees what has become of a row
        for difference in found:
            say(plain(difference))
        if found:
            exit_code = Exit.ATTENTION
        else:
            say(plain(f"{address}: everything is as it should be"))
    if not by_position:
        for remark in remarks:
            say(plain(f"- {remark}"))
    return exit_code


def _create(chosen: Chosen, system: Store | Broker) -> Sequence[str]:
    return system.create() if system is chosen.app.store else chosen.app.broker.create(chosen.app.channels())


def _check(chosen: Chosen, system: Store | Broker) -> Sequence[str]:
    return system.check() if system is chosen.app.store else chosen.app.broker.check(chosen.app.channels())


def _systems(chosen: Chosen) -> Sequence[tuple[str, Sequence[Store | Broker]]]:
    """Return what may lack something, by address: mostly the store and the broker are in one file."""
    store, broker = chosen.app.store, chosen.app.broker
    if broker.address == store.address:
        return [(store.address, [store, broker])]
    return [(store.address, [store]), *([(broker.address, [broker])] if broker.traits.durable else [])]
