"""Compares what happened with what was promised. Knows nothing of the engine."""

from __future__ import annotations

from collections import Counter

from tests.simulation.record import Record


def problems(record: Record) -> list[str]:
    """Return a sentence for each promise that was broken."""
    found = list(record.problems)
    if not any(problem.startswith("stuck") for problem in found):
        found += no_loss(record)
    found += one_effect(record)
    found += key_order(record)
    found += one_failure(record)
    found += attempts(record)
    found += bounded(record)
    return found


def no_loss(record: Record) -> list[str]:
    """Everything has its effect, or is one failure, or waits behind one, or was not wanted, or a person gave it up."""
    effects = {event.id for event in record.events if event.what == "effect"}
    discarded = {event.id for event in record.events if event.what == "discarded"}
    failed = set(record.left_failed)
    behind = {id for id, is_behind in record.left_waiting if is_behind}
    found = [f"no-loss: {id} still waits in held, behind nothing" for id, is_behind in record.left_waiting if not is_behind]
    for sent in record.sent:
        places = (sent.id in effects) + (sent.id in failed) + (sent.id in discarded) + (sent.id in behind)
        if sent.expects == "nothing":
            if sent.id in effects | failed:
                found.append(f"no-loss: nobody wants {sent.id}, and something became of it")
        elif not places:
            found.append(f"no-loss: {sent.id} has no effect and is no failure")
        elif sent.id in effects and sent.id in failed | behind and record.terms.transactional:
            found.append(f"no-loss: {sent.id} has an effect and is held as well")
    return found


def one_effect(record: Record) -> list[str]:
    """At most one effect per message where effect and inbox share a transaction."""
    if not record.terms.transactional:
        return []
    counts = Counter(event.id for event in record.events if event.what == "effect")
    return [f"one-effect: {id} has {count} effects" for id, count in counts.items() if count > 1]


def key_order(record: Record) -> list[str]:
    """First effects of a key come in sending order; what was parked aside may come later."""
    if not record.terms.keeps_order:
        return []
    places = {sent.id: (sent.key, number) for number, sent in enumerate(record.sent)}
    last: dict[str, int] = {}
    seen: set[str] = set()
    aside: set[str] = set()
    blocking: dict[str, dict[str, int]] = {}
    found: list[str] = []
    for event in record.events:
        key, number = places[event.id]
        if key is None:
            continue
        if event.what == "failed":
            if event.blocks:
                blocking.setdefault(key, {})[event.id] = number
            else:
                aside.add(event.id)
        elif event.what == "discarded":
            blocking.get(key, {}).pop(event.id, None)
        elif event.what == "effect" and event.id not in seen:
            seen.add(event.id)
            blocking.get(key, {}).pop(event.id, None)
            if event.id in aside:
                continue
            if number < last.get(key, -1):
                found.append(f"key-order: {event.id} of {key} comes after {record.sent[last[key]].id}")
            last[key] = max(number, last.get(key, -1))
            before = [id for id, place in blocking.get(key, {}).items() if place < number]
            if before:
                found.append(f"key-order: {event.id} of {key} overtakes {before[0]}, which failed and holds its key")
    return found


def one_failure(record: Record) -> list[str]:
    """A message fails once, and again only after a person retried it; never after a person gave it up."""
    allowed = dict.fromkeys((sent.id for sent in record.sent), 1)
    found: list[str] = []
    for event in record.events:
        if event.what == "failed":
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
    deaths = record.crashes + sum(killed.values())
    for event in record.events:
        sent = expected[event.id]
        if event.what == "failed" and sent.expects in ("effect", "nothing") and sent.failures + deaths < most:
            found.append(f"attempts: {event.id} failed, though only {sent.failures} attempts went wrong")
    for id, count in killed.items():
        retries = sum(1 for event in record.events if event.what == "retried" and event.id == id)
        if count > (most + 1) * (retries + 1) + record.crashes:
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
    return found
