"""The demo, in short: it succeeds, and it fails when what it shows is taken out of the shop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHORT = ("--orders", "60", "--kills", "1", "--outage", "1", "--deadline", "60")


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


def broken(folder: Path) -> dict[str, list[str]]:
    """Return what the checker found broken, by promise."""
    found: dict[str, list[str]] = {}
    for finding in json.loads((folder / "verdict.json").read_text(encoding="utf-8")):
        if not finding["kept"]:
            found.setdefault(finding["promise"], []).append(finding["what"])
    return found


@pytest.mark.timeout(120)
def test_every_promise_is_kept_and_the_files_are_removed(tmp_path: Path) -> None:
    code, printed = run_demo(tmp_path / "demo")

    assert code == 0, printed
    assert "every promise was kept" in printed
    assert not (tmp_path / "demo").exists()


@pytest.mark.timeout(120)
def test_without_the_inbox_one_effect_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    code, printed = run_demo(folder, "--app", "tests.acceptance.variants.no_inbox")

    assert code == 1, printed
    assert broken(folder).keys() == {"one-effect"}, printed
    assert "orders indexed more than once" in broken(folder)["one-effect"]
    assert str(folder) in printed


@pytest.mark.timeout(120)
def test_publishing_before_the_commit_breaks_no_phantom(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    # In a file of its own: in the store's file the order's transaction would keep the broker out.
    code, printed = run_demo(
        folder, "--app", "tests.acceptance.variants.publish_before_commit", YEONDONG_BROKER="sqlite:///broker.db"
    )

    assert code == 1, printed
    assert "orders indexed that do not exist" in broken(folder)["no-phantom"], printed
    assert "one-effect" not in broken(folder), printed
