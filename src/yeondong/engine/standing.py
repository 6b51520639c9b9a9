"""How a flow stands: its state, since when and why, and when it goes on after an outage."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from yeondong.core.clock import Clock

log = logging.getLogger("yeondong.engine")

OUTAGE_FIRST_SECONDS = 0.1
OUTAGE_MOST_SECONDS = 5.0


class Standing:
    """The state that status shows. Read from any thread, changed by the flow's own."""

    def __init__(self, flow: str, clock: Clock, random: Callable[[], float]) -> None:
        self._flow = flow
        self._clock = clock
        self._random = random
        self._outages = 0
        self._stuck = False
        self.state = "standby"
        self.reason: str | None = None
        self.since = clock.now()
        self.resume_at = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether nothing has gone well since the last outage."""
        return self._outages > 0

    def enter(self, state: str, reason: str | None = None, since: datetime | None = None) -> None:
        """Change the state; one log line for each change. ``since`` is now, if it is not known better."""
        if state != self.state:
            self.since = since if since is not None else self._clock.now()
            level = logging.INFO if state in ("running", "standby") else logging.WARNING
            log.log(level, "flow.%s flow=%r reason=%r", state, self._flow, reason)
        # Of an exception's text nobody knows what is in it, and status has to be able to store it.
        self.state, self.reason = state, None if reason is None else reason.encode("utf-8", "backslashreplace").decode()

    def outage(self, reason: str) -> None:
        """Pause, longer each time. No attempt is counted and nothing is given up."""
        doubled = OUTAGE_FIRST_SECONDS * 2.0**self._outages
        self._pause("paused", reason, min(OUTAGE_MOST_SECONDS, doubled) * (0.75 + 0.25 * self._random()))

    def stop_for(self, reason: str | None) -> None:
        """Stop for this reason, and go on once there is none."""
        if reason is not None:
            self.enter("stopped", reason)
        elif self._stuck:
            self.enter("running")
        self._stuck = reason is not None

    def recovered(self) -> None:
        """Go on: something went well."""
        self._outages = 0
        if not self._stuck:
            self.enter("running")

    def _pause(self, state: str, reason: str, seconds: float) -> None:
        now = self._clock.elapsed()
        if now >= self.resume_at:  # several lanes tell of one and the same outage
            self._outages = min(self._outages + 1, 10)
        self.resume_at = max(self.resume_at, now + seconds)
        self.enter(state, reason)
