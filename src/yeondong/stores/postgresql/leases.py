"""Who may run what, and how far it has come."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Collection, Sequence

from yeondong.core.clock import Clock
from yeondong.core.fence import Fence
from yeondong.core.store import Claim
from yeondong.stores.postgresql.ending import end_transactions
from yeondong.stores.postgresql.link import FENCE, HELD, NOW, Link, later
from yeondong.stores.postgresql.rows import loaded, stored

# A lease is free when it has expired. One that ends later than its own duration allows was taken before the clock was
# set back, and would otherwise last for as long as the clock jumped.
FREE = f"(expires_at <= {NOW} OR expires_at > {later('seconds')})"

# The epoch is at least the time in ms: it rises also when the table was made anew and the old epoch is forgotten.
EPOCH = f"(extract(epoch FROM {NOW}) * 1000)::bigint"

# FOR UPDATE passes by a lease under which somebody is writing (FENCE), and asks again at the next turn: the keeper must
# not wait, since it has other leases to renew.
TAKE = f"""
WITH free AS MATERIALIZED (
  SELECT name, owner FROM yeondong_leases
  WHERE name = %(name)s AND (owner = %(owner)s OR {FREE}) FOR UPDATE SKIP LOCKED
), taken AS (
  UPDATE yeondong_leases AS l
  SET owner = %(owner)s, epoch = greatest(l.epoch + 1, {EPOCH}), seconds = %(seconds)s,
      expires_at = {later("%(seconds)s")}
  FROM free WHERE l.name = free.name RETURNING l.epoch, free.owner
), made AS (
  INSERT INTO yeondong_leases (name, owner, epoch, seconds, expires_at)
  SELECT %(name)s, %(owner)s, {EPOCH}, %(seconds)s, {later("%(seconds)s")}
  WHERE NOT EXISTS (SELECT 1 FROM yeondong_leases WHERE name = %(name)s)
  ON CONFLICT DO NOTHING RETURNING epoch, '' AS owner
)
SELECT epoch, owner FROM taken UNION ALL SELECT epoch, owner FROM made
"""

RENEW = f"""
UPDATE yeondong_leases SET seconds = %(seconds)s, expires_at = {later("%(seconds)s")}
WHERE name = %(name)s AND owner = %(owner)s AND epoch = %(epoch)s
"""

# The row stays, so that the next epoch is higher.
RELEASE = f"""
UPDATE yeondong_leases SET owner = '', expires_at = {NOW}
WHERE name = %(name)s AND owner = %(owner)s AND epoch = %(epoch)s
"""

# Whoever had a partition may be writing for it in this moment (FENCES): that is waited for, it is one statement.
CLAIM = f"""
WITH before AS MATERIALIZED (
  SELECT partition, owner FROM yeondong_partitions
  WHERE flow = %(flow)s AND partition = ANY(%(partitions)s::text[]) ORDER BY partition FOR UPDATE
), claimed AS (
  INSERT INTO yeondong_partitions AS p (flow, partition, owner, epoch, claimed_at)
  SELECT %(flow)s, wanted.partition, %(owner)s, {EPOCH}, {NOW}
  FROM (SELECT count(*) FROM before) AS locked, unnest(%(partitions)s::text[]) AS wanted(partition)
  ORDER BY wanted.partition
  ON CONFLICT (flow, partition) DO UPDATE
  SET owner = excluded.owner, epoch = greatest(p.epoch + 1, excluded.epoch), claimed_at = excluded.claimed_at
  RETURNING partition, epoch
)
SELECT partition, epoch, coalesce(nullif(before.owner, %(owner)s), '')
FROM claimed LEFT JOIN before USING (partition) ORDER BY partition
"""

# The row stays, so that the next epoch is higher.
RELEASE_CLAIMS = """
UPDATE yeondong_partitions SET owner = '' WHERE (flow, partition, owner, epoch) IN (
  SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]))
"""

LOAD = "SELECT position FROM yeondong_positions WHERE name = %s"

SAVE = f"""
WITH {FENCE}, saved AS (
  INSERT INTO yeondong_positions (name, position, saved_at) SELECT %(name)s, %(position)s, {NOW} WHERE {HELD}
  ON CONFLICT (name) DO UPDATE SET position = excluded.position, saved_at = excluded.saved_at
)
SELECT count(*) FROM fence
"""


class PostgresqlLeases:
    """The leases table. Expiry goes by the server's clock."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    def take(self, name: str, owner: str, seconds: float) -> Fence | None:
        before = self._clock.elapsed()
        rows = self._link.read(TAKE, {"name": name, "owner": owner, "seconds": float(seconds)})
        if not rows:
            return None
        [(epoch, former)] = rows
        end_transactions(self._link, {former}, owner)
        return Fence(name, owner, epoch, before + seconds)

    def renew(self, fence: Fence, seconds: float) -> Fence | None:
        before = self._clock.elapsed()
        renewed = self._link.write(RENEW, _values(fence, seconds))
        return Fence(fence.name, fence.owner, fence.epoch, before + seconds) if renewed else None

    def release(self, fence: Fence) -> None:
        self._link.write(RELEASE, _values(fence, 0))


class PostgresqlClaims:
    """The partitions table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def claim(self, flow: str, partitions: Collection[str], owner: str) -> Sequence[Claim]:
        wanted = sorted({stored(partition) for partition in partitions})
        rows = self._link.read(CLAIM, {"flow": flow, "partitions": wanted, "owner": owner})
        end_transactions(self._link, {former for _, _, former in rows}, owner)
        return [
            Claim(Fence(flow, owner, epoch, partition=loaded(partition)), unclean=former != "")
            for partition, epoch, former in rows
        ]

    def release(self, fences: Sequence[Fence]) -> None:
        keys = [(fence.name, stored(fence.partition or ""), fence.owner, fence.epoch) for fence in fences]
        if keys:
            self._link.write(RELEASE_CLAIMS, [list(column) for column in zip(*keys, strict=True)])


class PostgresqlPositions:
    """The positions table."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def load(self, name: str) -> str | None:
        rows = self._link.read(LOAD, (name,))
        return rows[0][0] if rows else None

    def save(self, name: str, position: str, fence: Fence) -> None:
        self._link.fenced(SAVE, {"name": name, "position": position}, fence)


def _values(fence: Fence, seconds: float) -> dict[str, object]:
    return {"name": fence.name, "owner": fence.owner, "epoch": fence.epoch, "seconds": float(seconds)}
