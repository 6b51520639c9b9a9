"""Tells a process that somebody may have committed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

POLL_SECONDS: Final = 0.5


def watch(wake: Callable[[], None]) -> Callable[[], None]:
    """Call ``wake`` now and then; return a function that ends it."""
    over = threading.Event()

    def look() -> None:
        wake()
        while not over.wait(POLL_SECONDS):
            wake()

    threading.Thread(target=look, name="postgresql watcher", daemon=True).start()
    return over.set
