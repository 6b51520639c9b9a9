"""Who receives what, and how far each group has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from yeondong.connections.sqlite import Connection
from yeondong.core.broker import GroupLag, Receiver, Since, refuse_second_receivers
from yeondong.core.message import Kind
from yeondong.errors import DeclarationError, UnknownName
from yeondong.messaging.brokers.sqlite.link import Link
from yeondong.messaging.brokers.sqlite.rows import from_microseconds, microseconds

RECEIVERS: Final = (
    "SELECT type, kind, channel, group_name, app FROM yeondong_broker_receivers ORDER BY app, channel, group_name, type"
)
REMOVE_APP: Final = "DELETE FROM yeondong_broker_receivers WHERE app = ?"
ADD_RECEIVER: Final = (
    "INSERT INTO yeondong_broker_receivers (type, kind, channel, group_name, app) VALUES (?, ?, ?, ?, ?)"
)
REMOVE_RECEIVERS: Final = "DELETE FROM yeondong_broker_receivers WHERE channel = ? AND group_name = ?"
NAMES: Final = "SELECT channel, name FROM yeondong_broker_groups ORDER BY channel, name"
ADD_GROUP: Final = (
    "INSERT INTO yeondong_broker_groups (channel, name, position, epoch, dropped, made_at) VALUES (?, ?, ?, 0, 0, ?)"
)
REMOVE_GROUP: Final = "DELETE FROM yeondong_broker_groups WHERE channel = ? AND name = ?"
# Not the largest position in the log: what it held may have been deleted.
LAST: Final = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'yeondong_broker_log'), 0)"
PROGRESS: Final = """
SELECT g.channel, g.name, g.dropped,
  (SELECT count(*) FROM yeondong_broker_log l WHERE l.channel = g.channel AND l.position > g.position),
  (SELECT stored_at FROM yeondong_broker_log l WHERE l.channel = g.channel AND l.position > g.position
   ORDER BY l.position LIMIT 1)
FROM yeondong_broker_groups g ORDER BY g.channel, g.name
"""
POSITION: Final = "SELECT position FROM yeondong_broker_groups WHERE channel = ? AND name = ?"
FIRST: Final = "SELECT min(position) FROM yeondong_broker_log WHERE channel = ? AND stored_at >= ?"
REPEATED: Final = "SELECT count(*) FROM yeondong_broker_log WHERE channel = ? AND position > ? AND position <= ?"
REWIND: Final = "UPDATE yeondong_broker_groups SET position = ? WHERE channel = ? AND name = ?"


def register(
    link: Link, app: str, receivers: Sequence[Receiver], since: Callable[[str, str], Since], now: datetime
) -> None:
    with link.transaction(f"broker: register app {app}") as connection:
        others = [_receiver(row) for row in connection.execute(RECEIVERS) if row[-1] != app]
        refuse_second_receivers(others, receivers)
        connection.execute(REMOVE_APP, (app,))
        connection.executemany(
            ADD_RECEIVER,
            [(one.type, one.kind.value, one.channel, one.group, app) for one in dict.fromkeys(receivers)],
        )
        known = set(connection.execute(NAMES))
        (last,) = connection.execute(LAST).fetchone()
        for channel, group in dict.fromkeys((one.channel, one.group) for one in receivers):
            if (channel, group) not in known:
                position = 0 if since(channel, group) == "start" else last
                connection.execute(ADD_GROUP, (channel, group, position, microseconds(now)))


def receivers(link: Link) -> list[Receiver]:
    return [_receiver(row) for row in link.rows(RECEIVERS)]


def _receiver(row: tuple[str, str, str, str, str]) -> Receiver:
    type_, kind, channel, group, app = row
    return Receiver(type_, Kind(kind), channel, group, app)


def progress(link: Link) -> list[GroupLag]:
    return [
        GroupLag(channel, group, waiting, from_microseconds(since), dropped)
        for channel, group, dropped, waiting, since in link.rows(PROGRESS)
    ]


def forget(link: Link, channel: str, group: str) -> bool:
    with link.transaction(f"broker: forget {channel}/{group}") as connection:
        connection.execute(REMOVE_RECEIVERS, (channel, group))
        return connection.execute(REMOVE_GROUP, (channel, group)).rowcount > 0


def rewind(link: Link, channel: str, group: str, start: str) -> int:
    stored_at = _stored_at(start)
    with link.transaction(f"broker: rewind {channel}/{group}") as connection:
        before, repeated = _back(connection, channel, group, stored_at)
        if repeated:
            connection.execute(REWIND, (before, channel, group))
        return repeated


def repeats(link: Link, channel: str, group: str, start: str) -> int:
    stored_at = _stored_at(start)
    with link.translating():
        return _back(link.connection, channel, group, stored_at)[1]


def _back(connection: Connection, channel: str, group: str, stored_at: int) -> tuple[int, int]:
    """Return the position before the first message of that time, and how many of the group's lie behind it."""
    row = connection.execute(POSITION, (channel, group)).fetchone()
    if row is None:
        names = [f"{known}/{name}" for known, name in connection.execute(NAMES)]
        raise UnknownName("group", f"{channel}/{group}", names)
    (first,) = connection.execute(FIRST, (channel, stored_at)).fetchone()
    (position,) = row
    if first is None or first > position:
        return position, 0
    repeated: int = connection.execute(REPEATED, (channel, first - 1, position)).fetchone()[0]
    return first - 1, repeated


def _stored_at(start: str) -> int:
    return 0 if start == "start" else _time(start)


def _time(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None:
        raise DeclarationError(
            f"cannot replay from {text!r}; say 'start', or a time with an offset as 2026-01-31T09:00:00+09:00"
        )
    return microseconds(at)
