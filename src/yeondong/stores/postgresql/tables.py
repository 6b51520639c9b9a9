"""The tables as PostgreSQL has them, as SQLAlchemy metadata: they appear in users' migrations beside their own.

A user's Alembic environment lists them with
``target_metadata = [Own.metadata, yeondong.stores.postgresql.tables.metadata]``, or ``metadata_in("integration")`` for
tables in a schema of their own.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Identity, Index, MetaData, String, Text, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from yeondong.stores import tables

OUTBOX: Final = tables.outbox.name
VIEW: Final = "yeondong_outbox_status"

# What an update leaves behind is removed soon: by default vacuum waits for a fifth of a table, which may have millions
# of rows that are done.
STORAGE: Final = {
    "fillfactor": "80",
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.05",
}

STATUS_VIEW: Final = tables.STATUS_VIEW.replace("CAST(p.position AS INTEGER)", "CAST(p.position AS BIGINT)")


class TransactionId(UserDefinedType[int]):
    """``xid8``: a transaction's id, which never starts anew within one database system."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


# SQLAlchemy does not know the type: Alembic could not compare a table that has it.
ischema_names.setdefault("xid8", TransactionId)


def metadata_in(schema: str | None) -> MetaData:
    """Return the tables in a schema, or in whichever is the current one."""
    made = MetaData(schema=schema)
    for table in tables.metadata.sorted_tables:
        copied = table.to_metadata(made, schema=schema)  # type: ignore[arg-type]  # None is taken
        for column in copied.columns:
            # What others named may be longer than the bound that other databases need.
            if isinstance(column.type, String) and not isinstance(column.type, Text):
                column.type = Text()
        if "id" in copied.columns:
            # Unlike a serial's, an identity's sequence needs no privilege of its own.
            copied.append_column(Column("id", BigInteger(), Identity(), primary_key=True), replace_existing=True)
        if copied.name == OUTBOX:
            copied.append_column(
                Column("txid", TransactionId(), nullable=False, server_default=text("pg_current_xact_id()"))
            )
            Index("yeondong_outbox_txid", copied.c.txid, copied.c.id)
    return made


metadata: Final = metadata_in(None)
