"""How much an engine remembers, whatever its parts are called."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


def remembered(root: Any) -> int:
    """Count what is in all containers of the engine's objects that can be reached from this one."""
    seen: set[int] = set()
    total = 0
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            total += len(thing)
            waiting.extend(thing.values())
        elif isinstance(thing, list | deque | set | frozenset):
            total += len(thing)
            waiting.extend(thing)
        elif type(thing).__module__.startswith("yeondong.engine"):
            waiting.extend(_parts(thing))
    return total


def _parts(thing: Any) -> Iterator[Any]:
    yield from vars(thing).values() if hasattr(thing, "__dict__") else ()
    for owner in type(thing).__mro__:
        slots = owner.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                yield getattr(thing, name)
