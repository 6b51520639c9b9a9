"""The checker: compares orders with tables and ledgers, promise by promise.

It shares no code with yeondong: it knows what customers were told, what the tables hold and what reached the partner.
It also fails when too little happened, since a promise that was not put to the test was not kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.shop.customers import UNTITLED
from examples.shop.evidence import Evidence

START_SECONDS = 3.0  # a new process has to be started and to import its libraries, on a busy machine
POLL_SECONDS = 1.0
OUTAGE_SECONDS = 6.0  # at most 5 s between two tries
STOP_SECONDS = 5.0
MEMORY_MIB = 150
FILE_KIB, FILE_KIB_PER_ORDER = 16 * 1024, 16
ENOUGH = "enough happened"

SENT = """
select message_id, channel,
  json_extract(cast(data as text), '$.order_id'), json_extract(cast(data as text), '$.member_id')
from broker.yeondong_broker_log order by position
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was counted, and whether the promise holds by it."""

    promise: str
    what: str
    found: str
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """How much must have happened for the findings to mean anything."""

    orders: int = 300
    kills: int = 3


@dataclass(frozen=True, slots=True)
class Placed:
    """An order in the shop's table."""

    member_id: int
    nth: int
    product_id: str
    amount: int


class Orders:
    """What the orders, and all that came of them, are known to be."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.story = evidence.story.follow()
        self.ledger = evidence.ledger.follow()
        self.told: dict[str, str] = {line["order_id"]: line["what"] for line in evidence.journals()}
        self.placed = {
            id: Placed(*columns)
            for id, *columns in evidence.rows("select id, member_id, nth, product_id, amount from main.orders")
        }
        self.indexed = [id for (id,) in evidence.rows("select order_id from main.search_index order by position")]
        self.sales = {
            member: (orders, amount)
            for member, orders, amount in evidence.rows("select member_id, orders, amount from main.sales")
        }
        # Message id, channel, order and member of all that was sent, in the order of the log.
        self.sent: list[tuple[str, str, str, int]] = evidence.rows(SENT)
        self.granted = [line["order_id"] for line in self.ledger if line["what"] == "granted"]

    def events(self, what: str, **facts: Any) -> list[Mapping[str, Any]]:
        """Return what the story tells of this kind."""
        return [e for e in self.story if e["what"] == what and all(e[name] == fact for name, fact in facts.items())]

    def sent_once(self, channel: str) -> list[str]:
        """Return the orders that the messages of a channel are about, repeats of a message left out."""
        return list({id: order for id, where, order, _ in self.sent if where == channel}.values())

    def phantoms_by_member(self) -> Counter[int]:
        """Count orders that were announced and do not exist, by member."""
        announced = {order: member for _, channel, order, member in self.sent if channel == "orders"}
        return Counter(member for order, member in announced.items() if order not in self.placed)


def judge(folder: Path, least: Least) -> list[Finding]:
    """Count everything in the folder of one demo."""
    checks = (_no_loss, _one_effect, _key_order, _no_phantom, _true_accounts, _recovers, _safe_stop, _bounded)
    try:
        with closing(Evidence(folder)) as evidence:
            orders = Orders(evidence)
            findings = [finding for check in checks for finding in check(orders)]
            findings += _enough_happened(orders, least)
            return findings
    except sqlite3.OperationalError as error:
        return [Finding(ENOUGH, "whether the databases can be read", str(error), kept=False)]


# --- promise by promise -----------------------------------------------------------------------------------------------


def _no_loss(orders: Orders) -> Iterator[Finding]:
    placed = orders.placed.keys()
    promised = {id for id, what in orders.told.items() if what == "placed"}
    yield _none("no-loss", "orders confirmed to a customer and not in the shop", promised - placed)
    yield _none("no-loss", "placed orders missing in the search index", placed - set(orders.indexed))
    counted = sum(min(due, orders.sales.get(member, (0, 0))[0]) for member, (due, _) in _due(orders).items())
    yield _count("no-loss", "placed orders missing in the statistics", len(placed) - counted)
    yield _none("no-loss", "placed orders without points at the partner", placed - set(orders.granted))


def _one_effect(orders: Orders) -> Iterator[Finding]:
    yield _none("one-effect", "orders indexed more than once", _repeated(orders.indexed))
    phantoms, due = orders.phantoms_by_member(), _due(orders)
    too_often = sum(
        max(0, counted - due[member][0] - phantoms[member]) for member, (counted, _) in orders.sales.items()
    )
    yield _count("one-effect", "orders counted more than once", too_often)
    wrong = [m for m, (counted, won) in orders.sales.items() if counted == due[m][0] and won != due[m][1]]
    yield _none("one-effect", "members whose sum in won is wrong", wrong)
    yield _none("one-effect", "orders that were granted points twice", _repeated(orders.granted))


def _key_order(orders: Orders) -> Iterator[Finding]:
    for what, ids in (
        ("events sent behind a later one of their member", orders.sent_once("orders")),
        ("commands sent behind a later one of their member", orders.sent_once("points")),
        ("orders indexed behind a later one of their member", list(dict.fromkeys(orders.indexed))),
        ("points granted behind later ones of their member", list(dict.fromkeys(orders.granted))),
    ):
        yield _none("key-order", what, _out_of_order(orders.placed, ids))


def _no_phantom(orders: Orders) -> Iterator[Finding]:
    undone = {id for id, what in orders.told.items() if what == "rolled back"}
    yield _none("no-phantom", "orders rolled back and yet in the shop", undone & orders.placed.keys())
    for what, ids in (
        ("orders announced that do not exist", {order for *_, order, _ in orders.sent}),
        ("orders indexed that do not exist", set(orders.indexed)),
        ("orders granted points that do not exist", set(orders.granted)),
    ):
        yield _none("no-phantom", what, ids - orders.placed.keys())


def _true_accounts(orders: Orders) -> Iterator[Finding]:
    rows = Counter(
        (order, status)
        for order, status in orders.evidence.rows(
            "select json_extract(cast(payload as text), '$.order_id'), status from main.yeondong_outbox"
        )
    )
    wrong = [id for id in orders.placed if rows[id, "DONE"] != 2]
    yield _none("true-accounts", "orders whose two outbox rows are not both done", wrong)
    to_repair = [id for id, order in orders.placed.items() if order.product_id == UNTITLED]
    listed = orders.events("failure")
    yield _is("true-accounts", "failures listed, of the one order to repair", len(listed), len(to_repair))
    seen = [(status["exit"], _sum(status, "failed"), _sum(status, "held")) for status in orders.events("status")]
    right = [(1, len(to_repair), sum(failure["behind"] for failure in listed)), (0, 0, 0)]
    yield Finding("true-accounts", "status before and after: exit, failed, held", _and(seen), kept=seen == right)
    backlog = sum(_sum(status, "backlog") for status in orders.events("status")[-1:])
    yield _count("true-accounts", "status: backlog at the end", backlog)
    yield _count("true-accounts", "messages still held after its retry", orders.evidence.held())
    [(retries,)] = orders.evidence.rows("select count(*) from main.yeondong_actions where action = 'retry'")
    yield _is("true-accounts", "retries on record, with who did it", retries, len(to_repair))


def _recovers(orders: Orders) -> Iterator[Finding]:
    lease = float(orders.events("planned")[0]["lease_seconds"])
    most = lease + POLL_SECONDS + START_SECONDS
    for victim in ("relay", "worker"):
        waits = [event["seconds"] for event in orders.events("recovered", victim=victim, blow="SIGKILL")]
        yield _within("recovers", f"slowest return of a killed {victim}, lease {lease:g} s", waits, most)
    outages = orders.events("recovered", victim="partner")
    yield _within("recovers", "points granted again after the outage", [e["seconds"] for e in outages], OUTAGE_SECONDS)
    failures = [failure["id"] for failure in orders.events("failure") if failure["flow"].startswith("points/")]
    yield _none("recovers", "commands that the outage turned into failures", failures)
    yield _none("recovers", "waits that did not end", [event["reason"] for event in orders.events("hung")])


def _safe_stop(orders: Orders) -> Iterator[Finding]:
    stops = orders.events("stopped")
    yield _none("safe-stop", "stops with another exit code than 0", [s["victim"] for s in stops if s["code"] != 0])
    yield _within("safe-stop", f"slowest of {len(stops)} stops", [stop["seconds"] for stop in stops], STOP_SECONDS)
    left = sum(stop["left"] for stop in stops)
    yield _count("safe-stop", "messages that a stop left done and not noted", left)


def _bounded(orders: Orders) -> Iterator[Finding]:
    peaks = [e["peak_bytes"] / 2**20 for e in orders.story if e.get("peak_bytes") is not None]
    most = max(peaks, default=0.0)
    yield Finding("bounded", "most memory of relay or worker", f"{most:.0f} of {MEMORY_MIB} MiB", most <= MEMORY_MIB)
    kib = sum(path.stat().st_size for path in orders.evidence.folder.glob("*.db*")) / 1024
    room = FILE_KIB + FILE_KIB_PER_ORDER * len(orders.placed)
    yield Finding("bounded", "database files with their logs", f"{kib:,.0f} of {room:,} KiB", kib <= room)


def _enough_happened(orders: Orders, least: Least) -> Iterator[Finding]:
    told = Counter(orders.told.values())
    yield _least("orders placed", told["placed"], least.orders)
    yield _least("orders rolled back after outbox.add", told["rolled back"], least.orders // 10)
    tries = defaultdict(list)
    for line in orders.evidence.journals():
        tries[line["pid"]].append(line["at"])
    together = [pid for pid, at in tries.items() if at[0] < min(times[-1] for times in tries.values())]
    yield _least("customers ordering at the same time", len(together), 2)
    for victim in ("relay", "worker"):
        kills = [kill for kill in orders.events("killed", victim=victim) if 0.1 <= kill["share"] <= 0.9]
        yield _least(f"kills of the {victim} between 10 % and 90 % of the orders", len(kills), least.kills)
    sent_twice = len(orders.sent) - len({id for id, *_ in orders.sent})
    yield _least("messages sent twice, and dropped by the inbox", sent_twice, 1)
    given_twice = sum(kill["left"] for kill in orders.events("killed", victim="worker"))
    yield _least("messages given to a worker again after its effect", given_twice, 1)
    ledger = Counter(line["what"] for line in orders.ledger)
    yield _least("repeats that the partner knew by their id", ledger["repeated"], 1)
    yield _least("calls in vain while the partner was away", ledger["turned away"], 1)
    behind = sum(failure["behind"] for failure in orders.events("failure"))
    yield _least("messages held behind the failed one", behind, 1)


# --- counting ---------------------------------------------------------------------------------------------------------


def _due(orders: Orders) -> Mapping[int, tuple[int, int]]:
    """Return what each member's orders and their sum should be."""
    due: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for order in orders.placed.values():
        count, won = due[order.member_id]
        due[order.member_id] = (count + 1, won + order.amount)
    return due


