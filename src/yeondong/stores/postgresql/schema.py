"""The tables in a database: what is missing, what differs, what may not be used, and how they are made."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Index, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from yeondong.connections.postgresql_guard import Connection
from yeondong.errors import ReadOnlyStore, SchemaMismatch, SchemaMissing
from yeondong.stores.postgresql.tables import OUTBOX, STATUS_VIEW, STORAGE, VIEW, metadata, metadata_in
from yeondong.stores.tables import SCHEMA_VERSION

THERE = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relname LIKE 'yeondong%%'"

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(%s) AND c.relname LIKE 'yeondong%%' AND c.relkind IN ('r', 'p')
"""

OPTIONS = "SELECT reloptions FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relname = %s"

LACKING = """
SELECT t.name, p.name
FROM unnest(%s::text[]) AS t(name), unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(name)
WHERE NOT has_table_privilege(format('%%I.%%I', %s::text, t.name), p.name) ORDER BY t.name, p.name DESC
"""

VERSION = "SELECT max(version) FROM yeondong_schema"
SET_VERSION = f"INSERT INTO yeondong_schema (version) VALUES ({SCHEMA_VERSION:d})"

# With psycopg's own style of parameters it would double the percent signs of names.
_DIALECT: Final = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
_NAMES: Final = "|".join((*(table.name for table in metadata.sorted_tables), VIEW))
_NAMED: Final = re.compile(rf"(?<![\w.\"'])({_NAMES})(?![\w\"'])")


def qualified(schema: str, statement: str) -> str:
    """Put the schema before our tables' names in a statement.

    So it means the same tables whatever the search path is of the connection that runs it.
    """
    return _NAMED.sub(lambda match: f"{quoted(schema)}.{match[0]}", statement)


