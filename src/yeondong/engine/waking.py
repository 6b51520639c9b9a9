"""How a flow's thread waits, and how its lanes and others end that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from yeondong.engine.plan import Bell


class Waking:
    """A flow waits in its source, for something to receive, or on its bell, for its lanes."""

    def __init__(self, bell: Bell, wake_source: Callable[[], None]) -> None:
        self._bell = bell
        self._wake_source = wake_source
        self._receiving = False
        self._waiting = False

    def wait(self, seconds: float, ready: Callable[[], bool]) -> None:
        """Wait for the lanes, or for a wake-up, unless there are results ``ready``."""
        self._waiting = True
        if not ready():
            self._bell.wait(seconds)
        self._bell.clear()
        self._waiting = False

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """While the flow may wait in its source, a lane's result wakes that."""
        self._receiving = True
        try:
            yield
        finally:
            self._receiving = False

    def ring(self) -> None:
        """Tell of a result. The lanes' threads call it."""
        # The flow sets its mark before it looks at the results, and a lane adds its result before it looks at the mark:
        # whichever comes first, one of them sees the other.
        if self._receiving:
            self._wake_source()
        elif self._waiting:
            self._bell.set()

    def wake(self) -> None:
        """End the current wait, or the next one on the bell. Any thread may call it."""
        self._bell.set()
        if self._receiving:
            self._wake_source()
