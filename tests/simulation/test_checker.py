"""Each promise has a record that breaks it, made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.checker import problems
from tests.simulation.record import Record, Sent, Terms


def record() -> Record:
    """Return a record of three messages, two of one key, where nothing has happened yet."""
    terms = Terms(
        on_failure="hold_key",
        attempts=3,
        keeps_order=True,
        transactional=True,
        undisturbed=False,
        in_flight=10,
        held=10,
        waiting=10,
        remembered=10,
    )
    sent = [Sent("a", "k", "effect", 0), Sent("b", "k", "effect", 0), Sent("c", "other", "failure", 0)]
    return Record(terms, sent)


def kept() -> Record:
    """Return a record in which every promise is kept."""
    one = record()
    one.add("invoked", "a", 1)
    one.add("effect", "a")
    one.add("effect", "b")
    one.add("failed", "c", blocks=True)
    one.left_failed = ["c"]
    return one


def lost(one: Record) -> None:
    one.left_failed = []


def twice(one: Record) -> None:
    one.add("effect", "a")


def overtaken(one: Record) -> None:
    one.events[1:3] = reversed(one.events[1:3])


def overtaken_behind_a_failure(one: Record) -> None:
    one.events[1:2] = []
    one.add("failed", "a", blocks=True)
    one.left_failed = ["a", "c"]
    one.events.append(one.events.pop(1))


def failed_twice(one: Record) -> None:
    one.add("failed", "c", blocks=True)


def failed_after_its_effect(one: Record) -> None:
    one.add("failed", "a", blocks=True)


def tried_too_often(one: Record) -> None:
    one.add("invoked", "c", 4)


def failed_by_an_outage(one: Record) -> None:
    one.events[1:2] = []
    one.events[-1:] = []
    one.add("failed", "a")
    one.add("failed", "c")
    one.left_failed = ["a", "c"]


def kills_for_ever(one: Record) -> None:
    for _ in range(12):
        one.add("killed", "c")


def in_flight_beyond(one: Record) -> None:
    one.most_in_flight = 11


def held_beyond(one: Record) -> None:
    one.most_held = 11


def stuck_behind_nothing(one: Record) -> None:
    one.left_waiting = [("c", False)]


def remembered_beyond(one: Record) -> None:
    one.most_remembered = 11


def test_a_record_without_fault_passes() -> None:
    assert problems(kept()) == []


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (lost, "no-loss: c "),
        (stuck_behind_nothing, "no-loss: c "),
        (twice, "one-effect: a "),
        (overtaken, "key-order: a "),
        (overtaken_behind_a_failure, "key-order: b "),
        (failed_twice, "one failure: c "),
        (failed_after_its_effect, "one failure: a "),
        (tried_too_often, "attempts: c "),
        (failed_by_an_outage, "attempts: a "),
        (kills_for_ever, "attempts: c "),
        (in_flight_beyond, "bounded: "),
        (held_beyond, "bounded: "),
        (remembered_beyond, "bounded: "),
    ],
    ids=lambda value: getattr(value, "__name__", "").replace("_", " ") if callable(value) else "",
)
def test_a_broken_promise_is_told(spoil: Callable[[Record], None], promise: str) -> None:
    one = kept()

    spoil(one)

    assert any(problem.startswith(promise) for problem in problems(one))
