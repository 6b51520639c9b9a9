"""`yeondong run` and `yeondong relay`: the processes that do the work."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import click

from yeondong.app import Yeondong
from yeondong.app.assembly import Parts, make_worker
from yeondong.cli.command import AppCommand, F
from yeondong.cli.exits import Exit
from yeondong.cli.loading import Chosen, is_there
from yeondong.cli.printing import note, say
from yeondong.cli.wording import counted, plain
from yeondong.core.broker import refuse_second_receivers
from yeondong.engine.worker import Worker

log = logging.getLogger("yeondong.cli")

RUN_EXAMPLES = """
yeondong run shop.app
yeondong run shop.app --no-relay -v
YEONDONG_APP=shop.app YEONDONG_STORE=sqlite:////var/lib/shop.db yeondong run
"""
RELAY_EXAMPLES = """
yeondong relay shop.app
yeondong relay shop.app -q
"""
EXITS = (Exit.OK, Exit.USAGE, Exit.UNUSABLE, Exit.STILL_AT_WORK, Exit.INTERRUPTED)
LOOK_SECONDS = 0.2
STOPPING = """
    SIGTERM or Ctrl-C stops safely: nothing new is taken, what is in work may finish within grace_seconds, the rest is
    given back and comes again. A second Ctrl-C ends the process at once.
"""


def _logging_options(function: F) -> F:
    function = click.option("-q", "--quiet", count=True, help="Log warnings only; -qq errors only.")(function)
    return click.option("-v", "--verbose", count=True, help="Log details; -vv those of other libraries too.")(function)


@click.command(
    cls=AppCommand,
    exits=EXITS,
    examples=RUN_EXAMPLES,
    help=f"""Run the flows of APP: handlers, and the outbox's relay.

    What is missing of an embedded store is made; a server's tables never are (yeondong db create). Any number of these
    processes may run: each flow works in one of them, and another takes over from a killed one within lease_seconds.
{STOPPING}""",
)
@click.option(
    "--relay/--no-relay",
    "with_relay",
    default=None,
    help="Whether the outbox is sent from here too.  [default: relay_in_worker, which is true]",
)
@_logging_options
def run(chosen: Chosen, *, with_relay: bool | None, verbose: int, quiet: int) -> Exit:
    relays = chosen.app.settings.relay_in_worker if with_relay is None else with_relay
    return _work(chosen, "all" if relays else "handlers", quiet - verbose)


@click.command(
    cls=AppCommand,
    exits=EXITS,
    examples=RELAY_EXAMPLES,
    help=f"""Run only the relay of APP: it sends what is in the outbox.

    Any number of these processes may run: one works, another takes over from a killed one within lease_seconds.
{STOPPING}""",
)
@_logging_options
def relay(chosen: Chosen, *, verbose: int, quiet: int) -> Exit:
    return _work(chosen, "relay", quiet - verbose)


def _work(chosen: Chosen, parts: Parts, quieter: int) -> Exit:
    configure_logging(quieter)
    app = chosen.app
    for warning in app.settings.warnings():
        log.warning("settings.warning %s", warning)
    _refuse_wrong_declarations(app, parts)
    made = app.store.prepare()
    if made is not None:
        say(plain(made))
    app.broker.prepare(app.channels())
    app.register()
    worker = make_worker(app, parts)
    signals = _Signals()
    worker.start()
    names = ", ".join(flow.name for flow in worker.flows)
    say(plain(f"running {counted(len(worker.flows), 'flow')} of {app.name}: {names}"))
    sys.stdout.flush()
    signals.wait()
    note(f"stopping: handlers may finish within {app.settings.grace_seconds:g} s; Ctrl-C ends at once")
    return _end(worker)


def _refuse_wrong_declarations(app: Yeondong, parts: Parts) -> None:
    """Raise what would be raised below too, before a store is made: what is there is looked at then."""
    runs = [app.relay if parts != "handlers" else None, app.subscriptions if parts != "relay" else None]
    if not any(runs):
        make_worker(app, parts)
    if not is_there(app.broker.address):
        refuse_second_receivers((), app.receivers())
        app.check_sent(app.receivers())


def _end(worker: Worker) -> Exit:
    if _stopped(worker):
        note("stopped: everything in work was finished or given back")
        return Exit.OK
    busy = ", ".join(flow.name for flow in worker.flows if not flow.at_rest)
    note(plain(f"stopped with handlers still at work in {busy}: what they have comes again"))
    # Their threads cannot be ended; the interpreter must not tear down under them either.
    sys.stdout.flush()
    os._exit(Exit.STILL_AT_WORK)


def _stopped(worker: Worker) -> bool:
    with ThreadPoolExecutor(1, "stopping") as threads:
        stopping = threads.submit(worker.stop)
        while True:
            with contextlib.suppress(TimeoutError):
                return stopping.result(LOOK_SECONDS)


class _Signals:
    """The first SIGTERM or SIGINT asks for a safe stop; a second SIGINT ends the process at once.

    Python runs signal handlers in the main thread, and only when it is not blocked: a signal that comes just before it
    blocks would wait for the next one. So the main thread never waits for long.
    """

    def __init__(self) -> None:
        # A SimpleQueue may be filled from a signal handler while this thread waits on it; an Event may deadlock.
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._stopping = False
        self._pid = os.getpid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def wait(self) -> None:
        """Wait until a stop is asked for."""
        while True:
            with contextlib.suppress(Empty):
                self._asked.get(timeout=LOOK_SECONDS)
                return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A process that a handler forked has no worker to stop: it ends as it would without us.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT and self._stopping:
            os.write(2, b"yeondong: ended at once; what was in work comes again\n")
            os._exit(Exit.INTERRUPTED)
        self._stopping = True
        self._asked.put(number)


# --- logging, which the library itself never configures ---------------------------------------------------------------


class _Lines(logging.Formatter):
    """One line for each event: time in UTC, level, event and fields."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        own = record.name.startswith("yeondong")
        line = super().formatMessage(record)
        return line if own else f"{line} logger={record.name!r}"


def configure_logging(quieter: int, stream: Any = None) -> None:
    """Log to standard error: 0 is INFO of yeondong and warnings of others; -1 and -2 tell more, 1 and 2 less."""
    own, others = {
        -2: (logging.DEBUG, logging.DEBUG),
        -1: (logging.DEBUG, logging.WARNING),
        0: (logging.INFO, logging.WARNING),
        1: (logging.WARNING, logging.WARNING),
        2: (logging.ERROR, logging.ERROR),
    }[min(2, max(-2, quieter))]
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler], level=others, force=True)
    logging.getLogger("yeondong").setLevel(own)
