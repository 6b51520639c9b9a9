"""What a worker costs that has nothing to do, and what a relay keeps in memory that has a lot to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.sides.outbox_latency import make_app, worker_process
from benchmarks.sides.outbox_sqlite import Order, fill
from benchmarks.sides.running import run, wait_for
from yeondong import Yeondong
from yeondong.app.assembly import make_worker
from yeondong.app.declared import Marking

SETTLE_SECONDS = 3.0
SUBSCRIPTIONS = 3


def idle(seconds: float) -> Mapping[str, float]:
    """Say how much of a core a worker uses that has a relay, three subscriptions and no messages."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        make_app(path).store.prepare()
        with worker_process(path, SUBSCRIPTIONS) as process:
            time.sleep(SETTLE_SECONDS)
            before, began = _cpu_seconds(process.pid), time.monotonic()
            time.sleep(seconds)
            used, passed = _cpu_seconds(process.pid) - before, time.monotonic() - began
    return {"percent": 100 * used / passed}


def memory(rows: int, seconds: float, marking: Marking) -> Mapping[str, float]:
    """Return the peak of a relay's memory while a million rows wait, and how many it sent meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        fill(Yeondong("measured", store=f"sqlite:///{path}"), path, rows, size=100)
        options = f'{{"path": "{path}", "seconds": {seconds}, "marking": "{marking}"}}'
        # A process of its own, so that what filled the table is not counted.
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.sides.outbox_footprint", "drain", options],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        figures: Mapping[str, float] = json.loads(ended.stdout)
        return figures


def drain(path: str, seconds: float, marking: Marking) -> Mapping[str, float]:
    """Relay for a while into the SQLite broker of the same file, and tell the peak of memory."""
    app = Yeondong("measured", store=f"sqlite:///{path}")
    app.sends(Order)
    app.outbox(marking=marking)
    app.broker.prepare()
    worker = make_worker(app, "relay")
    worker.start()
    flow = worker.flows[0]
    wait_for(lambda: flow.handled > 0)
    time.sleep(seconds)
    assert flow.handled > 0
    peak = _peak_megabytes(os.getpid())
    worker.stop()
    return {"megabytes": peak, "sent": flow.handled}


def _cpu_seconds(pid: int) -> float:
    # The name of the program, in brackets, may hold anything: what follows it is numbers.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    run(idle, memory, drain)
