"""The tables in a file: what is missing, what differs, and how they are made."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from yeondong.connections.sqlite_tables import differences, index_name, names
from yeondong.errors import SchemaMismatch
from yeondong.stores import tables

VERSION = "SELECT max(version) FROM yeondong_schema"
SET_VERSION = f"INSERT INTO yeondong_schema (version) VALUES ({tables.SCHEMA_VERSION:d})"
VIEW = "yeondong_outbox_status"

_DIALECT = sqlite.dialect()


def creating() -> dict[str, str]:
    """Return, by name and in order, the statements that create all tables, indexes and the view."""
    made = {}
    for table in tables.metadata.sorted_tables:
        made[table.name] = _sql(CreateTable(table))
        for index in sorted(table.indexes, key=index_name):
            made[index_name(index)] = _sql(CreateIndex(index))
    made[VIEW] = tables.STATUS_VIEW.strip()
    return made


def missing_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that are not in the file."""
    there = names(connection)
    return [name for name in tables.metadata.tables if name not in there]


def begin(connection: sqlite3.Connection) -> None:
    """Begin as sqlite3 would by itself before an INSERT, for statements before which it does not."""
    if not connection.in_transaction:
        connection.execute(f"BEGIN {connection.isolation_level or ''}")


def create(connection: sqlite3.Connection) -> list[str]:
    """Create what is missing, within a transaction, and return the names."""
    begin(connection)
    there = names(connection)
    made = []
    for name, statement in creating().items():
        if name not in there:
            connection.execute(statement)
            made.append(name)
    if connection.execute(VERSION).fetchone()[0] is None:
        connection.execute(SET_VERSION)
    return made


def refuse_mismatch(connection: sqlite3.Connection, path: str) -> None:
    """Raise ``SchemaMismatch`` for the tables of another version."""
    version = connection.execute(VERSION).fetchone()[0] if "yeondong_schema" in names(connection) else None
    if version is None:
        # Made by a migration tool, which knows the tables and not the version.
        differences = check(connection)
        if differences:
            raise SchemaMismatch(
                f"the tables in {path} are not those of this yeondong: {differences[0]}"
                f"{f' (and {len(differences) - 1} more)' if len(differences) > 1 else ''}; "
                "migrate them (`yeondong db check` lists all differences)"
            )
    elif version < tables.SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the tables in {path} are of the older schema {version}, this yeondong needs {tables.SCHEMA_VERSION}; "
            "migrate them (`yeondong db check` lists the differences), or go on with the older yeondong"
        )
    elif version > tables.SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the tables in {path} are of the newer schema {version}, this yeondong knows {tables.SCHEMA_VERSION}; "
            "install the yeondong that made them, or a newer one"
        )


def check(connection: sqlite3.Connection) -> list[str]:
    """Compare tables, columns and indexes with what this version needs: a sentence for each difference."""
    return differences(connection, tables.metadata)


def _sql(element: Any) -> str:
    return str(element.compile(dialect=_DIALECT)).strip()
