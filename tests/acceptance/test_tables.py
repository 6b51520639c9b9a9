"""`yeondong db`: the tables of the store and of the broker, in one file or in two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
from yeondong import Yeondong

app = Yeondong("shop", store="sqlite:///company.db"{broker})
app.outbox(marking="{marking}")
"""


def write(folder: Path, *, broker: str = "", marking: str = "status") -> None:
    (folder / "shop.py").write_text(SHOP.format(broker=broker, marking=marking), encoding="utf-8")


def db(folder: Path, command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "yeondong", "db", command, "shop"],
        cwd=folder, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("broker", ["", ', broker="sqlite:///log.db"'])
def test_both_systems_tables_are_printed_created_and_checked(tmp_path: Path, broker: str) -> None:
    write(tmp_path, broker=broker)

    assert "CREATE TABLE IF NOT EXISTS yeondong_broker_log" in db(tmp_path, "sql")[1]
    assert db(tmp_path, "check")[0] == 1
    created = db(tmp_path, "create")[1]
    assert "created yeondong_outbox\n" in created
    assert "created yeondong_broker_log\n" in created
    assert db(tmp_path, "check")[0] == 0


def test_a_broker_without_tables_needs_none(tmp_path: Path) -> None:
    write(tmp_path, broker=', broker="memory:"')

    assert "broker" not in db(tmp_path, "sql")[1]
    assert db(tmp_path, "create")[0] == 0
    assert db(tmp_path, "check")[0] == 0


@pytest.mark.parametrize(("marking", "code"), [("status", 0), ("position", 1)])
def test_a_missing_view_is_said_and_created(tmp_path: Path, marking: str, code: int) -> None:
    write(tmp_path, marking=marking)
    db(tmp_path, "create")
    drop = "import sqlite3; sqlite3.connect('company.db').execute('DROP VIEW yeondong_outbox_status')"
    subprocess.run([sys.executable, "-c", drop], cwd=tmp_path, check=True)

    found, said = db(tmp_path, "check")

    assert found == code
    assert "view yeondong_outbox_status" in said
    assert "created yeondong_outbox_status" in db(tmp_path, "create")[1]
    assert "view yeondong" not in db(tmp_path, "check")[1]
