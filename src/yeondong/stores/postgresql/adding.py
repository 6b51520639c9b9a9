"""What callers pass as their transaction, and how messages are inserted into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yeondong.core.message import Message
from yeondong.errors import ForeignConnection, NotInTransaction
from yeondong.stores.postgresql.link import Place
from yeondong.stores.postgresql.rows import COLUMNS, columns, partition_of
from yeondong.stores.postgresql.transaction import PostgresqlTransaction

ADD = f"""
INSERT INTO yeondong_outbox ({COLUMNS}, partition) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""  # noqa: S608 - put together from constants; values are always bound


def add(tx: Any, place: Place, messages: Sequence[Message]) -> None:
    """Insert into the outbox, in the caller's own transaction. Raises ``TransactionError``."""
    if not isinstance(tx, PostgresqlTransaction):
        raise ForeignConnection(f"{type(tx).__module__}.{type(tx).__qualname__} cannot write to {place.server.address}")
    if tx.ended:
        raise NotInTransaction("the transaction is over; add within the handler that it was given to")
    for message in messages:
        tx.connection.execute(place.sql(ADD), (*columns(message), partition_of(message)))
