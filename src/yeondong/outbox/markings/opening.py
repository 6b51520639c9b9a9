"""What a source of outbox rows has from its open to its close."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from yeondong.core.fence import Fence
from yeondong.core.store import OutboxRows, Session, Store


@dataclass(frozen=True, slots=True)
class Opening:
    """A session of its own, and the right to mark rows."""

    session: Session
    fence: Fence
    unwatch: Callable[[], None]

    @property
    def outbox(self) -> OutboxRows:
        return self.session.outbox

    def close(self) -> None:
        self.unwatch()
        self.session.close()


def opening(store: Store, fence: Fence | None, committed: Callable[[], None]) -> Opening:
    """Open a session and watch for commits."""
    if fence is None:
        raise ValueError("rows of the outbox are marked under a lease: open the source with its fence")
    unwatch = store.watch(committed)  # first, since it may fail and a session would stay open then
    return Opening(store.connect(), fence, unwatch)
