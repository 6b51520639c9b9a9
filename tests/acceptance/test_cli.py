"""The command line as processes: what a person types, what comes back, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

PATIENCE_SECONDS = 30.0

SHOP = """
import os
import pathlib
import time
from datetime import timedelta

from yeondong import Backoff, Command, Event, Transaction, Yeondong

app = Yeondong("shop")
outbox = app.outbox()
SOON = Backoff(timedelta(milliseconds=5), timedelta(milliseconds=10))


class OrderPlaced(Event, channel="orders", key="order_id"):
    order_id: int
    amount: int


class GrantPoints(Command, channel="points", key="member_id"):
    member_id: int
    points: int


@app.subscribe(OrderPlaced, group="search", attempts=2, backoff=SOON)
def index(order: OrderPlaced, tx: Transaction) -> None:
    tx.execute("insert into search (order_id, amount) values (:order_id, :amount)", order)
    if order.amount < 0 and not os.path.exists("repaired"):
        raise ValueError(f"amount of {order.order_id} is negative")


@app.handle(GrantPoints, attempts=1, on_failure="stop")
def grant(command: GrantPoints) -> None:
    pathlib.Path("granting").touch()
    if command.points == 0:
        raise ValueError("no points to grant")
    while command.points > 1000 and not os.path.exists("enough"):
        time.sleep(0.01)


def place(*orders):
    with app.transaction() as tx:
        tx.execute("create table if not exists search (order_id, amount)")
        outbox.add(tx, *(OrderPlaced(order_id=number, amount=amount) for number, amount in orders))


def grant_points(member_id, points):
    with app.transaction() as tx:
        outbox.add(tx, GrantPoints(member_id=member_id, points=points))