def _repeated(ids: Iterable[str]) -> list[str]:
    return [id for id, count in Counter(ids).items() if count > 1]


def _out_of_order(placed: Mapping[str, Placed], ids: Sequence[str]) -> list[str]:
    """Return the orders that stand behind a later one of the same member."""
    latest: Counter[int] = Counter()
    wrong = []
    for id in ids:
        if (order := placed.get(id)) is not None:
            if order.nth < latest[order.member_id]:
                wrong.append(id)
            latest[order.member_id] = max(latest[order.member_id], order.nth)
    return wrong


def _sum(status: Mapping[str, Any], column: str) -> int:
    return sum(flow[column] or 0 for flow in status["flows"])


def _and(tuples: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("/".join(map(str, values)) for values in tuples) or "nothing"


def _none(promise: str, what: str, found: Iterable[Any]) -> Finding:
    names = [str(one) for one in found]
    shown = f"{len(names)}" + (f" ({', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''})" if names else "")
    return Finding(promise, what, shown, kept=not names)


def _count(promise: str, what: str, count: int) -> Finding:
    return Finding(promise, what, str(count), kept=count == 0)


def _is(promise: str, what: str, count: int, right: int) -> Finding:
    return Finding(promise, what, f"{count} of {right}", kept=count == right)


def _within(promise: str, what: str, seconds: Sequence[float], most: float) -> Finding:
    slowest = max(seconds, default=0.0)
    return Finding(promise, what, f"{slowest:.1f} of {most:g} s", kept=slowest <= most)


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
