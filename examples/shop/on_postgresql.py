"""The demo in a schema of its own, in the PostgreSQL database that ``YEONDONG_STORE`` names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from examples.shop.place import Nowhere


class StoreOnPostgresql:
    """A schema with a name that nobody else has. All connections see it first, by their ``search_path``."""

    scheme = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url
        self._schema = f"yeondong_demo_{secrets.token_hex(4)}"
        self._inside = with_search_path(url, self._schema)
        self.environment: Mapping[str, str] = {"YEONDONG_STORE": self._inside, "YEONDONG_STORE_SCHEMA": ""}
        self.told = f"schema {self._schema} on PostgreSQL"

    def make(self) -> None:
        """Make the schema. Raises ``Nowhere``."""
        try:
            self._execute("create schema {}")
        except psycopg.Error as error:
            raise Nowhere(f"the demo cannot make its schema in the database of YEONDONG_STORE: {error}") from error

    def connect(self) -> PostgresqlDatabase:
        """Connect, beside the shop."""
        return PostgresqlDatabase(self._inside)

    def remove(self) -> None:
        """Drop the schema, with all that is in it."""
        self._execute("drop schema if exists {} cascade")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(self._schema)))


class PostgresqlDatabase:
    """``Database`` on a server."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, connect_timeout=5)

    def rows(self, statement: str) -> Sequence[tuple[Any, ...]]:
        return self._connection.execute(statement.encode()).fetchall()

    def change(self, statement: str) -> int:
        return self._connection.execute(statement.encode()).rowcount

    def close(self) -> None:
        self._connection.close()


def with_search_path(url: str, schema: str) -> str:
    """Return the URL of the same database, whose connections look into this schema.

    >>> with_search_path("postgresql://shop@db/orders?sslmode=require", "demo")
    'postgresql://shop@db/orders?sslmode=require&options=-c%20search_path%3Ddemo'
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -c search_path={schema}".strip()
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
