"""What can be seen from outside: the shop's tables, the broker's log, the partner's ledger, the customers' journals.

Read with sqlite3 and json alone. Whoever judges yeondong must not ask yeondong.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRESS = """
select
  (select count(*) from main.orders),
  (select count(distinct order_id) from main.search_index),
  (select coalesce(sum(orders), 0) from main.sales),
  (select coalesce(max(position), 0) from broker.yeondong_broker_log)
"""
GROUPS = "select count(*) from broker.yeondong_broker_groups"
WAITING = "select message_id from main.yeondong_outbox where status = 'WAITING'"
SENT = "select distinct message_id from broker.yeondong_broker_log"
# What comes a second time because its sender was killed is left out: nobody has handled that copy yet.
UNSETTLED = """
select json_extract(cast(l.data as text), '$.order_id')
from broker.yeondong_broker_log l join broker.yeondong_broker_groups g on g.channel = l.channel
where g.channel = 'orders' and g.name = 'search' and l.position > g.position
  and not exists (
    select * from broker.yeondong_broker_log e where e.message_id = l.message_id and e.position < l.position)
"""


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


class Trail:
    """A file of JSON lines that another process writes. A line that is not yet complete is not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.lines: list[Mapping[str, Any]] = []

    def follow(self) -> Sequence[Mapping[str, Any]]:
        """Read what is new; return all lines."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                self.lines += map(json.loads, whole.splitlines())
                self._read += len(whole) + 1
        return self.lines


class Evidence:
    """The folder of one demo. Reading changes nothing there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Trail(folder / "ledger.jsonl")
        self.story = Trail(folder / "story.jsonl")
        shop = (folder / "shop.db").as_uri()
        apart = folder / "broker.db"
        broker = apart.as_uri() if apart.exists() else shop
        self._database = sqlite3.connect(f"{shop}?mode=ro", uri=True, timeout=10, isolation_level=None)
        self._database.execute("attach ? as broker", (f"{broker}?mode=ro",))

    @staticmethod
    def is_complete(folder: Path) -> bool:
        """Whether everybody who makes tables has done so."""
        if not (folder / "shop.db").exists():
            return False
        evidence = Evidence(folder)
        try:
            return evidence.rows(GROUPS) == [(3,)] and evidence.failed() == 0
        except sqlite3.OperationalError:
            return False
        finally:
            evidence.close()

    def close(self) -> None:
        """Close the databases."""
        self._database.close()

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query. The store is ``main``; the log is ``broker``, also where they share one file."""
        return self._database.execute(statement, values).fetchall()

    def journals(self) -> Iterator[Mapping[str, Any]]:
        """Give all lines of all customers."""
        for path in sorted(self.folder.glob("customer-*.jsonl")):
            yield from Trail(path).follow()

    def progress(self) -> Progress:
        """Say how far the orders are."""
        [(placed, indexed, counted, sent)] = self.rows(PROGRESS)
        granted = sum(line["what"] == "granted" for line in self.ledger.follow())
        return Progress(placed, indexed, counted, granted, sent)

    def sent_but_not_marked(self) -> int:
        """Count what the relay has sent and not yet noted: killed now, it sends these once more."""
        waiting = {message_id for (message_id,) in self.rows(WAITING)}
        return sum(message_id in waiting for (message_id,) in self.rows(SENT)) if waiting else 0

    def handled_but_not_settled(self) -> int:
        """Count what the worker has indexed and not yet told the broker: killed now, it is given these once more."""
        unsettled = {order_id for (order_id,) in self.rows(UNSETTLED)}
        indexed = {order_id for (order_id,) in self.rows("select order_id from main.search_index")}
        return len(unsettled & indexed)

    def unsettled(self) -> int:
        """Count what is not noted as done, in the outbox and by any group."""
        [(count,)] = self.rows(
            "select count(*) from broker.yeondong_broker_log l join broker.yeondong_broker_groups g"
            " on g.channel = l.channel and l.position > g.position"
        )
        return int(count) + len(self.rows(WAITING))

    def failed(self) -> int:
        """Count what waits for a person."""
        [(count,)] = self.rows("select count(*) from main.yeondong_held where status = 'FAILED'")
        return int(count)

    def held(self) -> int:
        """Count what waits for a person, and what waits behind it."""
        [(count,)] = self.rows("select count(*) from main.yeondong_held")
        return int(count)
