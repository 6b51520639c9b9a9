"""Retries that wait in memory, each blocking its key and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from yeondong.core.delivery import Delivery
from yeondong.core.message import order_key


@dataclass(slots=True)
class Wait:
    """A delivery to try again at ``due``, and the later ones of its key.

    It may go back only once its lane has ended the list in which it failed (``flushed``): until then that list may
    still return later messages of the key, which must not overtake it.
    """

    head: Delivery
    due: float
    since: float
    slot: int
    error: str | None
    flushed: bool = False
    behind: list[Delivery] = field(default_factory=list)

    def all(self) -> list[Delivery]:
        return [self.head, *self.behind]


class Waits:
    """The keys that are blocked by a retry in memory."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, ...], Wait] = {}
        self._since: dict[tuple[str, ...], tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def get(self, key: tuple[str, ...]) -> Wait | None:
        return self._by_key.get(key)

    def failing_since(self, delivery: Delivery, now: float) -> float:
        """When the key's message failed first; it stays until ``recovered``, or until it is here no more."""
        return self._since.setdefault(order_key(delivery.message), (now, delivery.partition))[0]

    @property
    def failing(self) -> bool:
        return bool(self._since)

    def recovered(self, key: tuple[str, ...]) -> None:
        self._since.pop(key, None)

    def add(self, wait: Wait) -> None:
        self._by_key[order_key(wait.head.message)] = wait

    def flushed(self, slot: int) -> None:
        """The lane has ended its list."""
        for wait in self._by_key.values():
            if wait.slot == slot:
                wait.flushed = True

    def due(self, now: float) -> Iterator[Wait]:
        """Take out what may be tried again now."""
        for key, wait in list(self._by_key.items()):
            if wait.flushed and wait.due <= now:
                del self._by_key[key]
                yield wait

    def next_due(self) -> float | None:
        return min((w.due for w in self._by_key.values() if w.flushed), default=None)

    def beyond(self, most: int, seconds: float, stays: Callable[[Wait], bool]) -> Iterator[Wait]:
        """Take out what waits longer than this in all, and then the oldest while more than ``most`` messages wait.

        What ``stays`` is neither taken out nor counted.
        """
        may_go = {key: wait for key, wait in self._by_key.items() if not stays(wait)}
        for key, wait in list(may_go.items()):
            if wait.due - wait.since > seconds:
                del self._by_key[key], may_go[key]
                self._since.pop(key, None)
                yield wait
        waiting = sum(1 + len(w.behind) for w in may_go.values())
        for key, wait in sorted(may_go.items(), key=lambda item: item[1].since):
            if waiting <= most:
                return
            waiting -= 1 + len(wait.behind)
            del self._by_key[key]
            self._since.pop(key, None)
            yield wait

    def drop(self, partitions: Container[str]) -> tuple[list[Delivery], list[tuple[int, list[Delivery]]]]:
        """Forget what waits of these partitions.

        Returns the heads, whose attempts still count, and, by slot, what waited behind them of other partitions: the
        later messages of a key are in another one where a channel was given more.
        """
        self._since = {key: since for key, since in self._since.items() if since[1] not in partitions}
        heads: list[Delivery] = []
        freed: list[tuple[int, list[Delivery]]] = []
        for key, wait in list(self._by_key.items()):
            wait.behind = [later for later in wait.behind if later.partition not in partitions]
            if wait.head.partition in partitions:
                del self._by_key[key]
                heads.append(wait.head)
                freed.append((wait.slot, wait.behind))
        return heads, freed
