"""Compares what was placed with what became of it, and judges it as the shop's checker does, promise by promise.

It reads tables with the database's own client and knows nothing else of yeondong.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from examples.shop.ledger import Line, Trail
from examples.shop.promises import Book, Finding, Receivers, judge, out_of_order
from tests.acceptance.orders import LEDGER

Order: TypeAlias = tuple[str, int]
Query: TypeAlias = Callable[[str], Sequence[tuple[Any, ...]]]

RECEIVERS = ("search", "statistics", "points")
PLACED = "SELECT customer, number FROM placed"
EFFECTS = "SELECT receiver, message_id, customer, number FROM effects ORDER BY id"
LEFT = {
    "messages still held": "SELECT count(*) FROM yeondong_held",
    "messages not sent": "SELECT count(*) FROM yeondong_outbox_status WHERE status <> 'DONE'",
}


def findings(
    database: Path,
    receivers: Sequence[str] = RECEIVERS,
    *,
    letters: Path | None = None,
    parked: Collection[Order] = (),
) -> list[str]:
    """Return everything that is wrong, sentence by sentence; nothing if all promises are kept.

    ``parked`` were set aside by a person's leave, so that they come after later ones of their key.
    """
    with contextlib.closing(sqlite3.connect(database)) as connection:
        lines = [
            *Trail(database.parent / LEDGER).follow(),
            *state(lambda statement: connection.execute(statement).fetchall(), letters),
        ]
    return broken(lines, receivers, letters=letters, parked=parked)


def broken(
    lines: Iterable[Line],
    receivers: Sequence[str] = RECEIVERS,
    *,
    letters: Path | None = None,
    parked: Collection[Order] = (),
) -> list[str]:
    """Judge a ledger, and return what is wrong."""
    return [str(finding) for finding in judged(lines, receivers, letters=letters, parked=parked) if not finding.kept]


def judged(
    lines: Iterable[Line],
    receivers: Sequence[str] = RECEIVERS,
    *,
    letters: Path | None = None,
    parked: Collection[Order] = (),
) -> list[Finding]:
    """Judge a ledger, promise by promise."""
    aside = [f"{customer}/{number}" for customer, number in parked]
    expected = Receivers(
        once=receivers,
        repeat=() if letters is None else ("letters",),  # repeats are allowed without a transaction
        parked=dict.fromkeys(receivers, aside),
    )
    return judge(Book(lines), expected)


def state(query: Query, letters: Path | None = None) -> Iterator[Line]:
    """Give the lines of a ledger that tell what stands in the tables and in the letters."""
    for what, statement in LEFT.items():
        [(count,)] = query(statement)
        yield {"what": "counted", "of": what, "found": count, "right": 0}
    for customer, number in query(PLACED):
        yield {"what": "committed", "order": f"{customer}/{number}", "key": customer, "nth": number}
    for receiver, message, customer, number in query(EFFECTS):
        yield {"what": "applied", "where": receiver, "message": message, "order": f"{customer}/{number}"}
    if letters is not None and letters.exists():
        for text in letters.read_text().splitlines():
            message, customer, number = text.split("\t")
            yield {"what": "applied", "where": "letters", "message": message, "order": f"{customer}/{number}"}


def ordered(orders: Sequence[Order]) -> bool:
    """Whether no order stands behind a later one of its customer."""
    committed = {f"{customer}/{number}": (customer, number) for customer, number in orders}
    return not out_of_order(committed, [f"{customer}/{number}" for customer, number in orders])
