"""How the command line writes numbers and times, and what it keeps from a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from yeondong.cli.wording import NoTime, counted, one_line, parse_time, plain, short_span, span


@pytest.fixture
def in_seoul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Seoul")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (-3, "0 s", "0s"),
        (0.9, "0 s", "0s"),
        (119, "119 s", "119s"),
        (120, "2 min", "2m"),
        (7199, "119 min", "119m"),
        (7200, "2 h 0 min", "2h"),
        (172_799, "47 h 59 min", "47h"),
        (200_000, "2 d 7 h", "2d"),
    ],
)
def test_a_length_of_time_is_as_exact_as_it_matters(seconds: float, long: str, short: str) -> None:
    assert span(seconds) == long
    assert short_span(seconds) == short


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "\x9b31m", "\u202etxt.exe", "\u2066hidden\u2069", "\ud800", "\x00"]
)
def test_nothing_from_outside_steers_the_terminal(text: str) -> None:
    safe = plain(text)

    assert safe.isprintable()
    assert safe.encode()


def test_letters_of_all_scripts_stay_as_they_are() -> None:
    assert plain("주문 №7 — café 🚀\n\tnext") == "주문 №7 — café 🚀\n\tnext"


def test_one_line_is_the_first_that_says_something() -> None:
    assert one_line("\n  ValueError: no\x07 stock\nTraceback") == "ValueError: no\\x07 stock"
    assert one_line("  \n") == ""


def test_a_count_says_what_it_counts() -> None:
    assert [counted(n, "message") for n in (0, 1, 1234)] == ["0 messages", "1 message", "1,234 messages"]


def test_a_time_with_an_offset_is_read() -> None:
    assert parse_time("2026-01-31T09:00+09:00", "--from") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_time("2026-01-31T00:00:00Z", "--from") == datetime(2026, 1, 31, tzinfo=UTC)


def test_a_time_without_one_is_refused_with_both_forms(in_seoul: None) -> None:
    with pytest.raises(NoTime) as raised:
        parse_time("2026-01-31 09:00", "--before")

    assert str(raised.value) == (
        "--before '2026-01-31 09:00' does not say in which time zone; if it is this machine's, write "
        "2026-01-31T09:00:00+09:00; for UTC write 2026-01-31T09:00:00Z"
    )


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(NoTime, match=r"--from 'yesterday' is no time; write it like 20\d\d-"):
        parse_time("yesterday", "--from")
