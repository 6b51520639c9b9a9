"""Which PostgreSQL system a database is in: transaction ids mean something only there."""

from __future__ import annotations

from typing import Final

from yeondong.stores.postgresql.link import Link

# Given when a system is made. Standbys and base backups have the same one, and go on with its transactions; what was
# made of a dump, or by an upgrade, has another.
SYSTEM: Final = "SELECT system_identifier::text FROM pg_control_system()"


def system_of(link: Link) -> str:
    """Return the system's identifier."""
    identifier: str = link.read(SYSTEM)[0][0]
    return identifier
