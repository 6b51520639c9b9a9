"""One thread's way to the store."""

from __future__ import annotations

from yeondong.connections.postgresql import SYSTEM, lost
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
from yeondong.stores.postgresql.failures import PostgresqlFailures
from yeondong.stores.postgresql.flows import PostgresqlFlows, PostgresqlSuspects
from yeondong.stores.postgresql.held import PostgresqlHeld
from yeondong.stores.postgresql.inbox import PostgresqlInbox
from yeondong.stores.postgresql.leases import PostgresqlClaims, PostgresqlLeases, PostgresqlPositions
from yeondong.stores.postgresql.link import Link
from yeondong.stores.postgresql.outbox import PostgresqlOutbox
from yeondong.stores.postgresql.outbox_log import PostgresqlOutboxLog
from yeondong.stores.postgresql.transaction import PostgresqlTransaction


class PostgresqlSession:
    """The parts of the contract, on connections that are borrowed for each statement or transaction."""

    system = SYSTEM

    def __init__(self, link: Link, clock: Clock, *, apart: bool) -> None:
        self._link = link
        self._apart = apart
        self.address = link.address
        self.inbox: Inbox = PostgresqlInbox(link)
        self.held: Held = PostgresqlHeld(link)
        self.leases: Leases = PostgresqlLeases(link, clock)
        self.claims: Claims = PostgresqlClaims(link)
        self.positions: Positions = PostgresqlPositions(link)
        self.outbox: OutboxRows = PostgresqlOutbox(link)
        self.outbox_log: OutboxLog = PostgresqlOutboxLog(link)
        self.suspects: Suspects = PostgresqlSuspects(link)
        self.flows: Flows = PostgresqlFlows(link)
        self.failures: Failures = PostgresqlFailures(link)

    def begin(self, holder: str, *, together: bool = False) -> PostgresqlTransaction:
        return PostgresqlTransaction(self._link, together=together)

    def lost(self, error: BaseException, tx: OpenTransaction | None = None) -> str | None:
        reason = lost(error)
        if reason is None or not isinstance(tx, PostgresqlTransaction) or tx.cut_short():
            return reason
        # Our transaction is well: what is away is another server, or another connection of the handler's.
        return None

    def close(self) -> None:
        # The others' connections are the process's, for whoever works next.
        if self._apart:
            self._link.pool.close()
