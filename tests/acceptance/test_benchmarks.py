"""The benchmarks run, and say what they found in the agreed form. Speed never decides a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engine, messaging, outbox, outbox_postgresql
from benchmarks.measuring import ROOT, Work, environment
from benchmarks.page import PAGE

WORKS = [work for method in (engine, outbox, outbox_postgresql, messaging) for work in method.works(quick=True)]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_a_work_runs_and_writes_its_figures(work: Work, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    ran = run(work.name.split(".")[0], "--only", work.name, "--json", str(file), "--quick", "--no-install")

    assert ran.returncode == 0, ran.stderr
    lines: list[dict[str, Any]] = json.loads(file.read_text())
    parts = {part.name: part for part in work.parts}
    assert parts.keys() <= {line["work"] for line in lines}
    for line in (line for line in lines if line["work"] in parts):
        assert line.keys() == {"work", "unit", "ours", "peers", "limit", "limit_is", "settings"}
        assert line["work"] in ran.stdout
        assert line["unit"] == parts[line["work"]].unit
        assert line["ours"] >= 0
        assert (line["limit"] is not None) == (work.limit is not None and not line["work"].endswith(".idle"))
        assert line["peers"].keys() | line["settings"]["missing"].keys() == {side.name for side in work.peers}


def test_an_unknown_work_is_named_with_those_that_are_known() -> None:
    ran = run("engine", "--only", "engine.handlers")

    assert ran.returncode == 2
    assert "no work named 'engine.handlers'; known: engine.handler, engine.handler.failpoints" in " ".join(
        ran.stderr.replace("│", " ").split()
    )


@pytest.mark.parametrize("method", ["engine", "outbox", "messaging"])
def test_the_page_has_a_place_for_the_figures(method: str) -> None:
    page = PAGE.read_text()

    assert page.count(f"<!-- figures: {method} -->") == page.count(f"<!-- end: {method} -->") == 1
