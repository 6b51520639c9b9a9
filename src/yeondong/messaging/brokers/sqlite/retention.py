"""What the log keeps, and what goes when it is full."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from sqlite3 import Connection
from typing import Any, Final

from msgspec import Struct

from yeondong.messaging.brokers.sqlite.link import Link
from yeondong.messaging.brokers.sqlite.rows import from_microseconds, microseconds

# Rows deleted in one transaction, 5 microseconds each, in which nobody else can write. Who waits for room takes more.
BATCH: Final = 1_000
SENDING_BATCH: Final = 5_000

SIZE: Final = "SELECT bytes, messages FROM yeondong_broker_size WHERE id = 1"
GROW: Final = "UPDATE yeondong_broker_size SET bytes = bytes + ?, messages = messages + ? WHERE id = 1"
# A plain DISTINCT would look at every entry of the index; this jumps from one channel to the next.
CHANNELS: Final = """
WITH RECURSIVE found(channel) AS (
  SELECT min(channel) FROM yeondong_broker_log
  UNION ALL
  SELECT (SELECT min(channel) FROM yeondong_broker_log WHERE channel > found.channel) FROM found
  WHERE found.channel IS NOT NULL
) SELECT channel FROM found WHERE channel IS NOT NULL
"""
GROUPS: Final = "SELECT channel, name, position FROM yeondong_broker_groups"
OLDEST: Final = (
    "SELECT position, bytes, stored_at FROM yeondong_broker_log"
    " WHERE channel = ? AND position <= ? ORDER BY position LIMIT ?"
)
DELETE: Final = "DELETE FROM yeondong_broker_log WHERE position = ?"
DROP: Final = "UPDATE yeondong_broker_groups SET position = ?, dropped = dropped + ? WHERE channel = ? AND name = ?"
UNREAD: Final = """
SELECT g.channel, g.name,
  (SELECT count(*) FROM yeondong_broker_log l WHERE l.channel = g.channel AND l.position > g.position) AS unread,
  (SELECT stored_at FROM yeondong_broker_log l WHERE l.channel = g.channel AND l.position > g.position
   ORDER BY l.position LIMIT 1)
