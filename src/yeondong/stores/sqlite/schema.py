"""The tables in a file: what is missing, what differs, and how they are made."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Index, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from yeondong.errors import SchemaMismatch
from yeondong.stores import tables

OBJECTS = "SELECT name FROM sqlite_schema"
VERSION = "SELECT max(version) FROM yeondong_schema"
SET_VERSION = f"INSERT INTO yeondong_schema (version) VALUES ({tables.SCHEMA_VERSION:d})"

_DIALECT = sqlite.dialect()


def creating() -> dict[str, str]:
    """Return, by name and in order, the statements that create all tables, indexes and the view."""
    made = {}
    for table in tables.metadata.sorted_tables:
        made[table.name] = _sql(CreateTable(table))
        for index in sorted(table.indexes, key=_index_name):
            made[_index_name(index)] = _sql(CreateIndex(index))
    made["yeondong_outbox_status"] = tables.STATUS_VIEW.strip()
    return made


def names(connection: sqlite3.Connection) -> set[str]:
    """Return what there is in the file."""
    return {row[0] for row in connection.execute(OBJECTS)}


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
    there = names(connection)
    found = []
    for table in tables.metadata.sorted_tables:
        if table.name not in there:
            found.append(f"table {table.name} is missing")
            continue
        found += _check_columns(connection, table)
        found += [
            f"index {_index_name(index)} on {table.name} is missing"
            for index in table.indexes
            if _index_name(index) not in there
        ]
    return found


def _check_columns(connection: sqlite3.Connection, table: Table) -> Sequence[str]:
    there = {row[1]: row[2].upper() for row in connection.execute(f"PRAGMA table_info({table.name})")}
    found = []
    for column in table.columns:
        type = column.type.compile(_DIALECT).upper()  # noqa: A001
        if column.name not in there:
            found.append(f"column {table.name}.{column.name} is missing")
        elif there[column.name] != type:
            found.append(f"column {table.name}.{column.name} is {there[column.name]}, not {type}")
    return found


def _sql(element: Any) -> str:
    return str(element.compile(dialect=_DIALECT)).strip()


def _index_name(index: Index) -> str:
    return str(index.name)
