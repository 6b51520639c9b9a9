"""Sending to the broker at once, from the caller's thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from yeondong.core.clock import Clock
from yeondong.core.message import Message
from yeondong.core.sink import Sink
from yeondong.errors import ConnectionLost, MessageRefused, PublishTimedOut

FIRST_SECONDS = 0.05
MOST_SECONDS = 1.0


class Publisher:
    """Sends messages and returns once the broker has them. One sink, opened at first use, for one thread at a time."""

    def __init__(self, make_sink: Callable[[], Sink], clock: Clock) -> None:
        self._make_sink = make_sink
        self._clock = clock
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._sink: Sink | None = None

    def send(self, messages: Sequence[Message], timeout_seconds: float) -> None:
        """Send all, trying again while the broker is away.

        Raises ``MessageRefused`` for what can never be sent (nothing is sent then), ``PublishTimedOut`` after the time.
        """
        deadline = self._clock.elapsed() + timeout_seconds
        if os.getpid() != self._pid:
            # After a fork the parent's lock may be held for ever, and its connection is not ours.
            self._lock, self._pid, self._sink = threading.Lock(), os.getpid(), None
        if not self._lock.acquire(timeout=timeout_seconds):
            raise PublishTimedOut(
                f"{len(messages)} messages waited {timeout_seconds} s for earlier ones; none was sent"
            )
        try:
            self._send(messages, deadline, timeout_seconds)
        finally:
            self._lock.release()

    def _send(self, messages: Sequence[Message], deadline: float, timeout_seconds: float) -> None:
        pause = FIRST_SECONDS
        while True:
            try:
                self._try(messages, deadline)
            except ConnectionLost as lost:
                self._close()
                left = deadline - self._clock.elapsed()
                if left <= 0:
                    raise PublishTimedOut(
                        f"{len(messages)} messages were not confirmed within {timeout_seconds} s: {lost}; "
                        "they may or may not have been taken: send them again, receivers know a repeat by its id"
                    ) from lost
                threading.Event().wait(min(pause, left))
                pause = min(pause * 2, MOST_SECONDS)
            else:
                return

    def _try(self, messages: Sequence[Message], deadline: float) -> None:
        if self._sink is None:
            sink = self._make_sink()
            sink.open()
            self._sink = sink
        for message in messages:
            if (reason := self._sink.check(message)) is not None:
                raise MessageRefused(f"{message.type} {message.id} can never be sent: {reason}")
        refused = self._sink.send(messages, deadline)
        if refused:
            raise MessageRefused(f"{refused[0].message.type} {refused[0].message.id} was refused: {refused[0].reason}")

    def _close(self) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._close()
