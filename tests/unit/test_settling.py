"""What a source may be told, and what a clean end still has to do for it."""

from __future__ import annotations

from collections.abc import Iterable

from yeondong.core.delivery import Delivery
from yeondong.core.message import Kind, Message
from yeondong.core.traits import Settles
from yeondong.engine.settling import Loans


def lent(count: int, partition: str = "p") -> list[Delivery]:
    return [
        Delivery(Message(f"{partition}{n}", "T", Kind.EVENT, "c", None, b"12345"), n, partition) for n in range(count)
    ]


def receipts(deliveries: Iterable[Delivery]) -> list[int]:
    return [delivery.receipt for delivery in deliveries]


def test_a_prefix_source_is_told_only_what_has_no_gap_before_it() -> None:
    loans, deliveries = Loans(Settles.PREFIX), lent(4)
    loans.lend(deliveries)

    loans.finish([deliveries[0], deliveries[2]])
    assert receipts(loans.ready()) == [0]
    loans.told()
    loans.finish([deliveries[1]])

    assert receipts(loans.ready()) == [1, 2]


def test_partitions_do_not_wait_for_each_other() -> None:
    loans, first, second = Loans(Settles.PREFIX), lent(2, "a"), lent(2, "b")
    loans.lend([*first, *second])

    loans.finish([first[1], second[0]])

    assert loans.ready() == [second[0]]


def test_a_gap_is_what_something_finished_waits_behind() -> None:
    loans, deliveries = Loans(Settles.PREFIX), lent(6)
    loans.lend(deliveries)
    assert loans.gaps() == set()

    loans.finish([deliveries[0], deliveries[3]])

    assert loans.gaps() == {("p", 1), ("p", 2)}


def test_a_source_that_settles_each_has_no_gaps_and_is_told_at_once() -> None:
    loans, deliveries = Loans(Settles.EACH), lent(3)
    loans.lend(deliveries)

    loans.finish([deliveries[2]])

    assert loans.gaps() == set()
    assert receipts(loans.ready()) == [2]


def test_what_is_finished_and_not_told_still_counts_against_the_limits() -> None:
    loans, deliveries = Loans(Settles.PREFIX), lent(3)
    loans.lend(deliveries)

    loans.finish(deliveries[1:])
    loans.ready()
    assert (loans.count, loans.bytes, loans.stuck) == (3, 15, 2)
    loans.finish(deliveries[:1])
    loans.ready()
    loans.told()

    assert (loans.count, loans.bytes, loans.stuck) == (0, 0, 0)
