"""The servers that works need: brought up when one is chosen, and left without a trace of the run."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import psycopg
from confluent_kafka.admin import AdminClient
from psycopg.sql import SQL, Identifier

SERVICES: Final = Path(__file__).resolve().parent.parent / "scripts" / "services"
UP_SECONDS: Final = 600
KAFKA_SECONDS: Final = 30


def bring_up(names: Collection[str]) -> None:
    """Start what does not run yet."""
    if names:
        subprocess.run([str(SERVICES), "up", *sorted(names)], check=True, capture_output=True, timeout=UP_SECONDS)


@contextlib.contextmanager
def room(needs: Collection[str]) -> Iterator[Mapping[str, str]]:
    """Give one run of a side a database and topics of its own: what it is told about them, and their removal.

    A side names its topics by ``topic`` and what it likes behind it.
    """
    name = f"yeondong_bench_{secrets.token_hex(4)}"
    told: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if "postgresql" in needs:
            told["database"] = stack.enter_context(_database(name))
        if "kafka" in needs:
            told["kafka"] = kafka_address()
            told["topic"] = stack.enter_context(_topics(name.replace("_", "-")))
        yield told


def postgresql_url(database: str = "postgres") -> str:
    """Return the URL of a database of the shared server."""
    return f"postgresql://postgres@127.0.0.1:{os.environ.get('YEONDONG_POSTGRESQL_PORT', '15432')}/{database}"


def kafka_address() -> str:
    """Return host and port of the shared broker."""
    return f"127.0.0.1:{os.environ.get('YEONDONG_KAFKA_PORT', '19092')}"


@contextlib.contextmanager
def _database(name: str) -> Iterator[str]:
    with psycopg.connect(postgresql_url(), autocommit=True) as server:
        server.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            yield postgresql_url(name)
        finally:
            # It ends with a checkpoint: the next side does not pay for what this one has written.
            server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@contextlib.contextmanager
def _topics(prefix: str) -> Iterator[str]:
    try:
        yield prefix
    finally:
        admin = AdminClient({"bootstrap.servers": kafka_address(), "log_level": 0})
        mine = [topic for topic in admin.list_topics(timeout=KAFKA_SECONDS).topics if topic.startswith(prefix)]
        if mine:
            for deleted in admin.delete_topics(mine).values():
                deleted.result(KAFKA_SECONDS)
