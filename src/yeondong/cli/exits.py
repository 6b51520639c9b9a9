"""With what a command ends: the same codes everywhere, so that probes and scripts can rely on them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from yeondong.errors import ConnectionLost, StoreError, YeondongError


class Exit(IntEnum):
    """Exit codes. The command line's help and ``docs/reference/command-line.md`` say the same."""

    OK = 0
    ATTENTION = 1
    USAGE = 2
    UNUSABLE = 3
    STILL_AT_WORK = 4
    NO_WORKER = 5
    BUG = 70
    INTERRUPTED = 130


MEANINGS: Final = {
    Exit.OK: "all is well, or what was asked is done",
    Exit.ATTENTION: "a person is needed: failures, a stopped flow, an old backlog, a difference that a check found",
    Exit.USAGE: "the command, the app's declarations or its settings are wrong",
    Exit.UNUSABLE: "the store or the broker cannot be used: away, locked, full, damaged, without its tables",
    Exit.STILL_AT_WORK: "a handler was still at work: run, relay after the grace period, flows pause after --wait",
    Exit.NO_WORKER: "status: no worker is alive, for the app or for one of its flows",
    Exit.BUG: "an error inside yeondong; --debug shows the traceback",
    Exit.INTERRUPTED: "ended at once by Ctrl-C: by the second one where the first stops safely",
}


def exit_of(error: BaseException) -> Exit:
    """Return the code for an error that ended a command."""
    match error:
        case ConnectionLost() | StoreError():
            return Exit.UNUSABLE
        case YeondongError():
            return Exit.USAGE
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case _:
            return Exit.BUG
