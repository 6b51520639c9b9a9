"""The process that the acceptance tests start, kill and pause: a worker for the app of a factory."""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from yeondong import Yeondong
from yeondong.app.assembly import make_worker
from yeondong.connections.sqlite import sqlite_file
from yeondong.core.failpoint import Failpoint, never


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pause(app: Yeondong) -> Callable[[], None]:
    """Stop this process; on SQLite between its transactions: with the only write lock it would stop the others too."""
    if not str(app.settings.store or "sqlite").startswith("sqlite"):
        # To this thread, which then goes nowhere before the whole process has stopped.
        return lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def stop_here() -> None:
        with sqlite_file(app.store.address).writing("a pause"):
            # To this thread, as above: it can't leave the block before.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    return stop_here


def at(point: str, act: Callable[[], None]) -> Failpoint:
    """Act when ``NAME:NTH`` is passed for the nth time."""
    name, _, nth = point.partition(":")
    passed = itertools.count(1)

    def failpoint(passing: str) -> None:
        if passing == name and next(passed) == int(nth):
            act()

    return failpoint


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("factory")
    parser.add_argument("parts")
    parser.add_argument("--kill")
    parser.add_argument("--pause")
    parser.add_argument("--max-pages", type=int)
    chosen = parser.parse_args()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s")

    module, _, name = chosen.factory.partition(":")
    app: Yeondong = getattr(importlib.import_module(module), name)()
    if chosen.max_pages is not None:
        sqlite_file(app.store.address).max_pages = chosen.max_pages
    app.store.prepare()
    app.broker.prepare(app.channels())
    app.register()
    failpoint: Failpoint = never
    if chosen.kill is not None:
        failpoint = at(chosen.kill, die)
    elif chosen.pause is not None:
        failpoint = at(chosen.pause, pause(app))
    worker = make_worker(app, chosen.parts, failpoint=failpoint)

    # Blocked before the threads start, which inherit it: the signals wait for sigwait alone.
    asked: Any = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    worker.start()
    os.write(1, b"ready\n")  # what the tests wait for, in one piece between the lines of the log
    signal.sigwait(asked)
    if not worker.stop():
        os._exit(4)


if __name__ == "__main__":
    main()
