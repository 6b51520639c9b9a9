"""A wall clock that jumps, as after a correction by hand: nothing depends on it but what is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.acceptance import orders
from tests.acceptance.outages import Customers, Site
from tests.acceptance.world import Process, until
from tests.servers.shared import missing, unique

pytestmark = pytest.mark.timeout(120)

FAKETIME = "libfaketimeMT.so.1"
HOUR, DAY = 3_600, 86_400  # seconds
CHANGED = "tests.acceptance.variants.changed_clock:make"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, kafka: str) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, database, kafka, prefix=f"{unique('clock')}.")
    try:
        yield site
    finally:
        site.end()


class WallClock:
    """The wall clock of the processes that are started with its environment; all other clocks stay as they are."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "clock"
        self.set(0)
        waits = folder / "wall_clock.so"
        compiler = shutil.which("cc")
        if compiler is None:
            missing("a changed clock needs a C compiler; install it: scripts/services install")
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", waits, source], check=True)
        self.environment = {
            "LD_PRELOAD": f"{waits}:{libfaketime()}",
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # the times of files are left alone: imports are slow enough
        }

    def set(self, offset_seconds: int) -> None:
        """Let it jump to that far from the true time."""
        part = self._offset.with_suffix(".part")
        part.write_text(f"{offset_seconds:+d}\n")
        part.rename(self._offset)  # it is read at each look at the clock: never half of it


def libfaketime() -> Path:
    found = sorted(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"))
    if not found:
        missing(f"{FAKETIME} is not installed here; install it: scripts/services install")
    return found[0]


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def start_changed(site: Site, clock: WallClock, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Process]:
    """Starts a worker that lives by the changed clock."""

    def start(parts: str) -> Process:
        with monkeypatch.context() as patch:
            for name, value in clock.environment.items():
                patch.setenv(name, value)
            return site.start(parts, factory=CHANGED)

    return start


def test_flows_go_on_while_the_wall_clock_jumps(
    site: Site, clock: WallClock, start_changed: Callable[[str], Process]
) -> None:
    orders.prepare(orders.make())
    workers = [start_changed("relay"), start_changed("handlers"), site.start("handlers")]
    for worker in workers:
        worker.ready()
    with Customers().ordering() as customers:
        site.under_load()
        for offset_seconds in (HOUR, -HOUR, DAY, 0):
            clock.set(offset_seconds)
            customers.order_on()
            site.apply_on()

    site.recovered()
    site.stop()
    assert site.wrong() == []
    site.blameless()
    for worker in workers:
        assert "lease.lost" not in worker.log()
        assert "flow.paused" not in worker.log()


def test_a_topic_that_goes_by_the_senders_clock_lets_a_wrong_one_wait(
    site: Site, clock: WallClock, start_changed: Callable[[str], Process], kafka: str
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.removeprefix("kafka://")})
    by_sender = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(HOUR * 1000)}
    topic = f"{site.prefix}orders"
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1, config=by_sender)])[topic].result(20)
    orders.prepare(orders.make())
    site.start("handlers").ready()
    relay = start_changed("relay").ready()

    with Customers().ordering():
        site.under_load()
        clock.set(DAY)
        until(lambda: "the clock of this machine is too far from the brokers'" in relay.log(), "the relay says why")
        clock.set(0)

    site.recovered()
    site.stop()
    assert site.wrong() == []
    site.blameless()


def test_the_changed_clock_is_seen_by_the_process_alone(clock: WallClock) -> None:
    clock.set(DAY)
    program = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
    own = subprocess.run(["python3", "-c", program], capture_output=True, text=True, check=True).stdout.split()
    changed = subprocess.run(
        ["python3", "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **clock.environment}
    ).stdout.split()

    apart = [float(there) - float(here) for here, there in zip(own, changed, strict=True)]
    assert [abs(seconds - expected) < 5 for seconds, expected in zip(apart, (DAY, 0, 0), strict=True)] == [True] * 3
