"""Making the log's tables, or saying why a file cannot carry them."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from yeondong.connections.sqlite import SqliteFile
from yeondong.connections.sqlite_tables import differences, names
from yeondong.errors import SchemaMismatch, SchemaMissing
from yeondong.messaging.brokers.sqlite.link import Link
from yeondong.messaging.brokers.sqlite.tables import VERSION, metadata, size

OURS: Final = "yeondong_"
ANY_TABLE: Final = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name LIKE 'yeondong@_broker@_%' ESCAPE '@'"
COLUMNS: Final = "SELECT name FROM pragma_table_info(?)"
VERSION_HERE: Final = "SELECT version FROM yeondong_broker_size WHERE id = 1"
# Where Alembic made the tables the row is missing; where it was lost, the rows of the log say what it held.
FIRST_SIZE: Final = f"""
INSERT OR IGNORE INTO yeondong_broker_size (id, version, messages, bytes)
SELECT 1, {VERSION:d}, count(*), coalesce(sum(bytes), 0) FROM yeondong_broker_log
"""  # noqa: S608 - a number of ours


def statements() -> list[str]:
    """Return what creates the tables that are missing, in order."""
    dialect = sqlite.dialect()
    found: list[ExecutableDDLElement] = []
    for table in metadata.sorted_tables:
        found.append(CreateTable(table, if_not_exists=True))
        found += [CreateIndex(index, if_not_exists=True) for index in table.indexes]
    return [*(str(statement.compile(dialect=dialect)).strip() for statement in found), FIRST_SIZE.strip()]


def prepare(link: Link, *, make: bool) -> None:
    """Make the tables that are missing. Changes nothing in a file that is not ours to change, and says why."""
    if not link.file.empty():
        if _complete(link.file):
            link.rows("SELECT 1")
            return
        if not make:
            _refuse_others(link.file)
    create(link)


def create(link: Link) -> list[str]:
    """Make what is missing and return the names. Raises ``SchemaMismatch`` and changes nothing then."""
    if not link.file.empty():
        _complete(link.file)
    with link.transaction("broker: create tables") as connection:
        before = names(connection)
        for statement in statements():
            connection.execute(statement)
        return sorted(name for name in names(connection) - before if name.startswith(OURS))


def check(file: SqliteFile) -> list[str]:
    """Return a sentence for each difference between the file and what this version needs."""
    if file.empty():
        return [f"{file.path} is missing or empty; `yeondong db create` makes it"]
    with contextlib.closing(file.look()) as connection:
        found = differences(connection, metadata)
        if not found:
            try:
                _row_is_there(connection, file.path)
            except SchemaMismatch as mismatch:
                found.append(str(mismatch))
        return found


def is_there(link: Link) -> bool:
    """Whether anybody has made the tables, or some of them."""
    return bool(link.rows(ANY_TABLE))


def _refuse_others(file: SqliteFile) -> None:
    with contextlib.closing(file.look()) as connection:
        there = names(connection)
    if there and not any(name.startswith(OURS) for name in there):
        raise SchemaMissing(
            f"{file.path} has no table {metadata.sorted_tables[0].name}; run `yeondong db create`, or your migration, "
            "to make it"
        )


def _complete(file: SqliteFile) -> bool:
    """Whether all is there; raises ``SchemaMismatch`` if what is there belongs to another version."""
    with contextlib.closing(file.look()) as connection:
        complete = True
        for table in metadata.sorted_tables:
            found = {name for (name,) in connection.execute(COLUMNS, (table.name,))}
            lacking = sorted({column.name for column in table.columns} - found)
            complete = complete and not lacking
            if found and table.name == size.name and not lacking:
                complete = _row_is_there(connection, file.path) and complete
            elif found and lacking:
                raise SchemaMismatch(
                    f"{file.path}: table {table.name} lacks {', '.join(lacking)}; it belongs to another version of "
                    "yeondong: install that version, or name another file for the broker"
                )
        return complete


def _row_is_there(connection: sqlite3.Connection, path: str) -> bool:
    row = connection.execute(VERSION_HERE).fetchone()
    if row is not None and row[0] != VERSION:
        raise SchemaMismatch(
            f"{path}: the broker's tables are of version {row[0]}, this yeondong needs version {VERSION}; install the "
            f"{'newer' if row[0] > VERSION else 'older'} yeondong, or name another file for the broker"
        )
    return row is not None
