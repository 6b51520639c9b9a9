"""The demo on servers: the same shop and the same checker, in a place of its own that is gone afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from examples.shop.checker import Least, check
from examples.shop.on_postgresql import with_search_path
from tests.acceptance.world import until

ROOT = Path(__file__).parents[2]
SEVERAL = ("postgresql", "kafka")


def run_demo(*options: str, **environment: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.shop", "demo", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    return ran.returncode, f"{ran.stdout}\n{ran.stderr}"


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("store", "broker"), [SEVERAL, ("postgresql", "sqlite"), ("sqlite", "kafka")])
def test_the_demo_on(tmp_path: Path, database: str, kafka: str, store: str, broker: str) -> None:
    folder = tmp_path / "demo"
    much = ("--orders", "120", "--kills", "2") if (store, broker) == SEVERAL else ("--orders", "60", "--kills", "1")
    code, printed = run_demo(
        "--folder", str(folder), *much, "--outage", "1", "--session", "2", "--deadline", "150",
        YEONDONG_STORE=database if store == "postgresql" else "",
        YEONDONG_BROKER=kafka if broker == "kafka" else "sqlite:///broker.db",
    )  # fmt: skip

    assert code == 0, printed
    assert "every promise was kept" in printed
    assert not folder.exists()
    assert ("on Kafka" in printed) == (broker == "kafka")
    nothing_is_left(database, kafka, printed)


@pytest.mark.parametrize(
    ("store", "broker", "sentence"),
    [
        ("postgresql://nobody@127.0.0.1:1/shop", "", "name a broker too"),
        ("postgresql://nobody@127.0.0.1:1/shop", "kafka://127.0.0.1:1", "cannot make its schema"),
        ("", "kafka://127.0.0.1:1", "no Kafka answers at 127.0.0.1:1"),
        ("oracle://db/shop", "", "no store 'oracle'"),
        ("", "memory:", "no broker 'memory'"),
    ],
)
def test_where_the_demo_cannot_take_place(tmp_path: Path, store: str, broker: str, sentence: str) -> None:
    code, printed = run_demo("--folder", str(tmp_path / "demo"), YEONDONG_STORE=store, YEONDONG_BROKER=broker)

    assert code == 1
    assert sentence in printed
    assert "Traceback" not in printed


def test_a_ledger_is_enough_to_judge_by(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(json.dumps({"at": 0, "by": "demo", "what": "hung", "reason": "no server answered"}) + "\n")

    broken = {finding.promise for finding in check(ledger, Least()) if not finding.kept}
    assert {"recovers", "enough happened"} <= broken


def test_a_search_path_is_added_to_what_a_url_says() -> None:
    url = "postgresql://shop@db/orders?options=-c%20work_mem%3D8MB"

    assert with_search_path(url, "demo") == f"{url}%20-c%20search_path%3Ddemo"


@pytest.mark.timeout(120)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, database: str, kafka: str) -> None:
    with (tmp_path / "printed").open("wb") as printed:
        demo = subprocess.Popen(
            [sys.executable, "-m", "examples.shop", "demo", "--folder", str(tmp_path / "demo"), "--session", "2"],
            cwd=ROOT,
            env={**os.environ, "YEONDONG_STORE": database, "YEONDONG_BROKER": kafka},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: "killed" in (tmp_path / "printed").read_text(), "it is in the midst of it", seconds=60)
        demo.terminate()
        assert demo.wait(50) == 130, (tmp_path / "printed").read_text()
    finally:
        demo.kill()
    nothing_is_left(database, kafka, (tmp_path / "printed").read_text())


def nothing_is_left(database: str, kafka: str, printed: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'yeondong%'").fetchall() == []
    for prefix in re.findall(r"topics (\S+\.)\* on Kafka", printed):
        admin = AdminClient({"bootstrap.servers": kafka.removeprefix("kafka://"), "log_level": 0})
        assert not [name for name in admin.list_topics(timeout=20).topics if name.startswith(prefix)]
        groups = admin.list_consumer_groups().result(20).valid
        assert not [group.group_id for group in groups if group.group_id.startswith(prefix)]
