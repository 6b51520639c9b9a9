"""One thread's connection to the store."""

from __future__ import annotations

import sqlite3
from typing import Final

from yeondong.connections.sqlite import lost, primary_code
from yeondong.core.clock import Clock
from yeondong.core.store import (
    Claims,
    Failures,
    Flows,
    Held,
    Inbox,
    Leases,
    OpenTransaction,
    OutboxLog,
    OutboxRows,
    Positions,
    Suspects,
)
from yeondong.stores.sqlite.failures import SqliteFailures
from yeondong.stores.sqlite.flows import SqliteFlows, SqliteSuspects
from yeondong.stores.sqlite.held import SqliteHeld
from yeondong.stores.sqlite.inbox import SqliteInbox
from yeondong.stores.sqlite.leases import SqliteClaims, SqliteLeases, SqlitePositions
from yeondong.stores.sqlite.link import Link
from yeondong.stores.sqlite.outbox import SqliteOutbox
from yeondong.stores.sqlite.outbox_log import SqliteOutboxLog
from yeondong.stores.sqlite.transaction import SqliteTransaction

# Every file on a full or failing disk has these, whoever met them first.
DISK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class SqliteSession:
    """The parts of the contract, on one connection."""

    system = "SQLite"

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self.address = link.path
        self.inbox: Inbox = SqliteInbox(link)
        self.held: Held = SqliteHeld(link)
        self.leases: Leases = SqliteLeases(link, clock)
        self.claims: Claims = SqliteClaims(link)
        self.positions: Positions = SqlitePositions(link)
        self.outbox: OutboxRows = SqliteOutbox(link)
        self.outbox_log: OutboxLog = SqliteOutboxLog(link)
        self.suspects: Suspects = SqliteSuspects(link)
        self.flows: Flows = SqliteFlows(link)
        self.failures: Failures = SqliteFailures(link)

    def begin(self, holder: str, *, together: bool = False) -> SqliteTransaction:
        return SqliteTransaction(self._link, holder)

    def lost(self, error: BaseException, tx: OpenTransaction | None = None) -> str | None:
        reason = lost(error)
        if reason is None or not isinstance(tx, SqliteTransaction) or tx.cut_short():
            return reason
        # Our transaction is well and has the lock: what is locked, or cannot be opened, is another file or connection.
        return reason if primary_code(error) in DISK else None

    def close(self) -> None:
        self._link.close()
