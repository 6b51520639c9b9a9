"""The demo, in short: it succeeds, and it fails when what it shows is taken out of the shop."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from examples.shop.checker import Least, check
from examples.shop.evidence import RECORDER
from examples.shop.place import place_of

ROOT = Path(__file__).parent.parent.parent
SHORT = ("--orders", "120", "--kills", "2", "--outage", "1", "--deadline", "80")
LEAST = Least(orders=120, kills=2)


def run_demo(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.shop", "demo", "--folder", folder, *SHORT, *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return ran.returncode, f"{ran.stdout}\n{ran.stderr}"


def judged_again(folder: Path) -> set[str]:
    """Record once more what stands in the database, and return the promises that are broken by it."""
    ledger = folder / "ledger.jsonl"
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if json.loads(line)["by"] != RECORDER), encoding="utf-8")
    evidence = place_of({}, folder).evidence(ledger)
    evidence.record(ledger)
    evidence.close()
    return {finding.promise for finding in check(ledger, LEAST) if not finding.kept}


def broken(folder: Path) -> dict[str, list[str]]:
    """Return what the checker found broken, by promise."""
    found: dict[str, list[str]] = {}
    for finding in json.loads((folder / "verdict.json").read_text(encoding="utf-8")):
        if not finding["kept"]:
            found.setdefault(finding["promise"], []).append(finding["what"])
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a demo that kept every promise."""
    folder = tmp_path_factory.mktemp("kept") / "demo"
    code, printed = run_demo(folder, "--keep")
    assert code == 0, printed
    assert "every promise was kept" in printed
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("change", "promise"),
    [
        ("delete from search_index where position = 1", "no-loss"),
        ("update sales set orders = orders - 1 where member_id = 1", "no-loss"),
        ("insert into search_index select 10000, order_id, member_id, title from search_index limit 1", "one-effect"),
        ("update sales set orders = orders + 1 where member_id = 1", "one-effect"),
        ("update sales set amount = amount + 1 where member_id = 1", "one-effect"),
        (
            "update search_index set position = -1 where position = (select max(position) from search_index)",
            "key-order",
        ),
        ("insert into search_index values (10000, '1-0005', 1, 'Rolled back')", "no-phantom"),
        ("update yeondong_outbox set status = 'WAITING' where id = 1", "true-accounts"),
        ("delete from yeondong_actions", "true-accounts"),
    ],
)
def test_the_checker_sees_what_was_changed_behind_its_back(
    kept: Path, tmp_path: Path, change: str, promise: str
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(kept, folder)
    assert judged_again(folder) == set()

    database = sqlite3.connect(folder / "shop.db")
    with database:
        assert database.execute(change).rowcount == 1
    database.close()

    assert judged_again(folder) == {promise}


@pytest.mark.timeout(120)
def test_too_little_is_no_success(kept: Path) -> None:
    short = check(kept / "ledger.jsonl", Least(orders=300, kills=3))

    assert {finding.promise for finding in short if not finding.kept} == {"enough happened"}


@pytest.mark.timeout(120)
def test_without_the_inbox_one_effect_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    code, printed = run_demo(folder, "--app", "tests.acceptance.variants.no_inbox")

    assert code == 1, printed
    assert broken(folder).keys() == {"one-effect"}, printed
    assert "orders more than once in search" in broken(folder)["one-effect"]
    assert str(folder) in printed


@pytest.mark.timeout(120)
def test_publishing_before_the_commit_breaks_no_phantom(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    # In a file of its own: in the store's file the order's transaction would keep the broker out.
    code, printed = run_demo(
        folder, "--app", "tests.acceptance.variants.publish_before_commit", YEONDONG_BROKER="sqlite:///broker.db"
    )

    assert code == 1, printed
    assert "orders in search that do not exist" in broken(folder)["no-phantom"], printed
    assert "one-effect" not in broken(folder), printed


def test_the_checker_shares_no_code_with_yeondong() -> None:
    imported = "import sys, examples.shop.checker; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", imported], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "yeondong" not in ran.stdout.split()
