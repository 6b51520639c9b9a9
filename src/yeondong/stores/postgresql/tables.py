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

# A row that is marked as sent finds room for its second version on its own page, so that no index is touched: half of
# each page, because all rows of a page are marked at once. What updates leave behind is removed soon: by default vacuum
# waits for a fifth of a table, which may have millions of rows that are done.
STORAGE: Final = {
    "fillfactor": "50",
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.05",
}

# As `outbox_log` reads a position.
PASSED: Final = """
(pg_visible_in_snapshot(o.txid, split_part(p.position, ' ', 2)::pg_snapshot)
  OR (o.id <= split_part(p.position, ' ', 4)::bigint
    AND pg_visible_in_snapshot(o.txid, split_part(p.position, ' ', 3)::pg_snapshot)))"""

STATUS_VIEW: Final = tables.STATUS_VIEW.replace(tables.PASSED, PASSED.strip())

# No predicate names the status: each mark would then write to every index. What these name, marking leaves alone.
WHERE: Final = {
    "yeondong_outbox_failed": "failed_at IS NOT NULL",
    "yeondong_outbox_blocking": "blocks",
    "yeondong_outbox_later": "due_at IS NOT NULL",
}


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
            for index in list(copied.indexes):
                if index.name in WHERE:
                    index.dialect_options["postgresql"]["where"] = text(WHERE[index.name])
                else:
                    copied.indexes.remove(index)
            Index("yeondong_outbox_txid", copied.c.txid, copied.c.id)
    return made


metadata: Final = metadata_in(None)
