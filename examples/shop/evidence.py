"""What can be seen from outside: the tables, the broker's log, what the partner and the customers wrote down.

Read with the drivers' own clients alone. Whoever judges yeondong must not ask yeondong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from examples.shop.ledger import Ledger, Line, Trail
from examples.shop.outside import PARTNER

RECORDER: Final = "recorder"
PROGRESS = """
select
  (select count(*) from orders),
  (select count(distinct order_id) from search_index),
  (select coalesce(sum(orders), 0) from sales)
"""
ORDERS = "select id, member_id, nth, product_id, amount from orders"
INDEXED = "select order_id, member_id from search_index order by position"
SALES = "select member_id, orders, amount from sales"
OUTBOX = "select payload, status from yeondong_outbox"
WAITING = "select message_id from yeondong_outbox where status = 'WAITING'"
CLAIMS = "select owner from yeondong_partitions"
FAILED = "select count(*) from yeondong_held where status = 'FAILED'"
HELD = "select count(*) from yeondong_held"
RETRIES = "select count(*) from yeondong_actions where action = 'retry'"
CHANNELS = ("orders", "points")
GROUPS = (("orders", "search"), ("orders", "statistics"), ("points", "shop"))


class Database(Protocol):
    """The database of shop and store, through another connection."""

    def rows(self, statement: str) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query."""

    def change(self, statement: str) -> int:
        """Do what a person with a SQL prompt would do; return how many rows changed."""

    def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message in the broker's log, and where it stands."""

    message: str
    channel: str
    partition: int
    offset: int
    order: str
    key: str


class Log(Protocol):
    """The broker's log, read beside the groups."""

    def sent(self) -> Sequence[Sent]:
        """Return everything that is in the log so far, in order within each partition."""

    def everything(self) -> Sequence[Sent]:
        """Wait until what is in the log by now has been read, and return it all."""

    def joined(self, channel: str, group: str) -> bool:
        """Whether the group is there."""

    def settled(self, channel: str, group: str) -> Mapping[int, int]:
        """Return, by partition, the offset below which the group has noted everything."""

    def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many orders have come how far; ``sent`` counts messages in the broker's log."""

    placed: int = 0
    indexed: int = 0
    counted: int = 0
    granted: int = 0
    sent: int = 0

    @property
    def done(self) -> int:
        """Orders that are through, those aside that wait for a person before the search index."""
        return min(self.counted, self.granted)


