"""The tables of the log. All times of its own are integers, in microseconds since 1970 (UTC)."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text

VERSION = 1

metadata = MetaData()

log = Table(
    "yeondong_broker_log",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("stored_at", Integer, nullable=False),
    Column("bytes", Integer, nullable=False, doc="what the message counts towards the retention's bound"),
    Column("message_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text),
    Column("headers", Text, doc="JSON, NULL if there are none; bytes stand as {'base64': text}"),
    Column("origin", Text, nullable=False),
    Column("occurred_at", Text, doc="ISO 8601 with offset"),
    # Last, so that reading the other columns does not walk through the pages of a large payload.
    Column("data", LargeBinary),
    # The position is the row id, which ends every index entry: this one serves (channel, position).
    Index("yeondong_broker_log_channel", "channel"),
    # A position that was given once is never given again, even if all rows are deleted.
    sqlite_autoincrement=True,
)

groups = Table(
    "yeondong_broker_groups",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("position", Integer, nullable=False, doc="everything up to here is settled"),
    Column("epoch", Integer, nullable=False, doc="of the lease under which the group was last opened"),
    Column("dropped", Integer, nullable=False, doc="messages that a full log dropped before the group settled them"),
    Column("made_at", Integer, nullable=False),
)

receivers = Table(
    "yeondong_broker_receivers",
    metadata,
    Column("app", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("group_name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)

size = Table(
    "yeondong_broker_size",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, doc="1: there is one row"),
    Column("version", Integer, nullable=False, doc="of these tables"),
    Column("messages", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)


def broker_tables() -> MetaData:
    """Return the log's tables, for the ``target_metadata`` of Alembic where the log lives in an application's file."""
    return metadata
