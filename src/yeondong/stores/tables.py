"""All tables of the store, as SQLAlchemy metadata: they appear in users' migrations beside their own.

A user's Alembic environment lists them with ``target_metadata = [Own.metadata, yeondong.stores.tables.metadata]``.
Times are UTC.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from yeondong.core.store import RELAY

SCHEMA_VERSION = 1

# The largest that MariaDB can index in every key below.
NAME = 255

metadata = MetaData()


def _serial() -> Column[int]:
    # SQLite gives rising ids by itself only to a column that is declared exactly INTEGER PRIMARY KEY.
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _time(name: str, *, nullable: bool = True) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


outbox = Table(
    "yeondong_outbox",
    metadata,
    _serial(),
    Column("message_id", String(NAME), nullable=False),
    Column("message_type", String(NAME), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("channel", String(NAME), nullable=False),
    Column("key", String(NAME)),
    Column("partition", Integer, nullable=False),
    Column("headers", Text),
    Column("payload", LargeBinary),
    Column("origin", String(NAME), nullable=False),
    _time("occurred_at"),
    Column("status", String(16), nullable=False, server_default="WAITING"),
    Column("fail_count", Integer, nullable=False, server_default=text("0")),
    _time("due_at"),
    Column("blocks", Boolean, nullable=False, server_default=false()),
    _time("processed_at"),
    _time("failed_at"),
    Column("last_error", Text),
    UniqueConstraint("message_id", name="yeondong_outbox_message"),
    # An id is never given twice, also not after the row with the highest one was deleted: the position relies on it.
    sqlite_autoincrement=True,
)


def _outbox_index(name: str, where: str, *columns: str) -> None:
    # Partial, so that the many rows that are done cost neither space nor time.
    condition = text(where)
    Index(name, *(outbox.c[column] for column in columns), sqlite_where=condition, postgresql_where=condition)


_outbox_index("yeondong_outbox_waiting", "status = 'WAITING'", "id")
_outbox_index("yeondong_outbox_failed", "status = 'FAILED'", "id")
_outbox_index("yeondong_outbox_blocking", "blocks", "channel", "key", "id")
_outbox_index("yeondong_outbox_later", "status = 'WAITING' AND due_at IS NOT NULL", "channel", "key", "id")

inbox = Table(
    "yeondong_inbox",
    metadata,
    Column("receiver", String(NAME), primary_key=True),
    Column("message_id", String(NAME), primary_key=True),
    _time("handled_at", nullable=False),
    sqlite_with_rowid=False,
)
Index("yeondong_inbox_handled_at", inbox.c.handled_at)

held = Table(
    "yeondong_held",
    metadata,
    _serial(),
    Column("flow", String(NAME), nullable=False),
    Column("message_id", String(NAME), nullable=False),
    Column("message_type", String(NAME), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("channel", String(NAME), nullable=False),
    Column("key", String(NAME)),
    Column("order_key", String(2 * NAME), nullable=False),
    Column("headers", Text),
    Column("payload", LargeBinary),
    Column("origin", String(NAME), nullable=False),
    _time("occurred_at"),
    Column("partition", String(NAME), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    # Whether later messages of its key wait behind it: always while it waits itself, by policy once it has failed.
    Column("blocks", Boolean, nullable=False),
    _time("due_at"),
    _time("held_at", nullable=False),
    _time("failed_at"),
    Column("last_error", Text),
    UniqueConstraint("flow", "message_id", name="yeondong_held_message"),
    # An id is what a person types, so it never names another entry later.
    sqlite_autoincrement=True,
)
Index("yeondong_held_order", held.c.flow, held.c.order_key, held.c.id, held.c.blocks, held.c.status, held.c.partition)
Index("yeondong_held_message_id", held.c.message_id)

leases = Table(
    "yeondong_leases",
    metadata,
    Column("name", String(NAME), primary_key=True),
    Column("owner", String(NAME), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    _time("expires_at", nullable=False),
)

partitions = Table(
    "yeondong_partitions",
    metadata,
    Column("flow", String(NAME), primary_key=True),
    Column("partition", String(NAME), primary_key=True),
    Column("owner", String(NAME), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    _time("claimed_at", nullable=False),
)

positions = Table(
    "yeondong_positions",
    metadata,
    Column("name", String(NAME), primary_key=True),
    Column("position", Text, nullable=False),
    _time("saved_at", nullable=False),
)

suspects = Table(
    "yeondong_suspects",
    metadata,
    Column("flow", String(NAME), primary_key=True),
    Column("message_id", String(NAME), primary_key=True),
    Column("partition", String(NAME), nullable=False),
    Column("attempt", Integer, nullable=False),
)

flows = Table(
    "yeondong_flows",
    metadata,
    Column("flow", String(NAME), primary_key=True),
    Column("paused", Text),
    _time("paused_at"),
    Column("stopped", Text),
    _time("stopped_at"),
    Column("replay", String(64)),
    Column("replay_begun", Boolean, nullable=False, server_default=false()),
    Column("generation", Integer, nullable=False, server_default=text("0")),
)

openings = Table(
    "yeondong_openings",
    metadata,
    Column("flow", String(NAME), primary_key=True),
    Column("owner", String(NAME), nullable=False),
    _time("opened_at", nullable=False),
    _time("closed_at"),
)

workers = Table(
    "yeondong_workers",
    metadata,
    Column("worker", String(NAME), primary_key=True),
    Column("report", Text, nullable=False),
    _time("seen_at", nullable=False),
)

actions = Table(
    "yeondong_actions",
    metadata,
    _serial(),
    Column("failure_id", String(32), nullable=False),
    _time("at", nullable=False),
    Column("by", String(NAME), nullable=False),
    Column("action", String(16), nullable=False),
    Column("flow", String(NAME), nullable=False),
    Column("message_id", String(NAME), nullable=False),
    # The data as it was before an edit or a discard; ``entry`` is everything else that was deleted, as JSON.
    Column("original", LargeBinary),
    Column("entry", Text),
    sqlite_autoincrement=True,
)
Index("yeondong_actions_failure", actions.c.failure_id)

schema = Table(
    "yeondong_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

# Whether a position has passed a row.
PASSED = "o.id <= CAST(p.position AS INTEGER)"

# What became of each outbox row, however the relay marks. Under marking by position the rows themselves never change:
# - attempts of a sent row are not known (1 is said), nor is when exactly it was sent: `sent_before` is when a position
#   beyond it was last saved;
# - a failure that a person discarded counts as sent.
STATUS_VIEW = f"""
CREATE VIEW yeondong_outbox_status AS
SELECT o.id, o.message_id, o.message_type, o.channel, o."key", o.occurred_at,
  CASE
    WHEN o.status <> 'WAITING' THEN o.status
    WHEN h.status IS NOT NULL THEN h.status
    WHEN {PASSED} THEN 'DONE'
    ELSE 'WAITING'
  END AS status,
  CASE
    WHEN o.status = 'DONE' THEN o.fail_count + 1
    WHEN h.status = 'FAILED' THEN h.attempt
    WHEN h.status = 'WAITING' THEN h.attempt - 1
    WHEN o.status = 'WAITING' AND {PASSED} THEN 1
    ELSE o.fail_count
  END AS attempts,
  o.processed_at,
  CASE
    WHEN o.status = 'WAITING' AND h.status IS NULL AND {PASSED} THEN p.saved_at
    ELSE o.processed_at
  END AS sent_before,
  COALESCE(h.failed_at, o.failed_at) AS failed_at,
  COALESCE(h.last_error, o.last_error) AS last_error
FROM yeondong_outbox AS o
LEFT JOIN yeondong_positions AS p ON p.name = '{RELAY}'
LEFT JOIN yeondong_held AS h ON h.flow = '{RELAY}' AND h.message_id = o.message_id
"""
