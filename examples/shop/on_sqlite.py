"""The demo in SQLite files of its own: the store, and the broker's log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.shop.evidence import Sent

STORE_FILE, BROKER_FILE = "shop.db", "broker.db"
NEW = """
select position, message_id, channel, cast(data as text) from yeondong_broker_log where position > ? order by position
"""
GROUP = "select position from yeondong_broker_groups where channel = ? and name = ?"


class StoreOnSqlite:
    """The file of shop and store, in the demo's folder."""

    scheme = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._path = folder / STORE_FILE
        self.environment: Mapping[str, str] = {"YEONDONG_STORE": ""}  # the app's default
        self.told = f"the file {STORE_FILE}"

    def make(self) -> None:
        """Nothing: the app makes the file."""

    def connect(self) -> SqliteDatabase:
        """Connect, beside the shop."""
        return SqliteDatabase(self._path)

    def remove(self) -> None:
        """Nothing: the file goes with the folder."""


class BrokerOnSqlite:
    """The log of messages in the store's file, or ``apart`` in a file of its own."""

    scheme = "sqlite"
    session_seconds = 0.0

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self._path = folder / (BROKER_FILE if apart else STORE_FILE)
        self.environment: Mapping[str, str] = {"YEONDONG_BROKER": f"sqlite:///{BROKER_FILE}" if apart else ""}
        self.told = f"the file {self._path.name}"

    def make(self) -> None:
        """Nothing: the app makes the file."""

    def connect(self) -> SqliteLog:
        """Connect, beside the groups."""
        return SqliteLog(self._path)

    def remove(self) -> None:
        """Nothing: the file goes with the folder."""


class SqliteDatabase:
    """``Database`` on a file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None)

    def rows(self, statement: str) -> Sequence[tuple[Any, ...]]:
        return self._connection.execute(statement).fetchall()

    def change(self, statement: str) -> int:
        return self._connection.execute(statement).rowcount

    def close(self) -> None:
        self._connection.close()


class SqliteLog:
    """``Log`` on a file. There is one partition, and one writer: what is new stands behind what was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._sent: list[Sent] = []

    def sent(self) -> Sequence[Sent]:
        last = self._sent[-1].offset if self._sent else 0
        for position, message, channel, data in self._rows(NEW, last):
            content = json.loads(data)
            self._sent.append(Sent(message, channel, 0, position, content["order_id"], str(content["member_id"])))
        return self._sent

    def everything(self) -> Sequence[Sent]:
        return self.sent()

    def joined(self, channel: str, group: str) -> bool:
        return bool(self._rows(GROUP, channel, group))

    def settled(self, channel: str, group: str) -> Mapping[int, int]:
        rows = self._rows(GROUP, channel, group)
        return {0: rows[0][0] + 1} if rows else {}

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _rows(self, statement: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Read; before the app has made the file and its tables there is nothing."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=10)
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "unable to open" in str(error):
                return []
            raise