def quoted(name: str) -> str:
    """Return an identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'


def creating(schema: str | None) -> Mapping[str, str]:
    """Return, by name and in order, the statements that create all tables, indexes and the view."""
    made = {}
    for table in metadata_in(schema).sorted_tables:
        made[table.name] = _sql(CreateTable(table))
        for index in sorted(table.indexes, key=_name):
            made[_name(index)] = _sql(CreateIndex(index))
    made[VIEW] = _in(schema, STATUS_VIEW.strip())
    return made


def storing(schema: str | None) -> str:
    """Return the statement that lets vacuum keep up with the outbox."""
    settings = ", ".join(f"{name} = {value}" for name, value in STORAGE.items())
    return _in(schema, f"ALTER TABLE {OUTBOX} SET ({settings})")


def statements(schema: str | None) -> list[str]:
    """Return all that makes a new store, in order."""
    first = [] if schema is None else [f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"]
    return [*first, *creating(schema).values(), storing(schema), _in(schema, SET_VERSION)]


def names(connection: Connection, schema: str) -> set[str]:
    """Return what there is of ours in the schema."""
    return {row[0] for row in connection.execute(THERE, (quoted(schema),))}


def missing_tables(connection: Connection, schema: str) -> list[str]:
    """Return the tables that are not there."""
    there = names(connection, schema)
    return [table.name for table in metadata.sorted_tables if table.name not in there]


def create(connection: Connection, schema: str) -> list[str]:
    """Create what is missing, in one transaction, and return the names."""
    made = []
    with connection.transaction():
        # One at a time: another process may be creating the same tables.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('yeondong'), hashtext(%s))", (schema,))
        if connection.execute("SELECT to_regnamespace(%s) IS NULL", (quoted(schema),)).fetchone() == (True,):
            connection.execute(f"CREATE SCHEMA {quoted(schema)}".encode())
            made.append(schema)
        there = names(connection, schema)
        wanted = {name: statement for name, statement in creating(schema).items() if name not in there}
        made += wanted
        if wanted:
            connection.execute(";\n".join(wanted.values()).encode())
        if OUTBOX in made or _unset_storage(connection, schema):
            connection.execute(storing(schema).encode())
        if _version(connection, schema) is None:
            connection.execute(_in(schema, SET_VERSION).encode())
    return made


def refuse_unusable(connection: Connection, schema: str, address: str) -> None:
    """Raise ``ReadOnlyStore``, or ``SchemaMissing`` or ``SchemaMismatch`` if the tables are not of this version."""
    if connection.execute("SELECT current_setting('transaction_read_only')").fetchone() == ("on",):
        raise ReadOnlyStore(
            f"{address} can only be read: it is a standby, or default_transaction_read_only is on; name the primary "
            "(target_session_attrs=read-write finds it among several hosts)"
        )
    missing = missing_tables(connection, schema)
    if missing:
        raise SchemaMissing(
            f"{address} has no table {missing[0]} in schema {schema}; run `yeondong db create`, or your migration, to "
            "make it (or name the schema: store_schema)"
        )
    version = _version(connection, schema)
    if version is None:
        # Made by a migration tool, which knows the tables and not the version.
        differences = check(connection, schema)
        if differences:
            raise SchemaMismatch(
                f"the tables in {address} are not those of this yeondong: {differences[0]}"
                f"{f' (and {len(differences) - 1} more)' if len(differences) > 1 else ''}; "
                "migrate them (`yeondong db check` lists all differences)"
            )
    elif version < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the tables in {address} are of the older schema {version}, this yeondong needs {SCHEMA_VERSION}; "
            "migrate them (`yeondong db check` lists the differences), or go on with the older yeondong"
        )
    elif version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the tables in {address} are of the newer schema {version}, this yeondong knows {SCHEMA_VERSION}; "
            "install the yeondong that made them, or a newer one"
        )


def check(connection: Connection, schema: str) -> list[str]:
    """Compare tables, columns, indexes and privileges with what this version needs: a sentence for each difference."""
    there = names(connection, schema)
    columns = {(row[0], row[1]): row[2] for row in connection.execute(COLUMNS, (quoted(schema),))}
    found = []
    for table in metadata.sorted_tables:
        if table.name not in there:
            found.append(f"table {schema}.{table.name} is missing")
            continue
        found += _column_differences(table, columns)
        found += [f"index {_name(i)} on {table.name} is missing" for i in table.indexes if _name(i) not in there]
    present = [table.name for table in metadata.sorted_tables if table.name in there]
    lacking: dict[str, list[str]] = {}
    for table_name, privilege in connection.execute(LACKING, (present, schema)):
        lacking.setdefault(table_name, []).append(privilege)
    found += [f"the role may not {', '.join(lacks)} on table {name}" for name, lacks in lacking.items()]
    return found


def remarks(connection: Connection, schema: str) -> list[str]:
    """Say what is missing that hinders no flow."""
    there = names(connection, schema)
    if OUTBOX not in there:
        return []
    found = []
    if VIEW not in there:
        found.append(f"view {VIEW}, for people who look at the outbox, is missing; `yeondong db create` adds it")
    if _unset_storage(connection, schema):
        found.append(
            f"table {OUTBOX} has none of the settings by which vacuum keeps up with it; `yeondong db create` sets them"
        )
    return found


def _unset_storage(connection: Connection, schema: str) -> bool:
    row = connection.execute(OPTIONS, (quoted(schema), OUTBOX)).fetchone()
    return row is not None and not row[0]


def _version(connection: Connection, schema: str) -> int | None:
    row = connection.execute(_in(schema, VERSION).encode()).fetchone()
    return None if row is None else row[0]


def _column_differences(table: Table, there: Mapping[tuple[str, str], str]) -> list[str]:
    found = []
    for column in table.columns:
        type = column.type.compile(_DIALECT).lower().replace("float", "double precision")  # noqa: A001
        actual = there.get((table.name, column.name))
        if actual is None:
            found.append(f"column {table.name}.{column.name} is missing")
        # A user's migration may bound a text: what does not fit into it is refused by the database, not cut.
        elif actual != type and not (type == "text" and actual.startswith("character varying")):
            found.append(f"column {table.name}.{column.name} is {actual}, not {type}")
    return found


def _in(schema: str | None, statement: str) -> str:
    return statement if schema is None else qualified(schema, statement)


def _name(index: Index) -> str:
    return str(index.name)


def _sql(element: Any) -> str:
    return str(element.compile(dialect=_DIALECT)).strip()