"""


class Shop:
    """A small app in a folder of its own, used through its command line alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("YEONDONG_")}
        self.environ |= {"YEONDONG_LEASE_SECONDS": "2", "YEONDONG_HEARTBEAT_SECONDS": "0.2"}
        (folder / "shop.py").write_text(SHOP)

    def __call__(self, *words: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "yeondong", *words],
            cwd=self.folder,
            env=self.environ | environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command, and wait until a worker says that it is ready."""
        process = self.spawn(*words, **environ)
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("running "):
            assert line, f"it ended: {process.communicate()[1]}"
        return process

    def spawn(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "yeondong", *words],
            cwd=self.folder,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def python(self, code: str) -> None:
        """Do what the application itself does."""
        subprocess.run(
            [sys.executable, "-c", f"import shop; {code}"],
            cwd=self.folder,
            env=self.environ,
            check=True,
            timeout=PATIENCE_SECONDS,
        )

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self("status", "shop", "--json").stdout))

    def flow(self, name: str) -> dict[str, Any]:
        return next(flow for flow in self.status()["flows"] if flow["flow"] == name)

    def failures(self) -> list[dict[str, Any]]:
        return list(json.loads(self("failures", "list", "shop", "--json").stdout)["failures"])

    def indexed(self) -> list[tuple[int, int]]:
        connection = sqlite3.connect(self.folder / "shop.db")
        try:
            return connection.execute("SELECT order_id, amount FROM search ORDER BY order_id, rowid").fetchall()
        finally:
            connection.close()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    try:
        yield shop
    finally:
        shop.end()


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition, and return what it gave."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return found


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    """Send a signal, and return exit code and what was said on standard error."""
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_SECONDS)[1]
    return process.returncode, said


# --- running ----------------------------------------------------------------------------------------------------------


def test_run_says_what_it_made_and_what_it_runs_and_handles_messages(shop: Shop) -> None:
    process = shop.spawn("run", "shop")
    assert process.stdout is not None
    assert process.stdout.readline().strip() == f"made {shop.folder}/shop.db with yeondong's tables"
    assert process.stdout.readline().strip() == "running 3 flows of shop: outbox, orders/search, points/shop"

    shop.python("shop.place((1, 10), (2, 20))")

    until(lambda: shop.indexed() == [(1, 10), (2, 20)])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_worker_safely(shop: Shop, number: int) -> None:
    process = shop.start("run", "shop")

    code, said = stop(process, number)

    assert code == 0
    assert "stopped: everything in work was finished or given back" in said
    assert "Traceback" not in said
    assert shop.status()["workers"] == []


def test_what_is_in_work_is_finished_before_a_worker_stops(shop: Shop) -> None:
    process = shop.start("run", "shop")
    shop.python("shop.grant_points(7, 5000)")
    until((shop.folder / "granting").exists)

    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    until(lambda: "stopping" in process.stderr.readline())  # type: ignore[union-attr]
    (shop.folder / "enough").touch()

    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert shop.flow("points/shop")["backlog"] == 0


def test_a_handler_that_does_not_end_within_the_grace_period_is_told(shop: Shop) -> None:
    process = shop.start("run", "shop", YEONDONG_GRACE_SECONDS="0.1")
    shop.python("shop.grant_points(7, 5000)")
    until((shop.folder / "granting").exists)

    code, said = stop(process)

    assert code == 4
    assert "still at work in points/shop" in said
    assert shop.flow("points/shop")["backlog"] == 1


def test_a_second_interrupt_ends_at_once(shop: Shop) -> None:
    process = shop.start("run", "shop")
    shop.python("shop.grant_points(7, 5000)")
    until((shop.folder / "granting").exists)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    until(lambda: "stopping" in process.stderr.readline())  # type: ignore[union-attr]

    code, said = stop(process, signal.SIGINT)

    assert code == 130
    assert "ended at once" in said


def test_the_relay_alone_sends_and_a_worker_without_it_handles(shop: Shop) -> None:
    relay = shop.spawn("relay", "shop")
    assert relay.stdout is not None
    until(lambda: "running 1 flow of shop: outbox" in relay.stdout.readline())  # type: ignore[union-attr]
    shop.python("shop.place((1, 10))")
    until(lambda: shop.flow("orders/search")["backlog"] == 1)

    shop.start("run", "shop", "--no-relay")

    until(lambda: shop.indexed() == [(1, 10)])


def test_logs_go_to_standard_error_and_quiet_silences_them(shop: Shop) -> None:
    loud, quiet = shop.start("run", "shop"), shop.start("run", "shop", "-q")

    assert "flow.running flow='outbox'" in stop(loud)[1]
    assert "INFO" not in stop(quiet)[1]


# --- looking ----------------------------------------------------------------------------------------------------------


def test_status_of_a_folder_without_a_store_makes_none(shop: Shop) -> None:
    told = shop("status", "shop")

    assert told.returncode == 3
    assert told.stderr.startswith(f"yeondong: there is no store at {shop.folder}/shop.db yet")
    assert not (shop.folder / "shop.db").exists()


def test_status_is_well_while_a_worker_lives_and_says_when_none_does(shop: Shop) -> None:
    process = shop.start("run", "shop")
    until(lambda: shop("status", "shop").returncode == 0)

    process.kill()
    process.wait()

    told = until(lambda: (found := shop("status", "shop")).returncode == 5 and found)
    assert "NO worker of shop is alive: the last one was seen" in told.stdout
    assert shop("status", "shop", "--fail-on", "down").returncode == 5


def test_status_names_a_flow_that_no_live_worker_has(shop: Shop) -> None:
    shop.start("run", "shop", "--no-relay")

    told = until(lambda: (found := shop("status", "shop")).returncode == 5 and "no live" in found.stdout and found)

    assert "no live worker has outbox" in told.stdout
    assert "yeondong relay shop" in told.stdout


def test_status_fits_a_pipe_of_80_columns(shop: Shop) -> None:
    shop.start("run", "shop")

    lines = until(lambda: (found := shop("status", "shop")).returncode == 0 and found).stdout.splitlines()

    assert any(line.startswith("orders/search") for line in lines)
    assert max(len(line) for line in lines if not line.startswith("store ")) <= 80
    assert "\x1b" not in "".join(lines)


def test_status_counts_a_backlog_that_no_worker_has_seen(shop: Shop) -> None:
    stop(shop.start("run", "shop"))
    shop.python("shop.place((1, 10), (2, 20))")

    outbox = shop.flow("outbox")

    assert (outbox["state"], outbox["backlog"]) == ("no worker", 2)
    assert outbox["oldest_seconds"] >= 0


def test_an_old_backlog_needs_a_person(shop: Shop) -> None:
    shop.start("run", "shop")
    shop("flows", "pause", "shop", "outbox")
    until(lambda: shop.flow("outbox")["state"] == "paused" and shop.flow("outbox")["since"])
    shop.python("shop.place((1, 10))")
    assert shop("status", "shop").returncode == 0

    told = shop("status", "shop", "--old", "0")

    assert told.returncode == 1
    assert "outbox: 1 message in its backlog, the oldest for" in told.stdout
    assert shop("status", "shop", "--old", "0", "--fail-on", "down").returncode == 0


def test_watch_goes_on_until_it_is_interrupted(shop: Shop) -> None:
    shop.start("run", "shop")
    watch = shop.spawn("status", "shop", "--watch", "--json", "--interval", "0.1")
    assert watch.stdout is not None

    looks = [json.loads(watch.stdout.readline()) for _ in range(3)]

    assert [look["app"] for look in looks] == ["shop"] * 3
    assert stop(watch, signal.SIGINT)[0] == 0


# --- pausing ----------------------------------------------------------------------------------------------------------


def test_a_paused_flow_stays_paused_until_it_is_resumed(shop: Shop) -> None:
    process = shop.start("run", "shop")
    told = shop("flows", "pause", "shop", "orders/search", "--reason", "index rebuild", "--by", "ann")
    assert told.returncode == 0
    assert "orders/search: paused" in told.stdout
    stop(process)
    shop.start("run", "shop")
    shop.python("shop.place((1, 10))")
    until(lambda: shop.flow("orders/search")["backlog"] == 1)

    assert "index rebuild (by ann, " in shop("flows", "list", "shop").stdout
    assert "paused" in shop("status", "shop").stdout
    shop("flows", "resume", "shop", "--all")

    until(lambda: shop.indexed() == [(1, 10)])


def test_a_flow_is_pausing_as_long_as_its_handler_is_at_work(shop: Shop) -> None:
    shop.start("run", "shop")
    shop.python("shop.grant_points(7, 5000)")
    until((shop.folder / "granting").exists)

    told = shop("flows", "pause", "shop", "points/shop", "--wait", "0.5")

    assert told.returncode == 4
    assert "points/shop: pausing; its worker was not at rest within 0.5 s" in told.stdout
    assert shop.flow("points/shop")["state"] == "pausing"
    assert "1 flow pausing" in shop("status", "shop").stdout
    (shop.folder / "enough").touch()
    told = shop("flows", "pause", "shop", "points/shop", "--wait", "30")
    assert told.returncode == 0
    assert told.stdout == "points/shop: paused; its worker is at rest\n"
    assert shop.flow("points/shop")["state"] == "paused"


def test_a_flow_that_no_worker_has_is_paused_at_once(shop: Shop) -> None:
    stop(shop.start("run", "shop"))

    told = shop("flows", "pause", "shop", "points/shop")

    assert (told.returncode, told.stdout) == (
        0,
        "points/shop: paused; no worker is alive, the next one finds it so\n",
    )


def test_a_flow_that_stopped_says_why_and_goes_on_after_resume(shop: Shop) -> None:
    shop.start("run", "shop")
    shop.python("shop.grant_points(7, 0)")
    until(lambda: shop.flow("points/shop")["state"] == "stopped")

    told = shop("status", "shop")

    assert told.returncode == 1
    assert "no points to grant" in told.stdout
    assert "yeondong flows resume shop points/shop" in told.stdout
    resumed = shop("flows", "resume", "shop", "points/shop")
    assert "(was stopped: message " in resumed.stdout


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(shop: Shop) -> str:
    """Order 1 has failed, with one more of its key behind it; return its id."""
    shop.start("run", "shop")
    shop.python("shop.place((1, -5), (1, 6))")
    failure = until(shop.failures)[0]
    until(lambda: shop.failures()[0]["behind"] == 1)
    return str(failure["id"])


def test_a_failure_is_listed_and_shown_whole(shop: Shop, failed: str) -> None:
    listed = shop("failures", "list", "shop")
    shown = shop("failures", "show", "shop", failed)

    assert listed.returncode == 1
    assert f"{failed} " in listed.stdout
    assert "ValueError: amount of 1 is negative" in listed.stdout
    assert shown.returncode == 0
    assert '"amount": -5' in shown.stdout
    assert "Traceback (most recent call last):" in shown.stdout
    assert "after 2 attempts" in shown.stdout
    assert "1 message of its key waits behind it, in order" in shown.stdout
    assert shop("status", "shop").returncode == 1


def test_without_yes_nothing_is_done(shop: Shop, failed: str) -> None:
    (shop.folder / "repaired").touch()

    for verb in ("retry", "discard"):
        told = shop("failures", verb, "shop", failed)
        assert told.returncode == 0
        assert "1 message held behind" in told.stdout
        assert "Nothing was done" in told.stdout

    assert [failure["id"] for failure in shop.failures()] == [failed]
    assert shop.indexed() == []


def test_a_repaired_failure_is_retried_before_what_waits_behind_it(shop: Shop, failed: str) -> None:
    (shop.folder / "repaired").touch()

    told = shop("failures", "retry", "shop", failed, "--yes", "--by", "ann")

    assert told.returncode == 0
    until(lambda: shop.indexed() == [(1, -5), (1, 6)])
    assert shop("failures", "list", "shop").returncode == 0
    history = shop("failures", "show", "shop", failed)
    assert history.returncode == 1
    assert "retry by ann" in history.stdout


def test_a_retry_without_a_worker_says_when_it_begins(shop: Shop, failed: str) -> None:
    stop(shop.processes[0])

    told = shop("failures", "retry", "shop", failed, "--yes")

    assert told.returncode == 0
    assert told.stdout.splitlines()[-2:] == [
        "done: 1 failure will be tried again",
        "no live worker has orders/search: the retry begins when one runs (yeondong run shop)",
    ]


def test_a_retry_that_fails_again_comes_back_with_its_error(shop: Shop, failed: str) -> None:
    before = shop.failures()[0]["failed_at"]

    shop("failures", "retry", "shop", "--all", "--yes")

    until(lambda: (now := shop.failures()) and now[0]["failed_at"] > before)
    assert shop.failures()[0]["behind"] == 1
    assert shop.indexed() == []


def test_what_waits_behind_a_discarded_failure_goes_on(shop: Shop, failed: str) -> None:
    told = shop("failures", "discard", "shop", "--error", "negative", "--flow", "orders/search", "--yes")

    assert told.returncode == 0
    until(lambda: shop.indexed() == [(1, 6)])
    assert '"amount": -5' in shop("failures", "show", "shop", failed).stdout


def test_an_edited_failure_keeps_its_original(shop: Shop, failed: str) -> None:
    told = shop("failures", "edit", "shop", failed, "--set", "amount=7", "--by", "ann", "--yes")
    assert told.returncode == 0
    assert '+  "amount": 7' in told.stdout
    shown = shop("failures", "show", "shop", failed).stdout
    assert "edit by ann" in shown
    assert '"amount": -5' in shown

    shop("failures", "retry", "shop", failed, "--yes")

    until(lambda: shop.indexed() == [(1, 7), (1, 6)])


def test_data_may_come_from_standard_input_and_has_to_decode(shop: Shop, failed: str) -> None:
    wrong = shop("failures", "edit", "shop", failed, "--data", "-", "--yes", text='{"order_id": 1, "amount": "x"}')
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "yeondong: the data does not decode as OrderPlaced: Expected `int`, got `str` - at `$.amount`; "
        "nothing was changed\n"
    )

    right = shop("failures", "edit", "shop", failed, "--data", "-", "--yes", text='{"order_id": 1, "amount": 9}')

    assert right.returncode == 0
    assert shop.failures()[0]["message"]["data"] == {"order_id": 1, "amount": 9}


# --- replay, groups, tables, settings ---------------------------------------------------------------------------------


def test_a_replay_says_how_much_it_repeats_and_is_carried_out(shop: Shop) -> None:
    shop.start("run", "shop")
    shop.python("shop.place((1, 10), (2, 20))")
    until(lambda: len(shop.indexed()) == 2 and shop.flow("orders/search")["backlog"] == 0)

    dry = shop("replay", "shop", "orders/search", "--from", "start")
    assert "would run again for 2 messages since the start of the log" in dry.stdout
    assert len(shop.indexed()) == 2
    shop("replay", "shop", "orders/search", "--from", "start", "--yes")

    until(lambda: shop.indexed() == [(1, 10), (1, 10), (2, 20), (2, 20)])


def test_a_time_without_an_offset_is_refused_with_the_right_form(shop: Shop) -> None:
    stop(shop.start("run", "shop"))

    told = shop("replay", "shop", "orders/search", "--from", "2026-01-31T09:00:00", TZ="Asia/Seoul")

    assert told.returncode == 2
    assert "does not say in which time zone" in told.stderr
    assert "2026-01-31T09:00:00+09:00" in told.stderr


def test_groups_are_listed_and_forgotten(shop: Shop) -> None:
    stop(shop.start("run", "shop"))
    assert "orders" in shop("groups", "list", "shop").stdout

    dry = shop("groups", "forget", "shop", "orders", "search")
    assert "its next start makes it anew" in dry.stdout
    assert "search" in shop("groups", "list", "shop").stdout
    done = shop("groups", "forget", "shop", "orders", "search", "--yes")

    assert done.returncode == 0
    assert "search" not in shop("groups", "list", "shop").stdout
    assert shop("groups", "forget", "shop", "orders", "search", "--yes").returncode == 2


def test_the_tables_are_checked_created_and_printed(shop: Shop) -> None:
    assert shop("db", "check", "shop").returncode == 1
    assert "created yeondong_outbox" in shop("db", "create", "shop").stdout
    assert shop("db", "check", "shop").returncode == 0

    statements = shop("db", "sql", "shop").stdout

    with sqlite3.connect(":memory:") as connection:
        connection.executescript(statements)
    connection.close()


def test_check_tells_where_each_setting_comes_from(shop: Shop) -> None:
    (shop.folder / "yeondong.toml").write_text("lanes = 2\nattempts = 3\n")

    told = shop("check", "shop", YEONDONG_ATTEMPTS="4")

    assert told.returncode == 0
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["attempts", "4", "YEONDONG_ATTEMPTS"] in rows
    assert ["lanes", "2", "yeondong.toml"] in rows
    assert ["in_flight", "1,000", "default"] in rows
    assert not (shop.folder / "shop.db").exists()


def test_check_finds_what_a_worker_would_refuse(shop: Shop) -> None:
    (shop.folder / "shop.py").write_text(SHOP.replace("app.outbox()", "app.outbox(marking='position')"))
    shop.start("run", "shop")
    shop.python("shop.place((1, 10))")
    until(lambda: shop.indexed() == [(1, 10)])
    stop(shop.processes[0])
    assert shop("check", "shop").returncode == 0
    (shop.folder / "shop.py").write_text(SHOP)

    told = shop("check", "shop")

    assert told.returncode == 1
    assert "! the outbox has been marked by position so far" in told.stdout


def test_settings_that_are_probably_not_meant_are_told_everywhere(shop: Shop) -> None:
    warning = "inbox_retention_days (1) is shorter than broker_retention_days"
    said = stop(shop.start("run", "shop", YEONDONG_INBOX_RETENTION_DAYS="1"))[1]

    assert said.count(f"WARNING settings.warning {warning}") == 1
    for command in ("status", "check"):
        assert f"settings: {warning}" in " ".join(
            shop(command, "shop", YEONDONG_INBOX_RETENTION_DAYS="1").stdout.split()
        )


@pytest.mark.parametrize(
    ("declares", "says"),
    [
        ("", "app 'empty' has nothing to run"),
        (
            "app.outbox()\nclass Go(Command, channel='c'):\n    id: int\napp.sends(Go)\n",
            "command Go of channel 'c' has no",
        ),
    ],
)
def test_an_app_that_cannot_run_makes_no_store(shop: Shop, declares: str, says: str) -> None:
    (shop.folder / "empty.py").write_text(
        f"from yeondong import Command, Yeondong\napp = Yeondong('empty')\n{declares}"
    )

    told = shop("run", "empty")

    assert told.returncode == 2
    assert f"yeondong: {says}" in told.stderr
    assert not (shop.folder / "empty.db").exists()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "nowhere"], 2, "no module named 'nowhere'; looked in "),
        (["run", "shop:odrers"], 2, "shop has no 'odrers'; Yeondong apps there: shop:app"),
        (["status", "shop", "--wacth"], 2, "no such option '--wacth'"),
        (["statsu"], 2, "no such command 'statsu'"),
        (["flows", "pause", "shop", "nope"], 3, "there is no store at "),
        (["run", "shop/app.py"], 2, "'shop/app.py' names no app; write module:attribute, as in shop.app:app"),
    ],
)
def test_an_error_is_one_sentence(shop: Shop, words: Sequence[str], code: int, says: str) -> None:
    told = shop(*words)

    assert told.returncode == code
    assert told.stderr.startswith(f"yeondong: {says}")
    assert len(told.stderr.splitlines()) == 1
    assert told.stdout == ""


def test_a_store_that_is_no_database_is_told_and_left_as_it_is(shop: Shop) -> None:
    (shop.folder / "shop.db").write_text("dear diary, " * 100)

    for words in (["run", "shop", "-q"], ["status", "shop"], ["failures", "list", "shop"]):
        told = shop(*words)
        assert told.returncode == 3
        assert "is not an SQLite database" in told.stderr
        assert len(told.stderr.splitlines()) == 1

    assert (shop.folder / "shop.db").read_text() == "dear diary, " * 100


def test_a_traceback_comes_only_with_debug(shop: Shop) -> None:
    (shop.folder / "broken.py").write_text("import nothing_of_this_name\n")

    assert "Traceback" not in shop("run", "broken").stderr
    assert "Traceback" in shop("run", "broken", "--debug").stderr


def test_a_variable_may_name_the_app(shop: Shop) -> None:
    stop(shop.start("run", YEONDONG_APP="shop"))

    assert shop("status", YEONDONG_APP="shop").returncode == 5
    assert shop("failures", "retry", "h1", YEONDONG_APP="shop").returncode == 1
    assert shop("groups", "forget", "orders", "search", YEONDONG_APP="shop").returncode == 0
    assert shop("groups", "forget", "shop", "orders", "search", YEONDONG_APP="nowhere").returncode == 0