FROM yeondong_broker_groups g ORDER BY unread DESC
"""
END: Final = 1 << 62


class Retention(Struct, frozen=True):
    """How long and how much the log keeps.

    Older than ``age``, a message goes once every group of its channel has read it. At ``max_bytes`` (data, headers,
    keys, and 100 bytes for each message) what is read goes before its age, oldest first; if that is not enough, sending
    fails until a group has read more. Groups named in ``may_drop`` lose their unread messages instead, counted.

    >>> Retention(max_bytes=64 << 20, may_drop=frozenset({"statistics"})).age.days
    7
    """

    age: timedelta = timedelta(days=7)
    max_bytes: int = 1 << 30
    may_drop: frozenset[str] = frozenset()


class Room(Struct, frozen=True):
    """Whether there is room now; if not, and more deleting cannot help, ``full`` says why."""

    fits: bool
    gone: int = 0
    full: str | None = None


class _Row(Struct, frozen=True):
    position: int
    bytes: int
    stored_at: int
    channel: str


def grow(connection: Connection, byte_count: int, count: int) -> None:
    connection.execute(GROW, (byte_count, count))


def make_room(connection: Connection, byte_count: int, retention: Retention, most: int = SENDING_BATCH) -> Room:
    """Delete until ``byte_count`` more bytes fit: what is read, then what may be dropped, oldest first.

    Belongs into a transaction that writes, and deletes at most ``most`` messages in it. Into an empty log everything
    fits.
    """
    held, count = connection.execute(SIZE).fetchone()
    excess = held + byte_count - retention.max_bytes
    if excess <= 0 or not count:
        return Room(fits=True)
    gone, excess = _free(connection, excess, most)
    if retention.may_drop:
        dropped, excess = _free(connection, excess, most - gone, retention.may_drop)
        gone += dropped
    if excess <= 0 or gone == count:
        return Room(fits=True, gone=gone)
    return Room(fits=False, gone=gone, full=_why_full(connection, retention) if gone < most else None)


def sweep_age(link: Link, now: datetime, age: timedelta) -> int:
    """Delete what is older and read by every group, in transactions of a bounded size; return how many."""
    cutoff = microseconds(now - age)
    gone = 0
    for (channel,) in link.rows(CHANNELS):
        batch = BATCH
        while batch == BATCH:
            with link.transaction(f"sweep of the log's channel {channel!r}") as connection:
                end = _readable(connection, frozenset()).get(channel, END)
                oldest = _oldest(connection, channel, end, BATCH)
                rows = list(takewhile(lambda row: row.stored_at < cutoff, oldest))
                _delete(connection, rows)
            batch = len(rows)
            gone += batch
    return gone


def sweep_size(link: Link, retention: Retention) -> int:
    """Delete what is over the bound, after it was lowered; return how many."""
    gone, batch = 0, BATCH
    while batch == BATCH:
        with link.transaction("sweep of the log") as connection:
            batch = make_room(connection, 0, retention, BATCH).gone
        gone += batch
    return gone


def _readable(connection: Connection, without: frozenset[str]) -> dict[str, int]:
    """Return, for each channel that a group receives, up to where all groups but those ``without`` have read."""
    ends: dict[str, int] = {}
    for channel, name, position in connection.execute(GROUPS):
        ends[channel] = min(ends.get(channel, END), END if name in without else position)
    return ends


def _oldest(connection: Connection, channel: str, end: int, limit: int) -> list[_Row]:
    return [
        _Row(position, byte_count, stored_at, channel)
        for position, byte_count, stored_at in connection.execute(OLDEST, (channel, end, limit))
    ]


def _free(connection: Connection, excess: int, most: int, may_drop: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Delete the oldest rows that all groups but those ``may_drop`` have read; return how many, and the excess left."""
    ends = _readable(connection, may_drop)
    gone = 0
    while excess > 0 and gone < most:
        rows = []
        for row in _oldest_of_all(connection, ends, min(BATCH, most - gone)):
            if excess <= 0:
                break
            excess -= row.bytes
            rows.append(row)
        if not rows:
            break
        _drop_for_groups(connection, rows, may_drop)
        _delete(connection, rows)
        gone += len(rows)
    return gone, excess


def _oldest_of_all(connection: Connection, ends: dict[str, int], limit: int) -> list[_Row]:
    rows = [
        row
        for (channel,) in connection.execute(CHANNELS).fetchall()
        for row in _oldest(connection, channel, ends.get(channel, END), limit)
    ]
    return sorted(rows, key=lambda row: row.position)[:limit]


def _drop_for_groups(connection: Connection, rows: list[_Row], may_drop: frozenset[str]) -> None:
    for channel, name, position in connection.execute(GROUPS).fetchall() if may_drop else ():
        unread = [row.position for row in rows if row.channel == channel and row.position > position]
        if unread and name in may_drop:
            connection.execute(DROP, (unread[-1], len(unread), channel, name))


def _delete(connection: Connection, rows: list[_Row]) -> None:
    if rows:
        connection.executemany(DELETE, [(row.position,) for row in rows])
        grow(connection, -sum(row.bytes for row in rows), -len(rows))


def _why_full(connection: Connection, retention: Retention) -> str:
    unread: list[Any] = [row for row in connection.execute(UNREAD) if row[1] not in retention.may_drop]
    if not unread or not unread[0][2]:
        return f"full: {retention.max_bytes} bytes are not enough for what is sent at once; raise the log's bound"
    channel, group, count, oldest = unread[0]
    since = from_microseconds(oldest)
    return (
        f"full: group {group!r} of channel {channel!r} has {count} messages unread since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC and the log may hold {retention.max_bytes} bytes; start an app that receives "
        f"in this group, forget the group, let it drop (may_drop), or raise the bound"
    )
