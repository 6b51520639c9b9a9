"""Compares what was placed with what became of it. Reads tables with sqlite3 and knows nothing else of yeondong."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

Order: TypeAlias = tuple[str, int]

RECEIVERS = ("search", "statistics", "points")
LEFT = {
    "still held": "SELECT count(*) FROM yeondong_held",
    "not sent": "SELECT count(*) FROM yeondong_outbox_status WHERE status <> 'DONE'",
}


def findings(
    database: Path,
    receivers: Iterable[str] = RECEIVERS,
    *,
    letters: Path | None = None,
    parked: Container[Order] = (),
) -> list[str]:
    """Return everything that is wrong, sentence by sentence; nothing if all promises are kept.

    ``parked`` were set aside by a person's leave, so that they come after later ones of their key.
    """
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = list(_nothing_left(connection))
        placed: set[Order] = set(connection.execute("SELECT customer, number FROM placed"))
        for receiver in receivers:
            rows = connection.execute(
                "SELECT message_id, customer, number FROM effects WHERE receiver = ? ORDER BY id", (receiver,)
            ).fetchall()
            orders = [row[1:] for row in rows]
            found += complete(receiver, placed, orders)
            found += one_effect(receiver, [row[0] for row in rows])
            found += key_order(receiver, [order for order in orders if order not in parked])
    if letters is not None:
        written = _orders(letters)
        found += complete("letters", placed, written)
        found += key_order("letters", list(dict.fromkeys(written)))  # repeats are allowed without a transaction
    return found


def complete(receiver: str, placed: set[Order], applied: Iterable[Order]) -> Iterator[str]:
    if lost := placed.difference(applied):
        yield f"no-loss: {receiver} misses {sorted(lost)[:5]}, {len(lost)} in all"
    if phantoms := set(applied) - placed:
        yield f"no-phantom: {receiver} has {sorted(phantoms)[:5]}, {len(phantoms)} in all"


def one_effect(receiver: str, ids: Iterable[str]) -> Iterator[str]:
    if twice := [id for id, count in Counter(ids).items() if count > 1]:
        yield f"one-effect: {receiver} has {twice[:5]} more than once, {len(twice)} in all"


def key_order(receiver: str, orders: Sequence[Order]) -> Iterator[str]:
    last: dict[str, int] = {}
    for customer, number in orders:
        if number < last.get(customer, -1):
            yield f"key-order: {receiver} has {customer}/{number} after {customer}/{last[customer]}"
        last[customer] = number


def _nothing_left(connection: sqlite3.Connection) -> Iterator[str]:
    for what, query in LEFT.items():
        if count := connection.execute(query).fetchone()[0]:
            yield f"{what}: {count}"


def _orders(letters: Path) -> list[Order]:
    lines = [line.split("\t") for line in letters.read_text().splitlines()] if letters.exists() else []
    return [(customer, int(number)) for _id, customer, number in lines]
