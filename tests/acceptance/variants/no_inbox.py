"""The shop without an inbox: every message is new, also one that was handled before."""

from collections.abc import Sequence

from examples.shop.app import SoldOut, app, place_order
from yeondong.core.store import Transaction
from yeondong.stores.sqlite import session
from yeondong.stores.sqlite.inbox import SqliteInbox

__all__ = ["SoldOut", "app", "place_order"]


class NoInbox(SqliteInbox):
    def claim(self, tx: Transaction, group: str, ids: Sequence[str]) -> set[str]:
        return set(ids)


setattr(session, "SqliteInbox", NoInbox)  # noqa: B010 - taken out on purpose: the demo must notice
