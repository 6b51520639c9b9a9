"""Who may run what, and how far it has come."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Sequence

from yeondong.core.clock import Clock
from yeondong.core.fence import Fence
from yeondong.core.store import Claim
from yeondong.stores.sqlite.link import NOW, Link, later

# A lease is free when it has expired. One that ends later than its own duration allows was taken before the clock was
# set back, and would otherwise last for as long as the clock jumped.
FREE = f"(expires_at <= {NOW} OR expires_at > {later('seconds')})"

TAKEN = f"SELECT 1 FROM yeondong_leases WHERE name = :name AND owner <> :owner AND NOT {FREE}"

# The epoch is at least the time in ms: it rises also when the file was made anew and the old epoch is forgotten.
TAKE = f"""
INSERT INTO yeondong_leases (name, owner, epoch, seconds, expires_at)
VALUES (:name, :owner, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), :seconds, {later(":seconds")})
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, epoch = max(epoch + 1, excluded.epoch),
    seconds = excluded.seconds, expires_at = excluded.expires_at
WHERE owner = excluded.owner OR {FREE}
RETURNING epoch
"""

RENEW = f"""
UPDATE yeondong_leases SET seconds = :seconds, expires_at = {later(":seconds")}
WHERE name = :name AND owner = :owner AND epoch = :epoch
"""

# The row stays, so that the next epoch is higher.
RELEASE = f"""
UPDATE yeondong_leases SET owner = '', expires_at = {NOW}
WHERE name = :name AND owner = :owner AND epoch = :epoch
"""

OWNERS = "SELECT partition, owner FROM yeondong_partitions WHERE flow = :flow"

CLAIM = f"""
INSERT INTO yeondong_partitions (flow, partition, owner, epoch, claimed_at)
VALUES (:flow, :partition, :owner, 1, {NOW})
ON CONFLICT (flow, partition) DO UPDATE
SET owner = excluded.owner, epoch = epoch + 1, claimed_at = excluded.claimed_at
RETURNING epoch
"""

# The row stays, so that the next epoch is higher.
RELEASE_CLAIM = """
UPDATE yeondong_partitions SET owner = ''
WHERE flow = :flow AND partition = :partition AND owner = :owner AND epoch = :epoch
"""

LOAD = "SELECT position FROM yeondong_positions WHERE name = :name"

SAVE = f"""
INSERT INTO yeondong_positions (name, position, saved_at) VALUES (:name, :position, {NOW})
ON CONFLICT (name) DO UPDATE SET position = excluded.position, saved_at = excluded.saved_at
"""


class SqliteLeases:
    """The leases table. Expiry goes by the machine's wall clock, which all users of a file share."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    def take(self, name: str, owner: str, seconds: float) -> Fence | None:
        # A standby asks every second: it must not write for that.
        if self._link.read(TAKEN, {"name": name, "owner": owner}):
            return None
        before = self._clock.elapsed()
        with self._link.writing(f"lease {name}") as connection:
            row = connection.execute(TAKE, {"name": name, "owner": owner, "seconds": seconds}).fetchone()
        return None if row is None else Fence(name, owner, row[0], before + seconds)

    def renew(self, fence: Fence, seconds: float) -> Fence | None:
        before = self._clock.elapsed()
        with self._link.writing(f"lease {fence.name}") as connection:
            renewed = connection.execute(RENEW, _values(fence, seconds)).rowcount
        return Fence(fence.name, fence.owner, fence.epoch, before + seconds) if renewed else None

    def release(self, fence: Fence) -> None:
        with self._link.writing(f"lease {fence.name}") as connection:
            connection.execute(RELEASE, _values(fence, 0))


class SqliteClaims:
    """The partitions table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def claim(self, flow: str, partitions: Collection[str], owner: str) -> Sequence[Claim]:
        claims: list[Claim] = []
        with self._link.writing(f"flow {flow} claiming partitions") as connection:
            owners = dict(connection.execute(OWNERS, {"flow": flow}).fetchall())
            for partition in sorted(partitions):
                values = {"flow": flow, "partition": partition, "owner": owner}
                (epoch,) = connection.execute(CLAIM, values).fetchone()
                unclean = owners.get(partition, "") not in ("", owner)
                claims.append(Claim(Fence(flow, owner, epoch, partition=partition), unclean))
        return claims

    def release(self, fences: Sequence[Fence]) -> None:
        with self._link.writing("releasing partitions") as connection:
            connection.executemany(
                RELEASE_CLAIM,
                [
                    {"flow": fence.name, "partition": fence.partition, "owner": fence.owner, "epoch": fence.epoch}
                    for fence in fences
                ],
            )


class SqlitePositions:
    """The positions table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def load(self, name: str) -> str | None:
        rows = self._link.read(LOAD, {"name": name})
        return rows[0][0] if rows else None

    def save(self, name: str, position: str, fence: Fence) -> None:
        with self._link.writing(f"position {name}", [fence]) as connection:
            connection.execute(SAVE, {"name": name, "position": position})


def _values(fence: Fence, seconds: float) -> dict[str, object]:
    return {"name": fence.name, "owner": fence.owner, "epoch": fence.epoch, "seconds": seconds}
