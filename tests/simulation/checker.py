"""Compares what happened with what was promised. Knows nothing of the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.simulation.record import Record


def problems(record: Record) -> list[str]:
    """Return a sentence for each promise that was broken."""
    found = list(record.problems)
    if not any(problem.startswith("stuck") for problem in found):
        found += no_loss(record)
        found += replayed(record)
    found += one_effect(record)
    found += key_order(record)
    found += one_failure(record)
    found += attempts(record)
    found += bounded(record)
    return found


def flawed_and_retried(record: Record) -> set[str]:
    """Return what a person had tried again although its envelope is broken.

    Held keeps no flaw, so it is handled; its source may still lend it with the flaw, and it is a failure once more.
    """
    flawed = {sent.id for sent in record.sent if sent.flawed}
    return {event.id for event in record.events if event.what == "retried" and event.id in flawed}


def no_loss(record: Record) -> list[str]:
    """Everything has its effect, or is one failure, or waits behind one, or was not wanted, or a person gave it up."""
    effects = {event.id for event in record.events if event.what == "effect"}
    discarded = {event.id for event in record.events if event.what == "discarded"}
    failed = set(record.left_failed)
    behind = {id for id, is_behind in record.left_waiting if is_behind}
    exempt = flawed_and_retried(record)
    found = [
        f"no-loss: {id} still waits in held, behind nothing" for id, is_behind in record.left_waiting if not is_behind
    ]
    for sent in record.sent:
        places = (sent.id in effects) + (sent.id in failed) + (sent.id in discarded) + (sent.id in behind)
        if sent.expects == "nothing":
            if sent.id in effects | failed:
                found.append(f"no-loss: nobody wants {sent.id}, and something became of it")
        elif not places:
            found.append(f"no-loss: {sent.id} has no effect and is no failure")
        elif sent.id in effects and sent.id in failed - exempt and record.terms.transactional:
            found.append(f"no-loss: {sent.id} has an effect and is held as well")
    return found


def one_effect(record: Record) -> list[str]:
    """At most one effect per message where effect and inbox share a transaction, or where only lines dropped."""
    if not (record.terms.transactional or record.terms.undisturbed):
        return []
    # Without an inbox, what was done out of held is done again if its source was not told before the line dropped.
    exempt = {event.id for event in record.events if event.what == "held"} if not record.terms.transactional else set()
    counts = Counter(
        (event.id, event.number) for event in record.events if event.what == "effect" and event.id not in exempt
    )
    return [f"one-effect: {id} has {count} effects" for (id, _), count in counts.items() if count > 1]


def replayed(record: Record) -> list[str]:
    """What was there at a replay has its effect once more, unless it is a failure or waits behind one."""
    effects = {(event.id, event.number) for event in record.events if event.what == "effect"}
    elsewhere = {event.id for event in record.events if event.what in ("discarded", "held", "failed")}
    elsewhere.update(record.left_failed, (id for id, _ in record.left_waiting))
    most = max(record.replayed.values(), default=0) + 1
    wanted = {sent.id for sent in record.sent if sent.expects != "nothing"}
    return [
        f"replay: {id} was not handled again"
        for id, generation in record.replayed.items()
        if id in wanted - elsewhere and not any((id, later) in effects for later in range(generation, most + 1))
    ]


class Key:
    """One key as the observer sees it: how far its effects came, and which failures hold it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.last: tuple[int, str] = (-1, "")
        self.aside: set[str] = set()
        self.holding: dict[str, int] = {}

    def failed(self, id: str, number: int, *, blocks: bool) -> None:
        if blocks:
            self.holding[id] = number
        else:
            self.aside.add(id)

    def effect(self, id: str, number: int) -> Iterator[str]:
        self.holding.pop(id, None)
        if id in self.aside:
            return
        if number < self.last[0]:
            yield f"key-order: {id} of {self.name} comes after {self.last[1]}"
        self.last = max(self.last, (number, id))
        before = [other for other, place in self.holding.items() if place < number]
        if before:
            yield f"key-order: {id} of {self.name} overtakes {before[0]}, which failed and holds its key"


def key_order(record: Record) -> list[str]:
    """First effects of a key come in sending order; what was parked aside may come later."""
    if not record.terms.keeps_order:
        return []
    keys = {sent.key: Key(sent.key) for sent in record.sent if sent.key is not None}
    places = {sent.id: (keys[sent.key], number) for number, sent in enumerate(record.sent) if sent.key is not None}
    seen: set[str] = set()
    found: list[str] = []
    for event in record.events:
        if event.id not in places:
            continue
        key, number = places[event.id]
        # What had its effect may be handled again without an inbox, and fail then: that holds nobody up.
        if event.what == "failed" and event.id not in seen:
            key.failed(event.id, number, blocks=event.blocks)
        elif event.what == "discarded":
            key.holding.pop(event.id, None)
        elif event.what == "effect" and event.id not in seen:
            seen.add(event.id)
            found += key.effect(event.id, number)
    return found


def one_failure(record: Record) -> list[str]:
    """A message fails once, and again only after a person retried it; never after a person gave it up."""
    allowed = dict.fromkeys((sent.id for sent in record.sent), 1)
    found: list[str] = []
    done: set[str] = set()
    exempt = flawed_and_retried(record)
    for event in record.events:
        if event.what == "effect" and record.terms.transactional:
            done.add(event.id)
        if event.what == "failed":
            if event.id in done - exempt:
                found.append(f"one failure: {event.id} failed after its effect")
            allowed[event.id] -= 1
            if allowed[event.id] < 0:
                found.append(f"one failure: {event.id} failed once more than it was tried")
        elif event.what == "retried":
            allowed[event.id] += 1
        elif event.what == "discarded":
            allowed[event.id] = 0
    return found


def attempts(record: Record) -> list[str]:
    """No attempt above the plan's; an outage fails nothing; what kills processes is caught."""
    most = record.terms.attempts
    found = [
        f"attempts: {event.id} was tried for the {event.number}th time of {most}"
        for event in record.events
        if event.what == "invoked" and event.number > most
    ]
    expected = {sent.id: sent for sent in record.sent}
    killed = Counter(event.id for event in record.events if event.what == "killed")
    deaths = record.ends + sum(killed.values())
    for event in record.events:
        sent = expected[event.id]
        if event.what == "failed" and sent.expects in ("effect", "nothing") and sent.failures + deaths < most:
            found.append(f"attempts: {event.id} failed, though only {sent.failures} attempts went wrong")
    for id, count in killed.items():
        retries = sum(1 for event in record.events if event.what == "retried" and event.id == id)
        # The first death has nobody to suspect; some more come where its key was blocked until suspicion was over, or
        # where rows that persons retried come before it.
        if count > (most + 4) * (retries + 1) + record.ends:
            found.append(f"attempts: {id} killed {count} processes, {most} attempts were allowed")
    return found


def bounded(record: Record) -> list[str]:
    """What is in flight, held, waiting and remembered stays within its limits."""
    terms = record.terms
    found: list[str] = []
    if record.most_in_flight > terms.in_flight:
        found.append(f"bounded: {record.most_in_flight} messages were in flight, {terms.in_flight} may be")
    if record.most_held > terms.held:
        found.append(f"bounded: {record.most_held} messages were held, {terms.held} may be")
    if record.most_waiting > terms.waiting:
        found.append(f"bounded: {record.most_waiting} retries waited in memory, {terms.waiting} may")
    if record.most_remembered > terms.remembered:
        found.append(
            f"bounded: {record.most_remembered} things are remembered by an idle flow, {terms.remembered} may be"
        )
    return found
