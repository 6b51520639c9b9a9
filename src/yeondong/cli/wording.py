"""How numbers, times and foreign text are written for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from yeondong.errors import YeondongError

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

# What could move the cursor, recolour or reorder what stands on a terminal; line ends and tabs may stay.
_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class NoTime(YeondongError):
    """A time on the command line is none, or has no offset."""


def plain(text: str) -> str:
    r"""Make text from outside safe for a terminal.

    >>> plain("red \x1b[31m alert")
    'red \\x1b[31m alert'
    """
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return the first line that says something, safe for a terminal."""
    return next((plain(line.strip()) for line in text.splitlines() if line.strip()), "")


def span(seconds: float) -> str:
    """Write a length of time, as exact as it matters.

    >>> span(0.2), span(95), span(7500), span(180_000)
    ('0 s', '95 s', '2 h 5 min', '2 d 2 h')
    """
    whole = max(0, int(seconds))
    if whole < 2 * MINUTE:
        return f"{whole} s"
    if whole < 2 * HOUR:
        return f"{whole // MINUTE} min"
    if whole < 2 * DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def short_span(seconds: float) -> str:
    """Write a length of time for a narrow column.

    >>> short_span(95), short_span(7500), short_span(180_000)
    ('95s', '2h', '2d')
    """
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)}{name}"
    return f"{max(0, int(seconds))}s"


def number(value: float | None, digits: int = 0) -> str:
    """Write a number, or a dash where it is not known.

    >>> number(1234), number(2.34, 1), number(None)
    ('1,234', '2.3', '-')
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Write how many there are.

    >>> counted(1, "failure"), counted(2000, "failure"), counted(2, "reply", "replies")
    ('1 failure', '2,000 failures', '2 replies')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def moment(at: datetime) -> str:
    """Write a point in time as this machine's clock shows it, with its offset."""
    return at.astimezone().isoformat(sep=" ", timespec="seconds")


def seconds_since(at: datetime | None, now: datetime) -> float | None:
    """How long ago that was; None if it is not known."""
    return None if at is None else max(0.0, (now - at).total_seconds())


def parse_time(text: str, option: str) -> datetime:
    """Read a time with an offset. Raises ``NoTime``, which shows how to write it.

    >>> parse_time("2026-01-31T09:00:00+09:00", "--from").astimezone(UTC).isoformat()
    '2026-01-31T00:00:00+00:00'
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        example = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        raise NoTime(f"{option} {text!r} is no time; write it like {example}") from None
    if at.utcoffset() is None:
        here = at.astimezone().isoformat()
        raise NoTime(
            f"{option} {text!r} does not say in which time zone; if it is this machine's, write {here}; "
            f"for UTC write {at.isoformat()}Z"
        )
    return at