class Evidence:
    """What a running demo has left so far. Reading changes nothing there."""

    def __init__(self, database: Database, log: Log, ledger: Trail) -> None:
        self._database = database
        self._log = log
        self._ledger = ledger

    def close(self) -> None:
        """Disconnect."""
        self._database.close()
        self._log.close()

    def is_complete(self) -> bool:
        """Whether every group is there."""
        return all(self._log.joined(channel, group) for channel, group in GROUPS)

    def progress(self) -> Progress:
        """Say how far the orders are."""
        [(placed, indexed, counted)] = self._database.rows(PROGRESS)
        self._ledger.follow()
        return Progress(placed, indexed, counted, self._ledger.counts[PARTNER, "applied"], len(self._log.sent()))

    def progress_now(self) -> Progress:
        """Say how far the orders are, with everything that is in the log by now."""
        self._log.everything()
        return self.progress()

    def is_replaced(self, pid: int) -> bool:
        """Whether others have taken over, or were given, what a process had."""
        owners = [*self._database.rows("select owner from yeondong_leases"), *self._database.rows(CLAIMS)]
        return not any(f"-{pid}-" in owner for (owner,) in owners)

    def owner(self, flow: str) -> str:
        """Return who has the lease of a flow, and nothing where nobody has."""
        rows = self._database.rows(f"select owner from yeondong_leases where name = '{flow}'")  # noqa: S608 - ours
        return str(rows[0][0]) if rows else ""

    def sent_but_not_marked(self) -> int:
        """Count what a relay has sent and not yet noted: killed now, it sends these once more."""
        waiting = {message for (message,) in self._database.rows(WAITING)}
        return len(waiting & {sent.message for sent in self._log.sent()}) if waiting else 0

    def handled_but_not_settled(self, pid: int) -> int:
        """Count what a worker has indexed and not yet told the broker: killed now, it is given these once more."""
        beyond = self._unsettled("orders", "search")
        # What comes a second time because its sender was killed is left out: nobody has handled that copy yet.
        first: dict[str, Sent] = {}
        for sent in self._log.sent():
            first.setdefault(sent.message, sent)
        mine = self._partitions_of(pid, "orders/search")
        unsettled = {
            sent.order for sent in beyond if first[sent.message] is sent and (mine is None or sent.partition in mine)
        }
        if not unsettled:
            return 0
        return len(unsettled & {str(order) for order, _ in self._database.rows(INDEXED)})

    def is_settled(self, sent: int) -> bool:
        """Whether the groups of the database have noted the first ``sent`` messages of the log as done."""
        before = {(one.channel, one.partition): one.offset for one in self._log.sent()[:sent]}
        return all(
            self._log.settled("orders", group).get(partition, 0) > offset
            for (channel, partition), offset in before.items()
            for group in ("search", "statistics")
            if channel == "orders"
        )

    def unsettled(self) -> int:
        """Count what is not noted as done, in the outbox and by any group."""
        waiting = len(self._database.rows(WAITING))
        return waiting + sum(len(self._unsettled(channel, group)) for channel, group in GROUPS)

    def failed(self) -> int:
        """Count what waits for a person."""
        [(count,)] = self._database.rows(FAILED)
        return int(count)

    def held(self) -> int:
        """Count what waits for a person, and what waits behind it."""
        [(count,)] = self._database.rows(HELD)
        return int(count)

    def mend(self, product: str, title: str) -> None:
        """Give a product the title that it should have had."""
        self._database.change(f"update products set title = '{title}' where id = '{product}'")  # noqa: S608 - ours

    def record(self, path: Path) -> None:
        """Write into the ledger what stands in the tables and in the log."""
        ledger = Ledger(path, by=RECORDER)
        ledger.write_all(self._all())
        ledger.close()

    def _all(self) -> Iterator[Line]:
        for order, member, nth, product, amount in self._database.rows(ORDERS):
            yield {"what": "committed", "order": order, "key": str(member), "nth": nth, "product": product,
                   "amount": amount}  # fmt: skip
        for one in self._log.everything():
            yield {"what": "sent", "where": one.channel, "message": one.message, "order": one.order, "key": one.key,
                   "partition": one.partition, "offset": one.offset}  # fmt: skip
        for order, member in self._database.rows(INDEXED):
            yield {"what": "applied", "where": "search", "order": order, "key": str(member)}
        for member, count, amount in self._database.rows(SALES):
            yield {"what": "sum", "key": str(member), "orders": count, "amount": amount}
        for payload, status in self._database.rows(OUTBOX):
            yield {"what": "outbox", "order": json.loads(payload)["order_id"], "status": status}
        yield {"what": "counted", "of": "messages still held at the end", "found": self.held(), "right": 0}
        [(retries,)] = self._database.rows(RETRIES)
        yield {"what": "counted", "of": "retries on record, with who did it", "found": retries, "right": 1}

    def _partitions_of(self, pid: int, flow: str) -> set[int] | None:
        """Return the partitions that a process has claimed; None where whoever has the flow has them all."""
        claims = self._database.rows(f"select partition, owner from yeondong_partitions where flow = '{flow}'")  # noqa: S608 - ours
        mine = {int(partition.rpartition("/")[2]) for partition, owner in claims if f"-{pid}-" in owner}
        return mine if claims else None

    def _unsettled(self, channel: str, group: str) -> list[Sent]:
        settled = self._log.settled(channel, group)
        return [
            sent
            for sent in self._log.sent()
            if sent.channel == channel and sent.offset >= settled.get(sent.partition, 0)
        ]
