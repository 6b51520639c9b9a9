"""Which commits are under way, and what Kafka answered."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

COMMIT_SECONDS: Final = 0.2
"""How often offsets are committed: what a killed process has settled since then is lent again."""

ANSWER_SECONDS: Final = 5.0
"""After how long a question without an answer is asked again."""

# ILLEGAL_GENERATION is none of them: while others join or leave, it is said of a commit that was under way just then.
EXPELLED: Final = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.GROUP_ID_NOT_FOUND,
    }
)


class Commits:
    """The commits of one opening: when the next one is due, and whether Kafka still takes them.

    It answers them in the order in which they were sent.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.asked: int | None = None
        self.asked_for: frozenset[str] | None = None
        self.expelled: KafkaError | None = None
        self._sent = 0
        self._sent_at = 0.0
        self._heard = 0
        self._failed = False

    def due(self, now: float) -> bool:
        return self.wanted and now - self._sent_at >= COMMIT_SECONDS

    def send(self, now: float) -> None:
        self._sent += 1
        self._sent_at = now

    def heard(self, error: KafkaError | None) -> None:
        self._heard += 1
        if error is not None:
            self.wanted = self._failed = True
            if error.code() in EXPELLED:
                self.expelled = error

    def ask(self, partitions: frozenset[str]) -> None:
        """Take the commit just sent as a question whether we are still a member."""
        self.asked, self.asked_for, self._failed = self._sent, partitions, False

    def overdue(self, now: float) -> bool:
        return now - self._sent_at > ANSWER_SECONDS

    def answer(self) -> bool:
        """Whether Kafka has taken everything up to the question."""
        if self.asked is None or self._heard < self.asked:
            return False
        self.asked = None
        return not self._failed
