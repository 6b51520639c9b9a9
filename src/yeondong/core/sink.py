"""Where messages are sent to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from yeondong.core.message import Message
from yeondong.core.traits import Traits


class Refused(Struct, frozen=True):
    """A message that the system will never take, and why.

    Where the system tells this only after it has taken later messages of the same key, their order is lost: a driver
    whose system may do that sends such keys one message at a time, or checks all it can in ``check``. A message that
    was not sent because an earlier one of its key was refused in the same call comes back too, with ``behind``.
    """

    message: Message
    reason: str
    behind: bool = False


class Sink(Protocol):
    """Takes messages. Used by its lane's thread only."""

    traits: Traits

    def open(self) -> None:
        """Connect. Raises ``ConnectionLost``."""

    def check(self, message: Message) -> str | None:
        """Say why this message can never be sent; local and pure."""

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        """Return when the system has the messages safely, in order; tell which it refused.

        Hands nothing over once ``clock.elapsed()`` has reached ``deadline`` (seconds): it raises ``ConnectionLost``
        instead. On a transient failure it takes back what is not yet sent and raises ``ConnectionLost`` for the whole
        call; the engine sends all of it again, in order, and receivers know a repeat by its id.
        """

    def close(self) -> None:
        """Disconnect. Never raises; twice is harmless."""
