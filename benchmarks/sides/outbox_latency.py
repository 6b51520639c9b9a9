"""From a commit in one process to the handler in another, on a system that is idle otherwise."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.sides.running import run
from yeondong import Event, Transaction, Yeondong
from yeondong.app.assembly import make_worker

PAUSE_SECONDS = (0.1, 0.4)


class Tick(Event, channel="ticks", key="number"):
    number: int


def make_app(path: str, groups: int = 1) -> Yeondong:
    """Declare an outbox and so many subscriptions; each handler says when it was called."""
    app = Yeondong("measured", store=f"sqlite:///{path}")
    app.outbox()
    for group in range(groups):

        @app.subscribe(Tick, group=f"group-{group}")
        def tell(tick: Tick, _tx: Transaction) -> None:
            print(tick.number, time.clock_gettime_ns(time.CLOCK_MONOTONIC), flush=True)

    return app


def work(path: str, groups: int) -> Mapping[str, float]:
    """Be the worker process, as ``yeondong run`` is, until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    app = make_app(path, groups)
    app.store.prepare()
    app.broker.prepare()
    app.register()
    worker = make_worker(app)
    worker.start()
    ended.wait()
    worker.stop()
    return {}


@contextlib.contextmanager
def worker_process(path: str, groups: int) -> Iterator[subprocess.Popen[str]]:
    """Run a worker process meanwhile."""
    options = f'{{"path": "{path}", "groups": {groups}}}'
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sides.outbox_latency", "work", options], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def latency(samples: int) -> Mapping[str, float]:
    """Commit one message at a time, at times that have nothing to do with the pace of the worker's looks."""
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        app = make_app(path)
        app.store.prepare()
        outbox, connection = app.relay, sqlite3.connect(path)
        assert outbox is not None
        with worker_process(path, groups=1) as process, contextlib.closing(connection):
            assert process.stdout is not None
            took = []
            for number in range(samples + 1):
                outbox.add(connection, Tick(number))
                connection.commit()
                committed = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                arrived, at = process.stdout.readline().split()
                assert int(arrived) == number
                took.append((int(at) - committed) / 1_000_000)
                time.sleep(chance.uniform(*PAUSE_SECONDS))
    took = took[1:]  # the first one waited until the worker had started
    return {"p50": statistics.median(took), "p99": sorted(took)[int(len(took) * 0.99)], "most": max(took)}


if __name__ == "__main__":
    run(latency, work)
