"""`yeondong db`: the tables of the store."""

from __future__ import annotations

import click

from yeondong.cli.command import AppCommand, Commands
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen
from yeondong.cli.printing import say
from yeondong.cli.wording import counted, plain

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
    """Create, print and check the tables of an app's store."""


@db.command(cls=AppCommand, examples=CREATE_EXAMPLES)
def create(chosen: Chosen) -> Exit:
    """Create the tables that are missing in the store of APP. What is there is not changed."""
    store = chosen.app.store
    made = store.create()
    for name in made:
        say(plain(f"created {name}"))
    say(plain(f"{store.address}: " + (counted(len(made), "object") + " created" if made else "nothing was missing")))
    return Exit.OK


@db.command(cls=AppCommand, examples=SQL_EXAMPLES)
def sql(chosen: Chosen) -> Exit:
    """Print the statements that create the tables, for a migration. Nothing is connected to or changed."""
    for statement in chosen.app.store.statements():
        say(f"{statement.rstrip().rstrip(';')};\n")
    return Exit.OK


@db.command(cls=AppCommand, examples=CHECK_EXAMPLES)
def check(chosen: Chosen) -> Exit:
    """Compare the tables with what this version needs. Exits with 1 if something differs."""
    store = chosen.app.store
    found = store.check()
    for difference in found:
        say(plain(difference))
    if found:
        return Exit.ATTENTION
    say(plain(f"{store.address}: all tables are as they should be"))
    return Exit.OK
