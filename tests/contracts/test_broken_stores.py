"""The suite can fail: stores that break one promise each, and the test that says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
import pytest

from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.stores.sqlite import SqliteStore
from yeondong.stores.sqlite import failures, held, inbox, leases, link, outbox, transaction
from yeondong.testing.store_suite import StoreSuite

{fault}

class TestBroken(StoreSuite):
    traits = Traits(
        durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.LEASED, one_writer=True
    )
    patience_seconds = 3.0

    @pytest.fixture
    def store(self, tmp_path):
        store = SqliteStore(str(tmp_path / "store.db"), make=True)
        store.prepare()
        return store

    @pytest.fixture
    def rival(self, store):
        return SqliteStore(store.address)

    @pytest.fixture
    def factory(self, store):
        return "{module}:SqliteStore", store.address
"""

IGNORES_THE_FENCE = """
link.FENCE = "SELECT ?, ?, ?"
link.CLAIM = "SELECT ?, ?, ?, ?"
"""

CALLS_EVERY_ID_NEW = """
class Broken(inbox.SqliteInbox):
    def claim(self, tx, group, ids):
        super().claim(tx, group, ids)
        return set(ids)

from yeondong.stores.sqlite import session
session.SqliteInbox = Broken
"""

GIVES_OUT_WHAT_STANDS_BEHIND = """
outbox.BLOCKED = "SELECT 0"
"""

FORGETS_THE_OLD_EPOCH = """
leases.TAKE = leases.TAKE.replace("max(epoch + 1, excluded.epoch)", "epoch")
"""

BELIEVES_THE_HANDLER = """
from yeondong.connections import sqlite

sqlite.Guard.on = property(lambda guard: False, lambda guard, on: None)

def current(self):
    return not self._ended and self._connection.in_transaction

transaction.SqliteTransaction.current = current
"""

COMMITS_TOO_EARLY = """
claim = inbox.SqliteInbox.claim

def claims(self, tx, group, ids):
    new = claim(self, tx, group, ids)
    tx.connection.guard.on = False
    tx.connection.execute("COMMIT")
    tx.connection.execute("BEGIN")
    tx.connection.execute(transaction.MARK)
    return new

inbox.SqliteInbox.claim = claims
"""

FAULTS = {
    "ignores the fence": (
        IGNORES_THE_FENCE,
        {
            "test_a_worker_that_lost_its_lease_holds_nothing",
            "test_a_worker_that_lost_its_lease_saves_no_position",
            "test_a_relay_that_lost_its_lease_marks_nothing",
            "test_a_worker_whose_partition_another_has_claimed_writes_nothing",
        },
    ),
    "calls every id new": (CALLS_EVERY_ID_NEW, {"test_a_claim_tells_the_new_ids"}),
    "gives out what stands behind a failure": (
        GIVES_OUT_WHAT_STANDS_BEHIND,
        {"test_a_failure_that_blocks_keeps_the_later_rows_of_its_key"},
    ),
    "forgets the old epoch": (
        FORGETS_THE_OLD_EPOCH,
        {"test_an_expired_lease_goes_to_whoever_asks_under_a_higher_epoch"},
    ),
    "believes the handler": (BELIEVES_THE_HANDLER, {"test_a_handler_cannot_end_the_transaction_unnoticed"}),
    "commits too early": (
        COMMITS_TOO_EARLY,
        {
            "test_a_transaction_that_is_rolled_back_leaves_nothing",
            "test_a_process_killed_within_its_transaction_leaves_nothing",
        },
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_store_fails_the_suite(fault: str, tmp_path: Path) -> None:
    code, expected = FAULTS[fault]
    driver = tmp_path / "test_broken_driver.py"
    driver.write_text(DRIVER.format(fault=code, module=driver.stem))

    failed = run_suite(driver, expected)

    assert expected <= failed, f"the suite did not notice: {sorted(expected - failed)}"


def test_the_same_harness_without_a_fault_passes(tmp_path: Path) -> None:
    driver = tmp_path / "test_sound_driver.py"
    driver.write_text(DRIVER.format(fault="", module=driver.stem))

    assert run_suite(driver, {name for _, expected in FAULTS.values() for name in expected}) == set()


def run_suite(driver: Path, names: set[str]) -> set[str]:
    """Run tests of a driver as its author would; return the names of those that failed."""
    options = ["-q", "-rfE", "-p", "no:cacheprovider", "--tb=no", "-k", " or ".join(sorted(names))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, driver.name],
        cwd=driver.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(driver.parent), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert " passed" in done.stdout or " failed" in done.stdout, done.stdout
    return set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
