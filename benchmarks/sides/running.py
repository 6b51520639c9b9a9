"""How a side is run: ``python -m MODULE FUNCTION OPTIONS`` calls the function and prints its figures."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping

POLL_SECONDS = 0.002


def run(*functions: Callable[..., Mapping[str, float]]) -> None:
    """Call the one that the command line names, with the options that it gives."""
    named = {function.__name__: function for function in functions}
    figures = named[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(dict(figures)))


def leave_out() -> None:
    """Leave what was prepared out of the garbage collector's rounds: no application has all its messages at hand."""
    gc.collect()
    gc.freeze()


def wait_for(true: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until it is true; a side that does not get there gives no figure."""
    give_up = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{true} did not become true within {seconds:g} s")
        time.sleep(POLL_SECONDS)
