"""The servers that all tests share. A test takes a database or topics of its own there, and harms nobody else's."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from scripts.servers.answers import kafka_answers, postgresql_answers
from scripts.servers.table import make

_ANSWERS: Mapping[str, Callable[[int, str], bool]] = {
    "postgresql": postgresql_answers,
    "pgbouncer": postgresql_answers,
    "kafka": kafka_answers,
}
_found: set[str] = set()


def address(name: str) -> str:
    """Where a shared server is, whether it answers or not."""
    return os.environ.get(f"YEONDONG_TEST_{name.upper()}") or make(name).address


def required(name: str) -> str:
    """Return the address of a shared server that answers. Without it the test is skipped, and fails in CI."""
    url = address(name)
    if url not in _found:
        parts = urlsplit(url)
        if not _ANSWERS[name](parts.port or 0, parts.hostname or ""):
            missing(f"{name} does not answer at {url}; start it: scripts/services up {name}")
        _found.add(url)
    return url


def missing(why: str) -> NoReturn:
    """Skip the test for what this machine lacks. In CI that is a failure: green means that all was tested."""
    if os.environ.get("CI"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def unique(name: str) -> str:
    """A name for a topic, a group, a role or a database that no other test and no earlier run has."""
    return f"{name}_{secrets.token_hex(5)}"


def on_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def create_database(url: str) -> str:
    """Make an empty database on that server, and return its address."""
    name = unique("test")
    _execute(url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return on_database(url, name)


def drop_database(url: str) -> None:
    """Drop it, also while others are still connected, PgBouncer for example."""
    name = urlsplit(url).path.removeprefix("/")
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    _execute(on_database(url, "postgres"), statement)


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
