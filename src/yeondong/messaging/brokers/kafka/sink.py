"""Sending to topics: in order, and known to be safe when it returns."""

# ruff: noqa: SLF001 - librdkafka's own error codes begin with an underscore

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from confluent_kafka import KafkaError

from yeondong.core.clock import Clock
from yeondong.core.message import Message, order_key
from yeondong.core.sink import Refused
from yeondong.core.traits import Traits
from yeondong.errors import ConnectionLost, StoreError
from yeondong.messaging.brokers.kafka.client import SYSTEM, Cluster
from yeondong.messaging.brokers.kafka.limits import Limits
from yeondong.messaging.brokers.kafka.line import Line
from yeondong.messaging.brokers.kafka.topics import Topic

CONNECT_SECONDS: Final = 5.0
EXPLAIN_SECONDS: Final = 1.0
MADE_SECONDS: Final = 1.0

TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
SINGLY: Final = TOO_LARGE | {KafkaError.INVALID_RECORD, KafkaError._INVALID_DIFFERENT_RECORD}
"""What the brokers say of a whole batch: which message is meant is found by sending them one by one."""

BEHIND: Final = "an earlier message of its key was refused"

Look: TypeAlias = Callable[[Collection[str], float], Mapping[str, Topic]]


class KafkaSink:
    """One list at a time through one producer, which is replaced after a failure.

    A topic that was never usable here refuses its messages. One that was, and is no longer, is an outage: nothing is
    parked because somebody deleted a topic.
    """

    def __init__(
        self, cluster: Cluster, traits: Traits, limits: Limits, look: Look, *, clock: Clock, patience_seconds: float
    ) -> None:
        self.traits = traits
        self._cluster = cluster
        self._limits = limits
        self._look = look
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._batch_bytes = limits.message_bytes
        self._usable: dict[str, str] = {}
        self._missing: frozenset[str] = frozenset()
        self._line: Line | None = None

    def open(self) -> None:
        self._live(self._patience_seconds)

    def check(self, message: Message) -> str | None:
        return self._limits.why_unsendable(message)

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        """Wait for the brokers for half a lease at most, so that an outage is told while there is time."""
        refused, sendable = self._sorted(messages, deadline)
        error = self._hand_over(sendable, deadline) if sendable else None
        if error is None:
            return refused
        if error.code() not in SINGLY:
            raise self._lost(error, sendable)
        if error.code() in TOO_LARGE:  # maybe of the batch alone: the next ones are smaller
            self._batch_bytes = max(self._batch_bytes // 2, 1)
        return [*refused, *self._singly(sendable, deadline)]

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.drop()

    # --- what can be sent ---------------------------------------------------------------------------------------------

    def _sorted(self, messages: Sequence[Message], deadline: float) -> tuple[list[Refused], Sequence[Message]]:
        """Split off what can never be sent, with what stands behind it."""
        self._left(deadline)
        new = {message.channel for message in messages} - self._usable.keys()
        reasons = self._unusable(new, deadline) if new else {}
        check = self._limits.why_unsendable
        if not reasons and not any(map(check, messages)):
            return [], messages
        refused: list[Refused] = []
        sendable: list[Message] = []
        blocked: set[tuple[str, ...]] = set()
        for message in messages:
            reason = check(message) or reasons.get(message.channel)
            if reason is not None:
                blocked.add(order_key(message))
                refused.append(Refused(message, reason))
            elif order_key(message) in blocked:
                refused.append(Refused(message, BEHIND, behind=True))
            else:
                sendable.append(message)
        return refused, sendable

    def _unusable(self, channels: Collection[str], deadline: float) -> Mapping[str, str]:
        """Ask about channels that are new here; say why some cannot be used."""
        named = {channel: self._cluster.topic(channel) for channel in channels}
        found = self._found(named.values(), deadline)
        reasons = {channel: found[topic].why_unwritable() for channel, topic in named.items()}
        self._usable.update({channel: topic for channel, topic in named.items() if reasons[channel] is None})
        return {channel: reason for channel, reason in reasons.items() if reason is not None}

    def _found(self, names: Collection[str], deadline: float) -> Mapping[str, Topic]:
        """Ask about topics, for a while about one that is missing: not every broker knows at once what was made."""
        give_up = self._clock.elapsed() + MADE_SECONDS
        while True:
            found = self._look(names, self._left(deadline))
            missing = {topic.name for topic in found.values() if topic.missing}
            if missing <= self._missing or self._clock.elapsed() > give_up:
                self._missing = (self._missing | missing) - (found.keys() - missing)
                return found
            threading.Event().wait(0.05)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _hand_over(self, messages: Sequence[Message], deadline: float) -> KafkaError | None:
        """Send and wait until all is safe. Else nothing of it is left here, and the producer is gone."""
        line = self._live(self._left(deadline))
        give_up = min(deadline, self._clock.elapsed() + line.patience_seconds)
        error: KafkaError | None = KafkaError(KafkaError._FAIL)  # whatever is raised below counts as one
        try:
            error = line.send(messages, self._usable, partial(self._left, give_up))
        finally:
            if error is not None:
                self.close()
        return error

    def _singly(self, messages: Sequence[Message], deadline: float) -> list[Refused]:
        refused: list[Refused] = []
        blocked: set[tuple[str, ...]] = set()
        for message in messages:
            if order_key(message) in blocked:
                refused.append(Refused(message, BEHIND, behind=True))
                continue
            error = self._hand_over([message], deadline)
            if error is not None and error.code() not in SINGLY:
                raise self._lost(error, [message])
            if error is not None:
                blocked.add(order_key(message))
                refused.append(Refused(message, f"the broker refuses it: {error.str()}"))
        return refused

    def _live(self, left: float) -> Line:
        """Return a producer that keeps nothing for longer than what is left of the lease, or of the caller's time."""
        line = self._line
        most = self._patience_seconds
        if line is not None and line.pid == os.getpid() and min(most, left / 2) <= line.seconds <= left:
            return line
        self.close()
        seconds = most if left >= most else 0.9 * left
        line = Line(
            self._cluster, seconds=seconds, batch_bytes=self._batch_bytes, message_bytes=self._limits.message_bytes
        )
        line.connect(min(left, CONNECT_SECONDS))
        self._line = line
        return line

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock.elapsed()
        if left <= 0:
            raise ConnectionLost(SYSTEM, self._cluster.address, "the time for sending is over; it is sent again")
        return left

    def _lost(self, error: KafkaError, messages: Sequence[Message]) -> ConnectionLost:
        """Say why nothing got through: the topics are asked, since a producer waits long for one that is gone."""
        if error.code() == KafkaError.INVALID_TIMESTAMP:
            return self._cluster.lost(
                "the clock of this machine is too far from the brokers' (message.timestamp.after.max.ms and "
                "message.timestamp.before.max.ms of the topic); set it right, or let the topic have "
                "message.timestamp.type=LogAppendTime"
            )
        topics = {self._usable[message.channel] for message in messages}
        try:
            found = self._look(topics, EXPLAIN_SECONDS)
        except (ConnectionLost, StoreError) as away:
            return self._cluster.lost(away.reason if isinstance(away, ConnectionLost) else away)
        wrong = [reason for topic in found.values() if (reason := topic.why_unwritable()) is not None]
        return self._cluster.lost("; ".join(wrong) or error)
