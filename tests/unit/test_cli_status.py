"""What status concludes from what store, broker and workers tell, and how it looks."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from yeondong import Event, Yeondong
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen
from yeondong.cli.observed import AppStatus, Finding, FlowStatus, WorkerStatus, exit_code, observe, state_of
from yeondong.cli.status import render
from yeondong.core.broker import GroupLag
from yeondong.core.source import Lag
from yeondong.core.store import Control, FlowReport, LongRun, WorkerReport
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.errors import ConnectionLost

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=12)


class OrderPlaced(Event, channel="orders"):
    order_id: int


class Standing:
    """A store and a broker that tell what a test says."""

    def __init__(self) -> None:
        self.app = Yeondong("shop", store="sqlite:////nowhere/shop.db", clock=SimpleNamespace(now=lambda: NOW))
        self.app.outbox()
        self.app.subscribe(OrderPlaced, group="search")(handle)
        self.app._opened().broker = self  # type: ignore[assignment]
        self.traits = Traits(True, Order.CHANNEL, Settles.PREFIX, Partitions.LEASED)
        self.address = "/nowhere/shop.db"
        self.lags: Sequence[GroupLag] | Exception = [GroupLag("orders", "search", 0, None)]
        self.outbox_lag = Lag(0)
        self.reports: list[WorkerReport] = [worker()]
        self.controls: dict[str, Control] = {}
        self.failed: Mapping[str, int] = {}
        self.held: Mapping[str, int] = {}

    def groups(self) -> Sequence[GroupLag]:
        if isinstance(self.lags, Exception):
            raise self.lags
        return self.lags

    def look(self, old_seconds: float = 300) -> AppStatus:
        def count(which: Any) -> int:
            return sum(self.failed.values()) if which.flow is None else self.failed.get(which.flow, 0)

        session: Any = SimpleNamespace(
            flows=SimpleNamespace(
                workers=lambda: self.reports, control=lambda flow: self.controls.get(flow, Control())
            ),
            failures=SimpleNamespace(count=count),
            held=SimpleNamespace(count=lambda flow: self.held.get(flow, 0)),
            outbox=SimpleNamespace(lag=lambda: self.outbox_lag),
            positions=SimpleNamespace(load=lambda _name: None),
        )
        return observe(Chosen(self.app, "shop.app"), session, old_seconds)


def handle(order: OrderPlaced) -> None: ...


def report(flow: str, state: str = "running", **values: Any) -> FlowReport:
    return FlowReport(flow, state, EARLIER, **values)


PAUSED_BY_ANN = report("f", "paused", reason="by ann")


def worker(*flows: FlowReport, name: str = "w1", age: float = 1.0, **values: Any) -> WorkerReport:
    return WorkerReport(
        name,
        "shop",
        "host",
        7,
        EARLIER,
        flows or (report("outbox"), report("orders/search")),
        age_seconds=age,
        **values,
    )


def texts(found: AppStatus) -> list[str]:
    return [finding.text for finding in found.findings]


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Standing:
    return Standing()


# --- what is concluded ------------------------------------------------------------------------------------------------


def test_all_is_well_with_a_worker_and_nothing_that_waits(standing: Standing) -> None:
    found = standing.look()

    assert (found.exit, found.findings) == (Exit.OK, [])
    assert [(flow.flow, flow.state) for flow in found.flows] == [("outbox", "running"), ("orders/search", "running")]


def test_without_a_live_worker_that_is_said_first_and_backlogs_are_still_known(standing: Standing) -> None:
    standing.reports = [worker(age=60)]
    standing.lags = [GroupLag("orders", "search", 5, EARLIER)]

    found = standing.look()

    assert found.exit == Exit.NO_WORKER
    assert texts(found)[0] == "NO worker of shop is alive: the last one was seen 60 s ago"
    assert found.flows[1].state == "no worker"
    assert (found.flows[1].backlog, found.flows[1].oldest_seconds) == (5, 720)


def test_a_worker_is_alive_by_its_own_settings(standing: Standing) -> None:
    standing.reports = [worker(age=60, silent_seconds=90.0)]

    assert standing.look().exit == Exit.OK


def test_a_silent_worker_whose_process_runs_is_not_called_dead(standing: Standing) -> None:
    standing.reports = [replace(worker(age=60), host=socket.gethostname(), pid=os.getpid())]

    said = f"worker w1 (pid {os.getpid()}) is alive and has not written for 60 s: the store may be locked or full"
    assert standing.look().findings == [Finding(said, Exit.UNUSABLE)]


@pytest.mark.parametrize(
    "values", [{"host": "another"}, {"age_seconds": 301.0}, {"pid": 2**22 + 1}], ids=["host", "long ago", "process"]
)
def test_without_a_process_here_that_wrote_lately_there_is_no_worker(
    standing: Standing, values: dict[str, Any]
) -> None:
    here = replace(worker(age=60), host=socket.gethostname(), pid=os.getpid())
    standing.reports = [replace(here, **values)]

    assert standing.look().exit == Exit.NO_WORKER


def test_a_process_that_has_ended_and_was_not_waited_for_is_no_worker(standing: Standing) -> None:
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    standing.reports = [replace(worker(age=60), host=socket.gethostname(), pid=child)]
    try:
        assert standing.look().exit == (Exit.NO_WORKER if Path("/proc/self/stat").exists() else Exit.UNUSABLE)
    finally:
        os.waitpid(child, 0)


def test_workers_of_other_apps_do_not_count(standing: Standing) -> None:
    standing.reports = [replace(worker(), app="billing")]

    assert texts(standing.look())[0] == "NO worker of shop is alive: none was seen within the last day"


def test_a_flow_that_no_worker_has_is_named(standing: Standing) -> None:
    standing.reports = [worker(report("orders/search"))]

    found = standing.look()

    assert found.exit == Exit.NO_WORKER
    assert found.findings[0] == Finding("no live worker has outbox", Exit.NO_WORKER, "yeondong relay shop.app")


def test_failures_need_a_person_and_are_not_counted_as_held(standing: Standing) -> None:
    standing.failed, standing.held = {"orders/search": 2}, {"orders/search": 5}

    found = standing.look()

    assert found.exit == Exit.ATTENTION
    assert (found.flows[1].failed, found.flows[1].held) == (2, 3)
    assert found.findings == [
        Finding(
            "orders/search: 2 failures wait for a person",
            Exit.ATTENTION,
            "yeondong failures list shop.app --flow orders/search",
        )
    ]


def test_failures_of_flows_that_are_gone_are_not_forgotten(standing: Standing) -> None:
    standing.failed = {"orders/old": 3}

    assert texts(standing.look()) == ["3 failures in this store of flows that shop does not declare"]


def test_a_stop_hints_at_what_ends_it(standing: Standing) -> None:
    full = report("orders/search", "stopped", reason="10000 messages are held: retry or discard some")
    standing.reports = [worker(report("outbox"), full)]
    standing.controls = {"outbox": Control(stopped="message m1 failed")}

    found = standing.look()

    assert found.exit == Exit.ATTENTION
    assert [finding.hint for finding in found.findings] == [
        "yeondong flows resume shop.app outbox",
        "yeondong failures list shop.app --flow orders/search",
    ]


@pytest.mark.parametrize(("old_seconds", "code"), [(719, Exit.ATTENTION), (721, Exit.OK)])
def test_a_backlog_needs_a_person_once_it_is_old(standing: Standing, old_seconds: float, code: Exit) -> None:
    standing.outbox_lag = Lag(5, EARLIER)

    assert standing.look(old_seconds).exit == code


def test_an_old_backlog_of_a_flow_that_rests_says_so(standing: Standing) -> None:
    standing.lags = [GroupLag("orders", "search", 5, EARLIER)]
    standing.controls = {"orders/search": Control(paused="by ann")}
    standing.reports = [worker(report("outbox"), report("orders/search", "paused", reason="by ann"))]

    assert standing.look().findings == [
        Finding(
            "orders/search: 5 messages in its backlog, the oldest for 12 min; it is paused until somebody resumes it",
            Exit.ATTENTION,
            "yeondong flows resume shop.app orders/search",
        )
    ]


LOG_FULL = (
    "broker at /x.db is not available: full: group 'search' of channel 'orders' has 9 messages unread; start an app "
    "that receives in this group, forget the group, or raise the bound"
)


@pytest.mark.parametrize(
    "reason", [LOG_FULL, "broker at x is not available: full: 10 bytes are not enough for what is sent at once"]
)
def test_a_full_log_needs_a_person_at_once(standing: Standing, reason: str) -> None:
    standing.reports = [worker(report("outbox", "paused", reason=reason), report("orders/search"))]

    found = standing.look()

    assert found.exit == Exit.ATTENTION
    assert texts(found) == ["outbox: the broker is " + reason[reason.index("full: ") :]]


def test_a_full_log_hints_at_the_flow_that_rests_and_not_at_forgetting_its_group(standing: Standing) -> None:
    standing.reports = [worker(report("outbox", "paused", reason=LOG_FULL), report("orders/search"))]
    standing.controls = {"orders/search": Control(stopped="message m1 failed")}

    found = standing.look().findings[-1]

    assert found == Finding(
        "outbox: the broker is full, and orders/search, which keeps it full, is stopped until somebody resumes it",
        Exit.ATTENTION,
        "yeondong flows resume shop.app orders/search",
    )


def test_a_disk_without_room_is_no_full_log(standing: Standing) -> None:
    reason = "SQLite at /x.db is not available: the disk or the database is full"
    standing.reports = [worker(report("outbox", "paused", reason=reason), report("orders/search"))]

    assert standing.look().exit == Exit.OK


def test_too_many_rows_in_the_outbox_need_a_person(standing: Standing) -> None:
    standing.outbox_lag = Lag(100_001, NOW)

    assert texts(standing.look()) == ["100,001 rows wait in the outbox, more than 100,000 (outbox_warning_rows)"]


def test_a_long_writer_is_named(standing: Standing) -> None:
    standing.reports = [worker(notice="flow orders/search held the only write lock for 3.0 s")]

    found = standing.look()

    assert found.exit == Exit.OK
    assert texts(found) == ["worker w1: flow orders/search held the only write lock for 3.0 s"]


def test_a_short_memory_of_the_inbox_is_told(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YEONDONG_INBOX_RETENTION_DAYS", "1")

    assert texts(standing.look())[0].startswith("settings: inbox_retention_days (1) is shorter than")


def test_a_broker_that_is_away_is_told_beside_what_the_store_knows(standing: Standing) -> None:
    standing.lags = ConnectionLost("broker", "host:1", "refused")

    found = standing.look()

    assert found.exit == Exit.UNUSABLE
    assert "refused" in texts(found)[0]
    assert found.flows[1].backlog is None


def test_flows_of_a_worker_of_another_version_are_shown_too(standing: Standing) -> None:
    standing.reports.append(worker(report("orders/new"), name="w2"))

    assert [flow.flow for flow in standing.look().flows] == ["outbox", "orders/search", "orders/new"]


def test_what_live_workers_tell_is_added_up(standing: Standing) -> None:
    one = report("orders/search", in_flight=2, retrying=1, rate=1.5)
    standing.reports = [worker(report("outbox"), one), worker(one, name="w2"), worker(one, name="w3", age=60)]

    flow = standing.look().flows[1]

    assert (flow.in_flight, flow.retrying, flow.rate, flow.workers) == (4, 2, 3.0, ["w1", "w2"])


@pytest.mark.parametrize(
    ("control", "reports", "expected"),
    [
        (Control(), [report("f"), report("f", "standby")], ("running", EARLIER, None)),
        (Control(), [report("f", "paused", reason="away")], ("paused", EARLIER, "away")),
        (Control(paused="by ann"), [], ("paused", None, "by ann")),
        (Control(paused="by ann"), [report("f")], ("pausing", None, "by ann")),
        (Control(paused="by ann"), [report("f", "standby")], ("pausing", None, "by ann")),
        (Control(paused="by ann"), [report("f", "paused", reason="away")], ("pausing", None, "by ann")),
        (Control(paused="by ann"), [report("f"), PAUSED_BY_ANN], ("pausing", None, "by ann")),
        (Control(paused="by ann"), [PAUSED_BY_ANN, report("f", "standby")], ("paused", EARLIER, "by ann")),
        (Control(paused="by ann", paused_at=NOW), [PAUSED_BY_ANN], ("paused", NOW, "by ann")),
        (Control(paused="by ann", paused_at=NOW), [report("f")], ("pausing", NOW, "by ann")),
        (Control(paused="by ann", stopped="failed"), [], ("stopped", None, "failed")),
        (Control(), [], ("no worker", None, None)),
    ],
)
def test_what_was_decided_counts_before_what_workers_report(
    control: Control, reports: Sequence[FlowReport], expected: tuple[str, datetime | None, str | None]
) -> None:
    assert state_of(control, reports) == expected


@pytest.mark.parametrize(
    ("codes", "worst"),
    [([], 0), ([0], 0), ([1, 0], 1), ([1, 5], 5), ([5, 3, 1], 3)],
)
def test_the_worst_finding_gives_the_exit_code(codes: Sequence[int], worst: int) -> None:
    assert exit_code([Finding("x", code) for code in codes]) == worst


# --- how it looks -----------------------------------------------------------------------------------------------------


FULL = AppStatus(
    version=1,
    app="shop",
    at=NOW,
    store="/var/lib/shop.db",
    broker="/var/lib/shop.db",
    flows=[
        FlowStatus("orders/statistics", "no worker", EARLIER, "message m1 failed: " + "no stock " * 20, rate=1234.5,
                   backlog=1234567, oldest_at=EARLIER, oldest_seconds=720, in_flight=1000, retrying=250, held=10_000,
                   failed=999),
        FlowStatus("주문/검색", "running", EARLIER, rate=0.0),
    ],
    workers=[WorkerStatus("host-12345-abcdef", "host.example.internal", 12345, True, EARLIER, 1.0)],
    findings=[Finding("orders/statistics is stopped: \x1b[31mno stock", Exit.ATTENTION, "yeondong flows resume shop")],
    exit=Exit.ATTENTION,
)  # fmt: skip


def drawn(width: int, found: AppStatus = FULL, *, colour: bool = False) -> list[str]:
    screen = Console(width=width, force_terminal=colour, markup=False, highlight=False)
    with screen.capture() as captured:
        screen.print(render(found))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    lines = drawn(width)

    assert max(map(len, lines)) <= width
    (row,) = [line for line in lines if "1,234,567" in line]
    assert [word for word in row.split() if word[0].isdigit()] == [
        "1,234.5", "1,234,567", "12m", "1,000", "250", "10,000", "999",
    ]  # fmt: skip


def test_what_colour_says_words_say_too() -> None:
    coloured, bare = "\n".join(drawn(120, colour=True)), "\n".join(drawn(120))

    assert "\x1b[" in coloured
    assert "\x1b" not in bare
    for word in ("no worker", "needs a person", "! "):
        assert word in bare


def test_a_reason_cannot_recolour_the_terminal() -> None:
    assert "\\x1b[31mno stock" in "\n".join(drawn(120))


def test_a_flow_in_an_outage_is_not_called_well(standing: Standing) -> None:
    standing.reports = [worker(report("outbox"), report("orders/search", "paused", reason="Connection refused"))]

    found = standing.look()
    lines = drawn(80, found)

    assert found.exit == Exit.OK
    assert lines[0].startswith("shop · 1 flow paused · ")
    assert "orders/search  paused for 12 min: Connection refused" in [line.rstrip() for line in lines]


def test_flows_that_persons_paused_are_not_called_well(standing: Standing) -> None:
    standing.reports = [worker(report("outbox", "paused", reason="by ann"), report("orders/search"))]
    standing.controls = {"outbox": Control(paused="by ann"), "orders/search": Control(paused="by bob")}

    lines = [line.rstrip() for line in drawn(80, standing.look())]

    assert lines[0].startswith("shop · 1 flow pausing, 1 flow paused · ")
    assert "outbox         paused for 12 min: by ann" in lines
    assert "orders/search  pausing: by bob" in lines


def test_what_was_passed_over_is_counted_and_told(standing: Standing) -> None:
    search = report("orders/search", passed_over=1200)
    standing.reports = [worker(report("outbox"), search), worker(replace(search, passed_over=34), name="w2")]

    found = standing.look()

    assert [flow.passed_over for flow in found.flows] == [0, 1234]
    text = " ".join(line.strip() for line in drawn(80, found))
    assert "orders/search  passed over 1,234 messages of types that it does not want, since its start" in text


@pytest.mark.parametrize(("seconds", "code"), [(22.0, Exit.OK), (61.0, Exit.ATTENTION)])
def test_a_message_that_is_with_its_handler_for_long_is_told(standing: Standing, seconds: float, code: Exit) -> None:
    search = report("orders/search", long_runs=(LongRun("m1", "OrderPlaced", "k", seconds),))
    standing.reports = [worker(report("outbox"), search)]

    found = standing.look()

    said = f"OrderPlaced key 'k', message m1: with its handler for {seconds:.0f} s, worker pid 7"
    assert f"orders/search  {said}" in [line.rstrip() for line in drawn(120, found)]
    assert found.exit == code
    assert texts(found) == ([f"orders/search: {said}"] if code else [])
    assert [(run.worker, run.pid) for run in found.flows[1].long_runs] == [("w1", 7)]


@pytest.mark.parametrize("width", [80, 120])
def test_the_head_of_the_table_is_one_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    head = drawn(width)[3]

    assert head.split("  ")[0].startswith("flow")
    assert head.split() == [
        "flow", "state", "rate/s", "backlog", "oldest", "in", "flight", "retry", "held", "failed",
    ]  # fmt: skip
