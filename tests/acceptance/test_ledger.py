"""The ledger of the acceptance checker: many writers, and a reader that never sees half a line."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from examples.shop.ledger import Ledger, Trail


def test_several_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    writers = [multiprocessing.get_context("spawn").Process(target=write, args=(path, f"w{n}")) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    trail = Trail(path)
    trail.follow()
    assert trail.counts == {(f"w{n}", "tries"): 100 for n in range(3)}
    assert [line["order"] for line in trail.lines if line["by"] == "w1"] == list(range(100))


def test_a_line_that_is_not_complete_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path, by="one").write("tries", order="a1")
    with path.open("ab") as file:
        file.write(b'{"by": "two", "wh')

    assert [line["by"] for line in Trail(path).follow()] == ["one"]


def write(path: Path, by: str) -> None:
    ledger = Ledger(path, by)
    for number in range(100):
        ledger.write("tries", order=number)
