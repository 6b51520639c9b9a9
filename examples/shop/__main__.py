"""``python -m examples.shop demo`` runs the shop and judges it; ``check FOLDER`` judges what a demo left behind."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from rich.console import Console

from examples.shop.checker import Least, check, show, write
from examples.shop.demo import LEDGER, Demo, Plan
from examples.shop.place import Nowhere, place_of


def main() -> int:
    """Run what was asked; return 0 if every promise was kept."""
    asked = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    if asked.what == "check":
        return _check(asked.folder, Least(orders=asked.orders, kills=asked.kills), console)
    return _demo(asked, console)


def _demo(asked: argparse.Namespace, console: Console) -> int:
    folder = _empty_folder(asked.folder)
    try:
        place = place_of(os.environ, folder)
    except Nowhere as nowhere:
        sys.exit(f"{nowhere}")
    plan = Plan(
        orders=asked.orders,
        relays=asked.relays or (2 if place.several else 1),
        workers=asked.workers or (3 if place.several else 1),
        relay_lease_seconds=asked.lease,
        worker_lease_seconds=asked.session or max(asked.lease, place.broker.session_seconds),
        kills=asked.kills,
        outage_seconds=asked.outage,
        deadline_seconds=asked.deadline or (240 if place.several else 90),
        seed=asked.seed,
        app=asked.app,
    )
    # As Ctrl-C: the demo ends its processes on its way out.
    signal.signal(signal.SIGTERM, _interrupt)
    console.print(f"the demo's files are in {folder}", highlight=False, soft_wrap=True)
    try:
        with place.made(keep=asked.keep):
            Demo(plan, place, folder, console).run()
    except Nowhere as nowhere:
        sys.exit(f"{nowhere}")
    except KeyboardInterrupt:
        console.print(f"interrupted; everything is in {folder}", highlight=False, soft_wrap=True)
        return 130
    code = _check(folder, Least(orders=asked.orders, kills=asked.kills), console)
    if code == 0 and not asked.keep:
        shutil.rmtree(folder)
    else:
        console.print(f"everything is in {folder}: databases, ledger, logs", highlight=False, soft_wrap=True)
    return code


def _check(folder: Path, least: Least, console: Console) -> int:
    findings = check(folder / LEDGER, least)
    show(findings, console)
    write(findings, folder / "verdict.json")
    broken = sorted({finding.promise for finding in findings if not finding.kept})
    console.print(f"[bold red]not kept: {', '.join(broken)}[/]" if broken else "[bold green]every promise was kept[/]")
    return 1 if broken else 0


def _empty_folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="yeondong-shop-"))
    wanted.mkdir(parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        sys.exit(f"{wanted} is not empty; name a new folder for the demo's files")
    return wanted.resolve()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description=__doc__)
    parts = parser.add_subparsers(dest="what", required=True)
    demo = parts.add_parser("demo", help="run the shop as processes, kill them, and check what they promise")
    demo.add_argument("--folder", type=Path, help="a new folder for its files (default: a temporary one)")
    demo.add_argument("--keep", action="store_true", help="keep the files also when every promise was kept")
    demo.add_argument("--seed", type=int, default=1, help="other customers, other orders")
    demo.add_argument("--relays", type=int, help="how many relays (default: 1, and 2 on PostgreSQL and Kafka)")
    demo.add_argument("--workers", type=int, help="how many workers (default: 1, and 3 on PostgreSQL and Kafka)")
    demo.add_argument(
        "--lease", type=float, default=2.0, metavar="SECONDS", help="until others take a relay's or worker's work over"
    )
    demo.add_argument("--session", type=float, metavar="SECONDS", help="the same for workers on Kafka (default: 6)")
    demo.add_argument("--outage", type=float, default=3.0, metavar="SECONDS", help="how long the partner is away")
    demo.add_argument("--deadline", type=float, metavar="SECONDS", help="give up after this time (default: 90, or 240)")
    demo.add_argument("--app", default="examples.shop.app", help="module with the shop; tests name broken ones here")
    check = parts.add_parser("check", help="judge the files of a demo that were kept")
    check.add_argument("folder", type=Path)
    for part in (demo, check):
        part.add_argument("--orders", type=int, default=450, help="orders to place, rolled back ones aside")
        part.add_argument("--kills", type=int, default=3, help="kills of the relay, and of the worker")
    return parser


if __name__ == "__main__":
    sys.exit(main())
