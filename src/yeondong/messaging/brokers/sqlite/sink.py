"""Appending to the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from yeondong.core.clock import Clock
from yeondong.core.message import Message
from yeondong.core.sink import Refused
from yeondong.core.traits import Traits
from yeondong.errors import ConnectionLost
from yeondong.messaging.brokers.sqlite.link import Link
from yeondong.messaging.brokers.sqlite.retention import Retention, Room, grow, make_room
from yeondong.messaging.brokers.sqlite.rows import BYTES_COLUMN, INSERT, microseconds, row_of, why_unsendable


class SqliteSink:
    """One transaction for each call of ``send``, on disk when it returns."""

    def __init__(self, path: str, traits: Traits, clock: Clock, retention: Retention, sent: Callable[[], None]) -> None:
        self.traits = traits
        self._path = path
        self._clock = clock
        self._retention = retention
        self._sent = sent
        self._link = Link(path, durable=True)

    def open(self) -> None:
        self._link.rows("SELECT 1")

    def check(self, message: Message) -> str | None:
        return why_unsendable(message)

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        refused: list[Refused] = []
        rows = []
        stored_at = microseconds(self._clock.now())
        for message in messages:
            reason = why_unsendable(message)
            if reason is None:
                rows.append(row_of(message, stored_at))
            else:
                refused.append(Refused(message, reason))
        if rows:
            self._append(rows, deadline)
            self._sent()
        return refused

    def _append(self, rows: Sequence[tuple[Any, ...]], deadline: float) -> None:
        byte_count = sum(row[BYTES_COLUMN] for row in rows)
        room = Room(fits=False)
        while not room.fits:
            self._refuse_late(deadline)
            with self._link.transaction("broker: send") as connection:
                room = make_room(connection, byte_count, self._retention)
                if room.fits:
                    connection.executemany(INSERT, rows)
                    grow(connection, byte_count, len(rows))
                self._refuse_late(deadline)
            # Only now: what made room in vain stays deleted, or every new try would delete it again.
            if room.full is not None:
                raise ConnectionLost("broker", self._path, room.full)

    def _refuse_late(self, deadline: float) -> None:
        if self._clock.elapsed() >= deadline:
            raise ConnectionLost("broker", self._path, "the deadline for sending has passed; nothing was sent")

    def close(self) -> None:
        self._link.close()
