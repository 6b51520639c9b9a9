"""The way of one session to its database: a connection is borrowed for each statement or transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import psycopg

from yeondong.connections.postgresql import Pool, Server
from yeondong.connections.postgresql_guard import Connection
from yeondong.core.fence import Fence
from yeondong.errors import FenceLost, StoreError
from yeondong.stores.postgresql.rows import stored
from yeondong.stores.postgresql.schema import qualified

Values: TypeAlias = Mapping[str, Any] | Sequence[Any]

LEASED: Final = "SELECT 1 FROM yeondong_leases WHERE name = %s AND owner = %s AND epoch = %s"
CLAIMED: Final = "SELECT 1 FROM yeondong_partitions WHERE flow = %s AND partition = %s AND owner = %s AND epoch = %s"

Run: TypeAlias = Callable[..., list[Any]]

NOW: Final = "clock_timestamp()"

# What one look at messages reads at most, save a single larger one.
READ_BYTES: Final = 8 << 20

LONGEST_SECONDS: Final = 10 * 365 * 86_400

# To be the first part of a WITH. It waits for nobody who renews the lease, and who takes it over passes by while this
# statement runs: what is written under an epoch is committed before the next epoch begins, or not at all.
FENCE: Final = """
fence AS MATERIALIZED (
  SELECT 1 FROM yeondong_leases
  WHERE name = %(fence_name)s AND owner = %(fence_owner)s AND epoch = %(fence_epoch)s FOR KEY SHARE
)
"""

HELD: Final = "EXISTS (SELECT 1 FROM fence)"

# The same for any number of leases and claims to partitions; none of them means that everybody may write.
FENCES: Final = """
fence AS MATERIALIZED (
  SELECT 1 FROM yeondong_leases WHERE (name, owner, epoch) IN (
    SELECT * FROM unnest(%(fence_names)s::text[], %(fence_owners)s::text[], %(fence_epochs)s::bigint[]))
  ORDER BY name FOR KEY SHARE
), claim AS MATERIALIZED (
  SELECT 1 FROM yeondong_partitions WHERE (flow, partition, owner, epoch) IN (
    SELECT * FROM unnest(%(claim_flows)s::text[], %(claim_partitions)s::text[], %(claim_owners)s::text[],
                         %(claim_epochs)s::bigint[]))
  ORDER BY flow, partition FOR KEY SHARE
), fences AS MATERIALIZED (
  SELECT (SELECT count(*) FROM fence) + (SELECT count(*) FROM claim) = %(fences)s AS held
)
"""

ALL_HELD: Final = "(SELECT held FROM fences)"


def later(seconds: str) -> str:
    """SQL for the time that many seconds from now."""
    return f"{NOW} + least({seconds}, {LONGEST_SECONDS}) * interval '1 second'"


def writable(text: str) -> str:
    """Return a text that PostgreSQL takes: half a surrogate pair and NUL, as errors may quote, become escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


class Place:
    """Where the tables are: the server, and the schema in it, which is asked for once if no setting names it."""

    def __init__(self, server: Server, schema: str | None) -> None:
        self.server = server
        self._given = schema
        self._schema: str | None = None
        self._qualified: dict[str, bytes] = {}

    @property
    def schema(self) -> str:
        """The schema's name. Raises ``StoreError`` if there is none."""
        if self._schema is None:
            found = self._given or self.server.facts().schema
            if found is None:
                raise StoreError(
                    f"no schema in the search_path of the role at {self.server.address} exists; create one, or name "
                    "the one to use: store_schema"
                )
            self._schema = found
        return self._schema

    def sql(self, statement: str) -> bytes:
        """Return a statement of ours with the schema before the names of our tables; it is to be run with values."""
        found = self._qualified.get(statement)
        if found is None:
            found = self._qualified[statement] = qualified(self.schema.replace("%", "%%"), statement).encode()
        return found


class Link:
    """Runs one session's statements on connections of a pool.

    Parameters are psycopg's: ``%(name)s`` or ``%s``. Names of our tables need no schema in front.
    """

    def __init__(self, place: Place, pool: Pool) -> None:
        self.place = place
        self.pool = pool
        self.address = place.server.address

    def read(self, statement: str, values: Values = ()) -> list[Any]:
        """Run one statement, also one that writes, in a transaction of its own, and return its rows."""
        with self.connection() as connection:
            return connection.execute(self.place.sql(statement), values, binary=True).fetchall()

    def look(self, statement: str, values: Values = ()) -> list[Any]:
        """As ``read``, planned anew each time, for these very values: a plan for any would read whole tables."""
        with self.connection() as connection:
            return connection.execute(self.place.sql(statement), values, binary=True, prepare=False).fetchall()

    def write(self, statement: str, values: Values = ()) -> int:
        """Run one statement, in a transaction of its own, and return how many rows it wrote."""
        with self.connection() as connection:
            return connection.execute(self.place.sql(statement), values).rowcount

    def fenced(self, statement: str, values: Mapping[str, Any], fence: Fence) -> Any:
        """Write in one statement under the fence: ``WITH {FENCE}, … SELECT count(*) FROM fence``; return its row.

        One statement, because a worker that stands still within a transaction would keep the lease locked.
        """
        rows = self.read(
            statement, {**values, "fence_name": fence.name, "fence_owner": fence.owner, "fence_epoch": fence.epoch}
        )
        if not rows[0][0]:
            raise FenceLost(fence.name, fence.epoch)
        return rows[0]

    def fenced_by(self, statement: str, values: Mapping[str, Any], fences: Sequence[Fence]) -> None:
        """Write in one statement under all of these: ``WITH {FENCES}, … SELECT held FROM fences``."""
        leases = [fence for fence in fences if fence.partition is None]
        claims = [fence for fence in fences if fence.partition is not None]
        rows = self.read(
            statement,
            {
                **values,
                "fence_names": [fence.name for fence in leases],
                "fence_owners": [fence.owner for fence in leases],
                "fence_epochs": [fence.epoch for fence in leases],
                "claim_flows": [fence.name for fence in claims],
                "claim_partitions": [stored(fence.partition or "") for fence in claims],
                "claim_owners": [fence.owner for fence in claims],
                "claim_epochs": [fence.epoch for fence in claims],
                "fences": len(fences),
            },
        )
        if not rows[0][0]:
            self._refuse(fences)

    def _refuse(self, fences: Sequence[Fence]) -> NoReturn:
        """Raise ``FenceLost`` for the first that is lost, as far as can be told afterwards."""
        for fence in fences:
            if fence.partition is None:
                found = self.read(LEASED, (fence.name, fence.owner, fence.epoch))
            else:
                found = self.read(CLAIMED, (fence.name, stored(fence.partition), fence.owner, fence.epoch))
            if not found:
                raise FenceLost(fence.name, fence.epoch, fence.partition)
        raise FenceLost(fences[0].name, fences[0].epoch, fences[0].partition)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Run]:
        """Run several statements in one transaction: what is lent runs one and returns its rows."""
        with self.connection() as connection, connection.transaction():

            def run(statement: str, values: Values = ()) -> list[Any]:
                cursor = connection.execute(self.place.sql(statement), values, binary=True)
                return cursor.fetchall() if cursor.description else []

            yield run

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection for statements of our own: what passes by itself becomes ``ConnectionLost``."""
        connection = self.pool.borrow()
        try:
            yield connection
        except psycopg.Error as error:
            translated = self.place.server.translated(error)
            if translated is error:
                raise
            raise translated from error
        finally:
            self.pool.give_back(connection)
