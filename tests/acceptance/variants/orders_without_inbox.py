"""The orders on PostgreSQL without an inbox: every message is new, also one that was handled before."""

from collections.abc import Sequence

from tests.acceptance.orders import make
from yeondong.core.store import Transaction
from yeondong.stores.postgresql import session
from yeondong.stores.postgresql.inbox import PostgresqlInbox

__all__ = ["make"]


class NoInbox(PostgresqlInbox):
    def claim(self, tx: Transaction, group: str, ids: Sequence[str]) -> set[str]:
        return set(ids)


setattr(session, "PostgresqlInbox", NoInbox)  # noqa: B010 - taken out on purpose: the checker must notice
