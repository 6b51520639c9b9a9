"""The outbox's rows in an order in which they may be passed over, however late and mixed up transactions commit.

Ids are given at the insert and seen at the commit, so that a row may appear below one that was read long ago. What is
read here is a window at a time: the rows that are visible in one snapshot and were not in the one before, in the order
of their ids. A transaction that was running at the first snapshot and has ended by the second brings all its rows into
this window, none of them is in any other, and one that runs for long, in this database or another, holds up nobody.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound
from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from msgspec import Struct, structs

from yeondong.stores.postgresql.link import READ_BYTES, Link
from yeondong.stores.postgresql.rows import COLUMNS
from yeondong.stores.postgresql.snapshots import BEGINNING, Snapshot, snapshot

NAMES: Final = f"id, fail_count, {COLUMNS}"

# A time without its zone is read four times as fast.
UTC_COLUMNS: Final = COLUMNS.replace("occurred_at", "occurred_at AT TIME ZONE 'UTC' AS occurred_at")
ROW: Final = f"id, fail_count, {UTC_COLUMNS}"
PAYLOAD: Final = 7

# The usual row. Of one with a larger payload only this is told, by a fail_count of -1: 2,000 of 1 MiB each would be too
# much for one read, and to count their bytes while reading costs a third more.
SMALL_BYTES: Final = 4096
SMALL_COLUMNS: Final = UTC_COLUMNS.replace(
    "payload", f"CASE WHEN octet_length(payload) <= {SMALL_BYTES} THEN payload END AS payload"
)
SMALL_ROW: Final = (
    f"id, CASE WHEN octet_length(payload) > {SMALL_BYTES} THEN -1 ELSE fail_count END AS fail_count, {SMALL_COLUMNS}"
)

# Rows of any size, as long as those before them have no more than 8 MiB of payload.
SIZED: Final = f"""
SELECT {NAMES} FROM (
  SELECT *, sum(octet_length(payload)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM ({{rows}}) AS found
) AS sized WHERE before IS NULL OR before < {READ_BYTES}
"""

# One look at all that is new, in the order of the index, so that it costs no more than these rows themselves. A window
# that is larger than the limit is read by pages instead, under this same snapshot.
LOOK: Final = f"""
WITH fresh AS MATERIALIZED (
  SELECT {SMALL_ROW} FROM yeondong_outbox
  WHERE txid >= %(first)s::xid8 {{condition}} ORDER BY txid, id LIMIT %(limit)s + 1
), late AS MATERIALIZED (
  SELECT {SMALL_ROW} FROM yeondong_outbox
  WHERE txid = ANY(%(running)s::xid8[]) {{condition}} ORDER BY txid, id LIMIT %(limit)s + 1
), counted AS MATERIALIZED (
  SELECT (SELECT count(*) FROM fresh) + (SELECT count(*) FROM late) AS rows
)
SELECT * FROM fresh WHERE (SELECT rows FROM counted) <= %(limit)s
UNION ALL
SELECT * FROM late WHERE (SELECT rows FROM counted) <= %(limit)s
UNION ALL
SELECT NULL, (SELECT rows FROM counted), pg_current_snapshot()::text{", NULL" * 8}
{{beside}}
"""

# `+ 0` keeps the planner from looking for the lowest id by the primary key, through all that was sent long ago.
BOUNDS: Final = """
WITH late AS MATERIALIZED (
  SELECT txid, min(id + 0) AS low, max(id + 0) AS high FROM yeondong_outbox
  WHERE txid = ANY(%(running)s::xid8[]) GROUP BY txid
), fresh AS MATERIALIZED (
  SELECT min(id + 0) AS low, max(id + 0) AS high FROM yeondong_outbox WHERE txid >= %(first)s::xid8
)
SELECT min(low), max(high), (SELECT array_agg(txid::text) FROM late)
FROM (SELECT low, high FROM fresh UNION ALL SELECT low, high FROM late) AS bounds
"""

# By the primary key: `IS TRUE` keeps the planner from the index on transactions, by which it would sort all the rest of
# the window for each page.
PAGE: Final = """
SELECT {row} FROM yeondong_outbox
WHERE id > %(last)s AND id <= %(high)s AND (txid >= %(first)s::xid8) IS TRUE
  AND pg_visible_in_snapshot(txid, %(upto)s::pg_snapshot) {condition}
ORDER BY id LIMIT %(limit)s
"""

# One for each transaction that was running: for its own id the planner knows what it will find.
LATE: Final = """
SELECT {row} FROM yeondong_outbox
WHERE txid = %({late})s::xid8 AND id > %(last)s AND id <= %(high)s
  AND pg_visible_in_snapshot(txid, %(upto)s::pg_snapshot) {condition}
ORDER BY id LIMIT %(limit)s
"""

NOW: Final = "SELECT pg_current_snapshot()::text"

HIGHEST: Final = "SELECT coalesce(max(id), 0) FROM yeondong_outbox"

_by_id: Final = itemgetter(0)


class Window(Struct, frozen=True):
    """Rows visible in ``upto`` and not in ``seen``, with ids above ``last`` and up to ``high``.

    ``late`` are those transactions of ``seen.running`` that have brought rows meanwhile.
    """

    seen: Snapshot
    upto: Snapshot
    last: int
    high: int
    late: tuple[str, ...] = ()


class Page(Struct, frozen=True):
    """What one read gave, in the order of ids, out of a window from ``seen`` to ``upto``.

    ``rest`` is what the window has beyond it; None if it has no more. ``beside`` is what was asked for besides.
    """

    rows: list[Any]
    seen: Snapshot
    upto: Snapshot
    rest: Window | None
    beside: list[Any]


class Windows:
    """Reads window after window.

    ``condition`` leaves rows out of all of them: SQL that begins with AND. ``beside`` is a query that is run with each
    read, in the same snapshot or a later one: as many columns as ``ROW``, the first of them NULL.
    """

    def __init__(self, link: Link, condition: str = "", beside: str = "") -> None:
        self._link = link
        self._beside = beside
        also = f"UNION ALL {beside}" if beside else ""
        self._look = LOOK.format(condition=condition, beside=also)
        self._condition = condition
        self._also = also
        self._seen = BEGINNING
        self._window: Window | None = None

    @property
    def seen(self) -> Snapshot:
        """The snapshot up to which everything was read, but for the rest of a window."""
        return self._seen

    def begin(self, seen: Snapshot) -> None:
        """Go on behind a snapshot."""
        self._seen, self._window = seen, None

    def begin_within(self, seen: Snapshot, upto: Snapshot, id: int) -> None:
        """Go on within a window, behind an id."""
        bounds = self._bounds(seen, upto)
        self._seen, self._window = seen, structs.replace(bounds, last=max(id, bounds.last))

    def begin_above(self, id: int) -> None:
        """Go on behind an id, with all rows that are visible now."""
        now = self.now()
        highest: int = self._link.look(HIGHEST)[0][0]
        self._seen, self._window = BEGINNING, Window(BEGINNING, now, id, highest)

    def now(self) -> Snapshot:
        """Return the server's snapshot of this moment."""
        return snapshot(self._link.look(NOW)[0][0])

    def page(self, limit: int) -> Page:
        """Return the next rows; none if there are no more for now."""
        while True:
            if self._window is None:
                found = self._looked(limit)
                if found.rest is None:
                    return found
                self._window = found.rest
            page = self._turned(self._window, limit)
            self._window = page.rest
            if page.rest is None:
                self._seen = page.upto
            if page.rows:
                return page

    def _looked(self, limit: int) -> Page:
        seen = self._seen
        running = _array(seen.running)
        rows = self._link.look(self._look, {"first": seen.first, "running": running, "limit": limit})
        found, other = apart(rows)
        (_, count, text, *_), *beside = other
        now = snapshot(text)
        if count <= limit and not has_large(found):
            self._seen = now
            return Page(found, seen, now, None, beside)
        return Page([], seen, now, self._bounds(seen, now), beside)

    def _bounds(self, seen: Snapshot, upto: Snapshot) -> Window:
        low, high, late = self._link.look(BOUNDS, {"first": seen.first, "running": _array(seen.running)})[0]
        return Window(seen, upto, (low or 1) - 1, high or 0, tuple(late or ()))

    def _turned(self, window: Window, limit: int) -> Page:
        seen, upto = window.seen, window.upto
        values = {
            "first": seen.first,
            "upto": upto.text,
            "last": window.last,
            "high": window.high,
            "limit": limit,
            **{f"late{number}": late for number, late in enumerate(window.late)},
        }
        found, beside = apart(self._link.look(self.statement(len(window.late), sized=False), values))
        if has_large(found):
            found, beside = apart(self._link.look(self.statement(len(window.late), sized=True), values))
        over = len(found) < limit and not is_full(found)
        rest = None if over else structs.replace(window, last=found[-1][0])
        return Page(found, seen, upto, rest, beside)

    def statement(self, late: int, *, sized: bool) -> str:
        """Return the statement that reads a page of a window with so many late transactions."""
        row, condition = ROW if sized else SMALL_ROW, self._condition
        rows = [PAGE.format(row=row, condition=condition)]
        rows += [LATE.format(row=row, condition=condition, late=f"late{number}") for number in range(late)]
        page = rows[0]
        if late:
            page = " UNION ALL ".join(f"(SELECT * FROM ({each}) AS part)" for each in rows)
            page = f"SELECT * FROM ({page}) AS parts ORDER BY id LIMIT %(limit)s"
        page = SIZED.format(rows=page) if sized else f"SELECT * FROM ({page}) AS page"
        return f"{page} {self._also}"


def has_large(rows: list[Any]) -> bool:
    """Whether rows were told of and not read, for their size."""
    return any(row[1] < 0 for row in rows)


def apart(rows: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the rows of messages, by their ids, and the others."""
    found = [row for row in rows if row[0] is not None]
    found.sort(key=_by_id)
    return found, [row for row in rows if row[0] is None]


def is_full(rows: list[Any]) -> bool:
    """Whether the read may have ended at its bound of bytes."""
    return sum(len(row[PAYLOAD] or b"") for row in rows) >= READ_BYTES


def _array(ids: Sequence[str]) -> str:
    return "{" + ",".join(ids) + "}"
