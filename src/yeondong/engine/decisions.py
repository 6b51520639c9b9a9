"""What persons and failures decided about a flow."""

from __future__ import annotations

from yeondong.core.store import Control, Flows

LOOK_SECONDS = 1.0


class Decisions:
    """The flow's row of ``Control``, looked at once a second, and a stop that it decides itself."""

    def __init__(self, flow: str, flows: Flows) -> None:
        self.control = Control()
        self.stop_reason: str | None = None
        self._flow = flow
        self._flows = flows
        self._look_at = 0.0
        self._told = False

    @property
    def hinder(self) -> bool:
        """Whether anything was decided that keeps the flow from running."""
        control = self.control
        return (
            self.stop_reason is not None
            or control.stopped is not None
            or control.paused is not None
            or control.replay is not None
        )

    def look(self, now: float) -> None:
        """Learn what was decided, at most once a second."""
        if now >= self._look_at:
            self.control = self._flows.control(self._flow)
            self._look_at = now + LOOK_SECONDS

    def look_now(self) -> Control:
        """Learn what was decided up to this moment."""
        self.control = self._flows.control(self._flow)
        return self.control

    def look_soon(self) -> None:
        """Look at the next chance: something was changed."""
        self._look_at = 0.0

    def stop_for(self, reason: str) -> None:
        """Decide that the flow stops."""
        self.stop_reason = reason

    def tell_stop(self) -> None:
        """Write it down, before another worker is given what made us stop."""
        if self.stop_reason is not None and not self._told:
            self._flows.stop(self._flow, self.stop_reason)
            self._told = True

    def stopped(self) -> None:
        """Everything is at rest; the stop is now the store's."""
        self.stop_reason = None
        self._told = False
        self.look_soon()
