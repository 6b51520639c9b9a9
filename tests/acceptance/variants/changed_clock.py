"""The orders, for a process whose wall clock libfaketime changes."""

from __future__ import annotations

import threading
import time

from tests.acceptance import orders
from yeondong import Yeondong


def make() -> Yeondong:
    # libfaketime 0.9.10 makes clock_nanosleep fail where it leaves the monotonic clocks alone.
    time.sleep = threading.Event().wait  # type: ignore[assignment]
    return orders.make()
