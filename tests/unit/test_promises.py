"""The acceptance checker sees each promise that is broken in a forged ledger, and none in one where all are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples.shop.promises import Book, Finding, Receivers, judge

RECEIVERS = Receivers(once=("search",), repeat=("letters",))


def ledger() -> list[dict[str, Any]]:
    """Four orders of two keys, one of them rolled back; a message sent twice, a letter written twice."""
    lines: list[dict[str, Any]] = [{"what": "tries", "order": order} for order in ("a1", "a2", "b1", "b2")]
    lines += [{"what": "placed", "order": order} for order in ("a1", "a2", "b1")]
    lines += [{"what": "rolled back", "order": "b2"}]
    stand = [("a1", "a", 1), ("a2", "a", 2), ("b1", "b", 1)]
    lines += [{"what": "committed", "order": order, "key": key, "nth": nth} for order, key, nth in stand]
    for order in ("a1", "a2", "b1", "a1"):
        lines.append({"what": "sent", "where": "orders", "message": f"m-{order}", "order": order})
    for order in ("a1", "b1", "a2", "b1"):
        lines.append({"what": "received", "where": "search", "order": order})
        lines.append({"what": "applied", "where": "letters", "order": order})
    lines += [{"what": "applied", "where": "search", "order": order} for order in ("a1", "b1", "a2")]
    lines += [{"what": "recovered", "of": "relay", "blow": "SIGKILL", "seconds": 2.0, "most": 4.0}]
    lines += [{"what": "counted", "of": "messages held", "found": 0, "right": 0}]
    return lines


def applied(lines: list[dict[str, Any]], where: str = "search") -> list[dict[str, Any]]:
    return [line for line in lines if line["what"] == "applied" and line["where"] == where]


def lose_a_row(lines: list[dict[str, Any]]) -> None:
    lines.remove(applied(lines)[1])


def lose_a_letter(lines: list[dict[str, Any]]) -> None:
    lines.remove(applied(lines, "letters")[2])


def lose_a_confirmed_order(lines: list[dict[str, Any]]) -> None:
    lines[:] = [line for line in lines if line.get("order") != "b1" or line["what"] in ("tries", "placed")]


def apply_twice(lines: list[dict[str, Any]]) -> None:
    lines.append(applied(lines)[0])


def apply_in_another_order(lines: list[dict[str, Any]]) -> None:
    first, *_, last = applied(lines)
    first["order"], last["order"] = last["order"], first["order"]


def send_in_another_order(lines: list[dict[str, Any]]) -> None:
    one, two, *_ = [line for line in lines if line["what"] == "sent"]
    one["order"], two["order"] = two["order"], one["order"]
    one["message"], two["message"] = two["message"], one["message"]


def give_in_another_order(lines: list[dict[str, Any]]) -> None:
    lines.insert(0, {"what": "received", "where": "search", "order": "a2"})


def send_what_was_rolled_back(lines: list[dict[str, Any]]) -> None:
    lines.append({"what": "sent", "where": "orders", "message": "m-b2", "order": "b2"})


def apply_what_was_rolled_back(lines: list[dict[str, Any]]) -> None:
    lines.append({"what": "applied", "where": "letters", "order": "b2"})


def commit_what_was_rolled_back(lines: list[dict[str, Any]]) -> None:
    lines.append({"what": "committed", "order": "b2", "key": "b", "nth": 2})
    lines.extend({"what": "applied", "where": where, "order": "b2"} for where in ("search", "letters"))


def return_late(lines: list[dict[str, Any]]) -> None:
    lines.append({"what": "recovered", "of": "relay", "blow": "SIGKILL", "seconds": 4.5, "most": 4.0})


def hang(lines: list[dict[str, Any]]) -> None:
    lines.append({"what": "hung", "reason": "after 90 s still waiting"})


def count_wrongly(lines: list[dict[str, Any]]) -> None:
    lines.append({"what": "counted", "of": "failures listed", "found": 2, "right": 1})


FORGERIES: list[tuple[Callable[[list[dict[str, Any]]], None], str]] = [
    (lose_a_row, "no-loss"),
    (lose_a_letter, "no-loss"),
    (lose_a_confirmed_order, "no-loss"),
    (apply_twice, "one-effect"),
    (apply_in_another_order, "key-order"),
    (send_in_another_order, "key-order"),
    (give_in_another_order, "key-order"),
    (send_what_was_rolled_back, "no-phantom"),
    (apply_what_was_rolled_back, "no-phantom"),
    (commit_what_was_rolled_back, "no-phantom"),
    (return_late, "recovers"),
    (hang, "recovers"),
    (count_wrongly, "true-accounts"),
]


def broken(lines: list[dict[str, Any]]) -> list[Finding]:
    return [finding for finding in judge(Book(lines), RECEIVERS) if not finding.kept]


def test_a_ledger_in_which_all_promises_are_kept() -> None:
    assert broken(ledger()) == []


@pytest.mark.parametrize(("forge", "promise"), FORGERIES, ids=lambda value: getattr(value, "__name__", None))
def test_a_forged_ledger(forge: Callable[[list[dict[str, Any]]], None], promise: str) -> None:
    lines = ledger()
    forge(lines)

    assert [finding.promise for finding in broken(lines)] == [promise]


def test_what_was_parked_may_come_later() -> None:
    lines = ledger()
    apply_in_another_order(lines)

    aside = Receivers(once=("search",), repeat=("letters",), parked={"search": ["a1"]})
    assert [finding for finding in judge(Book(lines), aside) if not finding.kept] == []
