"""Named points between the steps where a crash matters.

A failpoint is a function that is called with its name. In production it does nothing; tests pass one that kills the
process, or that counts. It is a parameter, so nothing global can be left armed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Failpoint: TypeAlias = Callable[[str], None]

RECEIVED: Final = "flow.received"
HANDLED: Final = "handler.before_commit"
COMMITTED: Final = "handler.after_commit"
SENDING: Final = "sink.before_send"
SENT: Final = "sink.after_send"
HOLDING: Final = "held.before_put"
HELD: Final = "held.after_put"
SETTLING: Final = "source.before_settle"
SETTLED: Final = "source.after_settle"
SUSPECTED: Final = "suspect.after_write"
LEASED: Final = "lease.after_take"

NAMES: Final = (
    RECEIVED, HANDLED, COMMITTED, SENDING, SENT, HOLDING, HELD, SETTLING, SETTLED, SUSPECTED, LEASED,
)  # fmt: skip


def never(_name: str) -> None:
    """Pass every failpoint."""
