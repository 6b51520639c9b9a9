"""The suite can fail: drivers that break one promise each, and the test that says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
import pytest

from yeondong.messaging.brokers.sqlite import SqliteBroker
from yeondong.messaging.brokers.sqlite.source import SqliteSource
from yeondong.testing.broker_suite import BrokerSuite

{fault}

class TestBroken(BrokerSuite):
    patience_seconds = 1.0

    @pytest.fixture
    def broker(self, tmp_path):
        broker = Broken(str(tmp_path / "broker.db"))
        broker.prepare()
        return broker

    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: Broken(str(tmp_path / "broker.db"))

    @pytest.fixture
    def factory(self, tmp_path):
        return "{module}:Broken", str(tmp_path / "broker.db")
"""

IGNORES_THE_EPOCH = """
class Broken(SqliteBroker):
    def source(self, channel, group):
        return Source(self.address, self.traits, channel, group, self.watch)

class Source(SqliteSource):
    def settle(self, deliveries):
        with self._link.transaction("settle") as connection:
            connection.execute(
                "UPDATE yeondong_broker_groups SET position = max(position, ?) WHERE channel = ? AND name = ?",
                (deliveries[-1].receipt if deliveries else 0, self._channel, self._group),
            )
"""

LOSES_WHAT_IS_GIVEN_BACK = """
class Broken(SqliteBroker):
    def source(self, channel, group):
        return Source(self.address, self.traits, channel, group, self.watch)

class Source(SqliteSource):
    def give_back(self, deliveries):
        pass
"""

SETTLES_WHEN_IT_LENDS = """
class Broken(SqliteBroker):
    def source(self, channel, group):
        return Source(self.address, self.traits, channel, group, self.watch)

class Source(SqliteSource):
    def receive(self, limit, wait_seconds):
        found = super().receive(limit, wait_seconds)
        self.settle(found)
        return found
"""

SAYS_SENT_TOO_EARLY = """
class Broken(SqliteBroker):
    def sink(self):
        return Sink(super().sink())

class Sink:
    def __init__(self, sink):
        self._sink = sink
        self._kept = []
        self.traits = sink.traits
        self.open, self.check = sink.open, sink.check

    def send(self, messages, deadline):
        if len(messages) != 20:
            return self._sink.send(messages, deadline)
        self._kept += messages
        if len(self._kept) < 60:
            return []
        kept, self._kept = self._kept, []
        return self._sink.send(kept, deadline)

    def close(self):
        if self._kept:
            self._sink.send(self._kept, 1e12)
        self._sink.close()
"""

KILLED = "test_a_killed_receiver_loses_nothing_that_it_had_not_settled"
FAULTS = {
    "ignores the epoch": (
        IGNORES_THE_EPOCH,
        {"test_a_reader_with_an_older_lease_forgets_nothing", "test_an_open_source_of_a_forgotten_group_says_so"},
    ),
    "loses what is given back": (
        LOSES_WHAT_IS_GIVEN_BACK,
        {
            "test_what_is_given_back_is_lent_again_in_order",
            "test_what_is_given_back_can_be_settled_after_it_was_lent_again",
        },
    ),
    "settles when it lends": (
        SETTLES_WHEN_IT_LENDS,
        {KILLED, "test_what_is_unsettled_comes_again_to_whoever_opens_next"},
    ),
    "says that it sent too early": (SAYS_SENT_TOO_EARLY, {"test_a_killed_sender_loses_nothing_that_was_sent"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_driver_fails_the_suite(fault: str, tmp_path: Path) -> None:
    code, expected = FAULTS[fault]
    driver = tmp_path / "test_broken_driver.py"
    driver.write_text(DRIVER.format(fault=code, module=driver.stem))

    assert run_suite(driver, expected) == expected


def test_the_same_tests_pass_without_a_fault(tmp_path: Path) -> None:
    driver = tmp_path / "test_sound_driver.py"
    driver.write_text(DRIVER.format(fault="Broken = SqliteBroker", module=driver.stem))

    assert run_suite(driver, {name for _, names in FAULTS.values() for name in names}) == set()


def run_suite(driver: Path, names: set[str]) -> set[str]:
    """Run these tests on a driver as its author would; return the names of those that failed."""
    options = ["-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-k", " or ".join(names)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, driver.name],
        cwd=driver.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(driver.parent), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "passed" in done.stdout or "failed" in done.stdout, done.stdout
    return set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
