"""The broker itself: makes sinks and sources, and wakes who waits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from yeondong.connections.sqlite import sqlite_file
from yeondong.core.broker import GroupLag, Receiver, Since
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.messaging.brokers.sqlite import groups, schema
from yeondong.messaging.brokers.sqlite.link import Link, linked
from yeondong.messaging.brokers.sqlite.retention import Retention, sweep_age, sweep_size
from yeondong.messaging.brokers.sqlite.rows import MAX_BYTES
from yeondong.messaging.brokers.sqlite.sink import SqliteSink
from yeondong.messaging.brokers.sqlite.source import SqliteSource

TRAITS: Final = Traits(
    durable=True,
    order=Order.CHANNEL,
    settles=Settles.PREFIX,
    partitions=Partitions.LEASED,
    max_bytes=MAX_BYTES,
    replay=True,
)


class SqliteBroker:
    """A durable log in one SQLite file, for all processes of one machine.

    What ``send`` returned for is on disk. Each group has its own position, moved only by the holder of its lease. The
    file may be the store's: the tables have names of their own, and no transaction is shared. With ``make`` the tables
    are made in any file; without it in one that is missing, empty, or has tables of yeondong already.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> broker = SqliteBroker(f"{folder.name}/broker.db", retention=Retention(max_bytes=64 << 20))
    >>> broker.prepare()
    >>> broker.groups()
    []
    >>> folder.cleanup()
    """

    traits = TRAITS

    def __init__(
        self, path: str, *, make: bool = False, clock: Clock | None = None, retention: Retention | None = None
    ) -> None:
        self.address = os.path.realpath(path)
        self._make = make
        self._clock = clock or SystemClock()
        self._retention = retention or Retention()
        self._wakes: dict[object, Callable[[], None]] = {}
        self._pid = os.getpid()

    def prepare(self, channels: Collection[str] = ()) -> None:
        """Make the file and the tables that are missing.

        Raises ``NotADatabase``, ``ReadOnlyStore``, ``SchemaMissing`` or ``SchemaMismatch`` and changes nothing then.
        """
        with linked(self.address, durable=True) as link:
            schema.prepare(link, make=self._make)

    def statements(self) -> Sequence[str]:
        return schema.statements()

    def create(self, channels: Collection[str] = ()) -> Sequence[str]:
        with linked(self.address, durable=True) as link:
            return schema.create(link)

    def check(self, channels: Collection[str] = ()) -> Sequence[str]:
        return schema.check(sqlite_file(self.address))

    def sink(self) -> SqliteSink:
        return SqliteSink(self.address, self.traits, self._clock, self._retention, self._wake_all)

    def source(self, channel: str, group: str) -> SqliteSource:
        return SqliteSource(self.address, self.traits, channel, group, self.watch)

    def register(self, app: str, receivers: Sequence[Receiver], since: Callable[[str, str], Since]) -> None:
        with linked(self.address, durable=True) as link:
            groups.register(link, app, receivers, since, self._clock.now())

    def receivers(self) -> Sequence[Receiver]:
        with self._looking() as link:
            return [] if link is None else groups.receivers(link)

    def groups(self) -> Sequence[GroupLag]:
        with self._looking() as link:
            return [] if link is None else groups.progress(link)

    def forget(self, channel: str, group: str) -> bool:
        with linked(self.address, durable=True) as link:
            return groups.forget(link, channel, group)

    def rewind(self, channel: str, group: str, start: str) -> int:
        """Raise ``UnknownName`` for a group that is not there, ``DeclarationError`` for no time."""
        with linked(self.address, durable=True) as link:
            repeated = groups.rewind(link, channel, group, start)
        self._wake_all()
        return repeated

    def repeats(self, channel: str, group: str, start: str) -> int:
        with self._looking() as link:
            return 0 if link is None else groups.repeats(link, channel, group, start)

    def sweep(self) -> int:
        with linked(self.address, durable=False) as link:
            return sweep_age(link, self._clock.now(), self._retention.age) + sweep_size(link, self._retention)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` at once after this broker object sent, and within about 50 ms after another process did."""
        self._forget_parent()
        token = object()
        self._wakes[token] = wake
        end_watch = sqlite_file(self.address).watch(wake)
        pid = os.getpid()

        def unwatch() -> None:
            self._wakes.pop(token, None)
            if pid == os.getpid():
                end_watch()

        return unwatch

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Link | None]:
        """Give a link, or None where nobody has made the tables: looking makes neither them nor the file."""
        if sqlite_file(self.address).empty():
            yield None
            return
        with linked(self.address, durable=False) as link:
            yield link if schema.is_there(link) else None

    def _wake_all(self) -> None:
        self._forget_parent()
        for wake in list(self._wakes.values()):
            wake()

    def _forget_parent(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._wakes = {}

    def close(self) -> None:
        """Nothing to do: sinks and sources have their own connections, everything else opens one for its call."""
