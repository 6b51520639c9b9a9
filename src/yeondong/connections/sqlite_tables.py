"""What a file has of the tables that a driver needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Index, MetaData, Table
from sqlalchemy.dialects import sqlite

OBJECTS: Final = "SELECT name FROM sqlite_schema"

_DIALECT: Final = sqlite.dialect()


def names(connection: sqlite3.Connection) -> set[str]:
    """Return what there is in the file."""
    return {row[0] for row in connection.execute(OBJECTS)}


def differences(connection: sqlite3.Connection, metadata: MetaData) -> list[str]:
    """Compare tables, columns and indexes with what is needed: a sentence for each difference."""
    there = names(connection)
    found = []
    for table in metadata.sorted_tables:
        if table.name not in there:
            found.append(f"table {table.name} is missing")
            continue
        found += _column_differences(connection, table)
        found += [
            f"index {index_name(index)} on {table.name} is missing"
            for index in table.indexes
            if index_name(index) not in there
        ]
    return found


def index_name(index: Index) -> str:
    """Return an index's name; ours all have one."""
    return str(index.name)


def _column_differences(connection: sqlite3.Connection, table: Table) -> Sequence[str]:
    there = {row[1]: row[2].upper() for row in connection.execute(f"PRAGMA table_info({table.name})")}
    found = []
    for column in table.columns:
        type = column.type.compile(_DIALECT).upper()  # noqa: A001
        if column.name not in there:
            found.append(f"column {table.name}.{column.name} is missing")
        elif there[column.name] != type:
            found.append(f"column {table.name}.{column.name} is {there[column.name]}, not {type}")
    return found
