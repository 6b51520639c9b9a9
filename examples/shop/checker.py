"""The checker: judges a demo by its ledger, promise by promise.

It shares no code with yeondong and asks neither database nor broker: it knows what customers were told, and what the
recorder saw in tables and log. It also fails when too little happened, since a promise that was not put to the test was
not kept.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.shop.customers import UNTITLED
from examples.shop.ledger import Trail
from examples.shop.promises import Book, Finding, Receivers, equal, judge, none, within

STOP_SECONDS = 5.0
MEMORY_MIB = 150
FILE_KIB, FILE_KIB_PER_ORDER = 16 * 1024, 16
ENOUGH = "enough happened"
RECEIVERS = Receivers(once=("search", "points"))  # the statistics are sums, which are compared here
PROMISES = (
    "no-loss", "one-effect", "key-order", "no-phantom", "true-accounts", "recovers", "safe-stop", "bounded", ENOUGH
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """How much must have happened for the findings to mean anything."""

    orders: int = 300
    kills: int = 3


def check(ledger: Path, least: Least) -> list[Finding]:
    """Judge the ledger of one demo."""
    book = Book(Trail(ledger).follow())
    findings = judge(book, RECEIVERS)
    for judge_one in (_sums, _true_accounts, _outage, _safe_stop, _bounded):
        findings += judge_one(book)
    findings += _enough_happened(book, least)
    return sorted(findings, key=lambda finding: PROMISES.index(finding.promise))


# --- what only the shop knows -----------------------------------------------------------------------------------------


def _sums(book: Book) -> Iterator[Finding]:
    """The statistics hold a number and a sum for each member: a lost order and one counted twice both show in them."""
    sums = {line["key"]: (line["orders"], line["amount"]) for line in book.all("sum")}
    due: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for order in book.all("committed"):
        count, won = due[order["key"]]
        due[order["key"]] = (count + 1, won + order["amount"])
    phantoms = Counter(
        line["key"]
        for line in {line["order"]: line for line in book.all("sent", where="orders")}.values()
        if line["order"] not in book.committed
    )
    missing = sum(max(0, count - sums.get(key, (0, 0))[0]) for key, (count, _) in due.items())
    yield equal("no-loss", "orders missing in statistics", missing, 0)
    too_often = sum(max(0, count - due[key][0] - phantoms[key]) for key, (count, _) in sums.items())
    yield equal("one-effect", "orders more than once in statistics", too_often, 0)
    wrong = [key for key, (count, won) in sums.items() if count == due[key][0] and won != due[key][1]]
    yield none("one-effect", "members whose sum in won is wrong", wrong)


def _true_accounts(book: Book) -> Iterator[Finding]:
    rows = Counter((line["order"], line["status"]) for line in book.all("outbox"))
    wrong = [order for order in book.committed if rows[order, "DONE"] != 2]
    yield none("true-accounts", "orders whose two outbox rows are not both done", wrong)
    to_repair = book.all("committed", product=UNTITLED)
    listed = book.all("failure")
    yield equal("true-accounts", "failures listed, of the one order to repair", len(listed), len(to_repair))
    seen = [(line["exit"], _sum(line, "failed"), _sum(line, "held")) for line in book.all("status")]
    right = [(1, len(to_repair), sum(failure["behind"] for failure in listed)), (0, 0, 0)]
    yield Finding("true-accounts", "status before and after: exit, failed, held", _and(seen), kept=seen == right)
    backlog = sum(_sum(status, "backlog") for status in book.all("status")[-1:])
    yield equal("true-accounts", "status: backlog at the end", backlog, 0)


def _outage(book: Book) -> Iterator[Finding]:
    failures = [failure["id"] for failure in book.all("failure") if failure["flow"].startswith("points/")]
    yield none("recovers", "commands that the outage turned into failures", failures)


def _safe_stop(book: Book) -> Iterator[Finding]:
    stops = book.all("stopped")
    wrong = [stop["program"] for stop in stops if stop["code"] != 0]
    yield none("safe-stop", "stops with another exit code than 0", wrong)
    yield within("safe-stop", f"slowest of {len(stops)} stops", [stop["seconds"] for stop in stops], STOP_SECONDS)
    left = sum(stop["left"] for stop in stops)
    yield equal("safe-stop", "messages that a stop left done and not noted", left, 0)


def _bounded(book: Book) -> Iterator[Finding]:
    peaks = [line["peak_bytes"] / 2**20 for line in book.lines if line.get("peak_bytes") is not None]
    most = max(peaks, default=0.0)
    yield Finding("bounded", "most memory of relay or worker", f"{most:.0f} of {MEMORY_MIB} MiB", most <= MEMORY_MIB)
    kib = sum(line["bytes"] for line in book.all("files")) / 1024
    room = FILE_KIB + FILE_KIB_PER_ORDER * len(book.committed)
    yield Finding("bounded", "database files with their logs", f"{kib:,.0f} of {room:,} KiB", kib <= room)


def _enough_happened(book: Book, least: Least) -> Iterator[Finding]:
    told = Counter(book.told.values())
    yield _least("orders placed", told["placed"], least.orders)
    yield _least("orders rolled back after outbox.add", told["rolled back"], least.orders // 10)
    tries: dict[str, list[float]] = defaultdict(list)
    for line in book.all("tries"):
        tries[line["by"]].append(line["at"])
    together = [by for by, at in tries.items() if at[0] < min(times[-1] for times in tries.values())]
    yield _least("customers ordering at the same time", len(together), 2)
    for victim in ("relay", "worker"):
        kills = [kill for kill in book.all("killed", victim=victim) if 0.1 <= kill["share"] <= 0.9]
        yield _least(f"kills of the {victim} between 10 % and 90 % of the orders", len(kills), least.kills)
    sent = book.all("sent")
    sent_twice = len(sent) - len({line["message"] for line in sent})
    yield _least("messages sent twice, and dropped by the inbox", sent_twice, 1)
    given_twice = sum(kill["left"] for kill in book.all("killed", victim="worker"))
    yield _least("messages given to a worker again after its effect", given_twice, 1)
    yield _least("repeats that the partner knew by their id", len(book.all("repeated")), 1)
    yield _least("calls in vain while the partner was away", len(book.all("turned away")), 1)
    behind = sum(failure["behind"] for failure in book.all("failure"))
    yield _least("messages held behind the failed one", behind, 1)


def _sum(status: Mapping[str, Any], column: str) -> int:
    return sum(flow[column] or 0 for flow in status["flows"])


def _and(tuples: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("/".join(map(str, values)) for values in tuples) or "nothing"


def _least(what: str, count: int, least: int) -> Finding:
    return Finding(ENOUGH, what, f"{count} (at least {least})", kept=count >= least)


# --- telling ----------------------------------------------------------------------------------------------------------


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the one table."""
    table = Table(title="What the promises were worth", title_justify="left")
    table.add_column("promise")
    table.add_column("what was counted")
    table.add_column("found", justify="right")
    table.add_column("verdict")
    before = ""
    for finding in findings:
        if before and finding.promise != before:
            table.add_section()
        verdict = "[green]kept[/]" if finding.kept else "[bold red]BROKEN[/]"
        if finding.promise == ENOUGH:
            verdict = "[green]yes[/]" if finding.kept else "[bold red]TOO LITTLE[/]"
        table.add_row("" if finding.promise == before else finding.promise, finding.what, finding.found, verdict)
        before = finding.promise
    console.print(table)


def write(findings: Sequence[Finding], path: Path) -> None:
    """Write the findings as JSON, for scripts."""
    path.write_text(json.dumps([asdict(finding) for finding in findings], indent=1), encoding="utf-8")
