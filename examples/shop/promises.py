"""What a ledger says of each promise.

It reads nothing but the ledger's lines and shares no code with yeondong. They tell of each order

- what its customer was told: ``placed``, ``rolled back``, or ``unknown`` if the answer was lost;
- ``committed``: it stands in the database, as the ``nth`` of its ``key``;
- ``sent``: a ``message`` about it is in the broker's log, in a channel (``where``);
- ``received``: a receiver (``where``) was given it;
- ``applied``: a receiver's effect is there;

and of the run: ``recovered`` (``of`` what, after which ``blow``, in how many ``seconds``, of ``most``), ``counted``
(``of`` what, ``found``, ``right``) and ``hung`` (``reason``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from examples.shop.ledger import Line


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was counted, and whether the promise holds by it."""

    promise: str
    what: str
    found: str
    kept: bool

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}: {self.found}"


@dataclass(frozen=True, slots=True)
class Receivers:
    """Who is to have every order.

    Those that ``repeat`` have no transaction that reaches their effect: they may have it twice. What was ``parked``
    was let go from its key's order.
    """

    once: Collection[str] = ()
    repeat: Collection[str] = ()
    parked: Mapping[str, Collection[str]] | None = None

    def aside(self, receiver: str) -> Collection[str]:
        """Return the orders that this receiver parked."""
        return (self.parked or {}).get(receiver, ())


class Book:
    """The ledger's lines, sorted by what they tell."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self.told: dict[str, str] = {}
        self.committed: dict[str, tuple[str, int]] = {}
        self.sent: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.received: dict[str, list[str]] = defaultdict(list)
        self.applied: dict[str, list[str]] = defaultdict(list)
        for line in self.lines:
            match line["what"]:
                case "placed" | "rolled back" | "unknown" as what:
                    self.told[line["order"]] = what
                case "committed":
                    self.committed[line["order"]] = (line["key"], line["nth"])
                case "sent":
                    self.sent[line["where"]].append((line["message"], line["order"]))
                case "received":
                    self.received[line["where"]].append(line["order"])
                case "applied":
                    self.applied[line["where"]].append(line["order"])
                case _:
                    pass

    def all(self, what: str, **facts: Any) -> list[Line]:
        """Return the lines of this kind with these facts."""
        return [
            line
            for line in self.lines
            if line["what"] == what and all(line.get(name) == fact for name, fact in facts.items())
        ]

    def with_answer(self, what: str) -> set[str]:
        """Return the orders whose customers were told this."""
        return {order for order, told in self.told.items() if told == what}

    def sent_once(self, channel: str) -> list[str]:
        """Return the orders that a channel's messages are about, in the log's order, repeats of a message left out."""
        return list(dict(self.sent[channel]).values())


Judge: TypeAlias = Callable[[Book, Receivers], Iterator[Finding]]


def judge(book: Book, receivers: Receivers) -> list[Finding]:
    """Return what the ledger says, promise by promise."""
    return [finding for judge_one in JUDGES for finding in judge_one(book, receivers)]


def no_loss(book: Book, receivers: Receivers) -> Iterator[Finding]:
    """What was confirmed is there, and has come to every receiver."""
    lost = book.with_answer("placed") - book.committed.keys()
    yield none("no-loss", "orders confirmed to a customer and not in the shop", lost)
    for receiver in (*receivers.once, *receivers.repeat):
        yield none("no-loss", f"orders missing in {receiver}", book.committed.keys() - set(book.applied[receiver]))


def one_effect(book: Book, receivers: Receivers) -> Iterator[Finding]:
    """No effect is there twice."""
    for receiver in receivers.once:
        twice = [order for order, count in Counter(book.applied[receiver]).items() if count > 1]
        yield none("one-effect", f"orders more than once in {receiver}", twice)


def key_order(book: Book, receivers: Receivers) -> Iterator[Finding]:
    """Nothing came behind a later one of its key."""
    for channel in sorted(book.sent):
        wrong = out_of_order(book.committed, book.sent_once(channel))
        yield none("key-order", f"messages of {channel} behind a later one of their key", wrong)
    for receiver in (*receivers.once, *receivers.repeat):
        first = [order for order in dict.fromkeys(book.applied[receiver]) if order not in receivers.aside(receiver)]
        wrong = out_of_order(book.committed, first)
        yield none("key-order", f"orders in {receiver} behind a later one of their key", wrong)
    for receiver in sorted(book.received):
        wrong = out_of_order(book.committed, dict.fromkeys(book.received[receiver]))
        yield none("key-order", f"orders given to {receiver} behind a later one of their key", wrong)


def no_phantom(book: Book, _receivers: Receivers) -> Iterator[Finding]:
    """What was rolled back is nowhere."""
    undone = book.with_answer("rolled back") & book.committed.keys()
    yield none("no-phantom", "orders rolled back and yet in the shop", undone)
    for channel, messages in sorted(book.sent.items()):
        phantoms = {order for _, order in messages} - book.committed.keys()
        yield none("no-phantom", f"messages of {channel} about orders that do not exist", phantoms)
    for receiver in sorted(book.received.keys() | book.applied.keys()):
        phantoms = {*book.received[receiver], *book.applied[receiver]} - book.committed.keys()
        yield none("no-phantom", f"orders in {receiver} that do not exist", phantoms)


def recovers(book: Book, _receivers: Receivers) -> Iterator[Finding]:
    """What was struck worked again in time."""
    returns: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in book.all("recovered"):
        returns[line["of"], line["blow"]].append(line)
    for (of, blow), lines in sorted(returns.items()):
        slowest = max(lines, key=lambda line: float(line["seconds"]) - float(line["most"]))
        yield within("recovers", f"slowest return of {of} after {blow}", [slowest["seconds"]], slowest["most"])
    yield none("recovers", "waits that did not end", [line["reason"] for line in book.all("hung")])


def true_accounts(book: Book, _receivers: Receivers) -> Iterator[Finding]:
    """What yeondong says of itself is so."""
    for line in book.all("counted"):
        yield equal("true-accounts", line["of"], line["found"], line["right"])


JUDGES: Sequence[Judge] = (no_loss, one_effect, key_order, no_phantom, recovers, true_accounts)


# --- counting ---------------------------------------------------------------------------------------------------------


def out_of_order(committed: Mapping[str, tuple[str, int]], orders: Iterable[str]) -> list[str]:
    """Return the orders that stand behind a later one of the same key."""
    latest: dict[str, int] = {}
    wrong = []
    for order in orders:
        if order in committed:
            key, nth = committed[order]
            if nth < latest.get(key, nth):
                wrong.append(order)
            latest[key] = max(latest.get(key, nth), nth)
    return wrong


def none(promise: str, what: str, found: Iterable[Any]) -> Finding:
    """Find that there is none of these."""
    names = sorted(str(one) for one in found)
    shown = f"{len(names)}" + (f" ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})" if names else "")
    return Finding(promise, what, shown, kept=not names)


def equal(promise: str, what: str, found: int, right: int) -> Finding:
    """Find that a count is right."""
    return Finding(promise, what, f"{found} of {right}" if right else f"{found}", kept=found == right)


def within(promise: str, what: str, seconds: Iterable[float], most: float) -> Finding:
    """Find that it never took longer."""
    slowest = max(seconds, default=0.0)
    return Finding(promise, what, f"{slowest:.1f} of {most:g} s", kept=slowest <= most)
