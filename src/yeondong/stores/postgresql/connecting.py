"""Whether the server has room for the connections that a worker needs, and what else its settings mean for it."""

from __future__ import annotations

import logging
from typing import Final

from msgspec import Struct

from yeondong.connections.postgresql import Facts
from yeondong.connections.postgresql_guard import Connection
from yeondong.errors import StoreError

# None of these limits but the first binds a superuser.
ROOM: Final = """
SELECT
  current_setting('max_connections')::int
    - CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int
      + coalesce(current_setting('reserved_connections', true)::int, 0) END,
  CASE WHEN r.rolsuper OR r.rolconnlimit < 0 THEN NULL ELSE r.rolconnlimit END,
  CASE WHEN r.rolsuper OR d.datconnlimit < 0 THEN NULL ELSE d.datconnlimit END,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
FROM pg_roles AS r, pg_database AS d WHERE r.rolname = current_user AND d.datname = current_database()
"""

DURABILITY: Final = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"

_log = logging.getLogger("yeondong.postgresql")


class Room(Struct, frozen=True):
    """How many connections the server, the role and the database allow, and how many there are on the server."""

    server: int
    role: int | None
    database: int | None
    used: int


def room(connection: Connection) -> Room:
    """Ask for the limits."""
    row = connection.execute(ROOM.encode()).fetchone()
    if row is None:
        raise RuntimeError("the server knows neither its role nor its database")
    return Room(*row)


def cautions(connection: Connection, facts: Facts) -> list[str]:
    """Say what a person should know about this server."""
    found = []
    fsync, commit = connection.execute(DURABILITY.encode()).fetchone() or ("on", "on")
    if fsync == "off":
        found.append("the server runs with fsync = off: after a crash what was committed may be lost, or the database")
    if commit == "off":
        found.append("synchronous_commit is off: a crash of the server takes back what was just committed")
    if facts.pooled:
        found.append(
            "a pooler (PgBouncer) stands before the server: LISTEN does not work in its transaction mode, so commits "
            "are noticed by polling, and no statement is prepared"
        )
    return found


def checked_limit(connection: Connection, needed: int, facts: Facts, address: str) -> int | None:
    """Return how many connections can be had at most; ``StoreError`` if fewer than needed, a warning if not just now.

    None where nobody can tell.
    """
    if facts.pooled:
        return None  # the pooler has a limit of its own, makes others wait beyond it, and does not tell it
    there = room(connection)
    limits = {
        "max_connections of the server, without those reserved": there.server,
        f"the limit of role {facts.user}": there.role,
        "the limit of the database": there.database,
    }
    for what, limit in limits.items():
        if limit is not None and needed > limit:
            raise StoreError(
                f"this worker needs {needed} connections to {address}, and {what} allows {limit}; run fewer lanes, "
                "let lanes take turns (store_connections), put PgBouncer in between, or raise the limit"
            )
    free = there.server - there.used
    if needed > free:
        _log.warning("postgresql.few_connections_left free=%d needed=%d address=%r", free, needed, address)
    return min(limit for limit in limits.values() if limit is not None)
