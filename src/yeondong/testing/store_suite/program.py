"""The other process of the suite: it does one thing to the store, and is killed.

``python program.py ACTION MODULE:CALLABLE ARGUMENT …`` opens the store as ``CALLABLE(ARGUMENT)``.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

from yeondong.core.store import OpenTransaction, Session, Store
from yeondong.testing.store_suite.scene import hold, message


def main(action: str, factory: str, argument: str, *more: str) -> None:
    module, _, name = factory.partition(":")
    store: Store = getattr(import_module(module), name)(argument)
    session = store.connect()
    match action:
        case "open":
            write(store, session)
            say("open")
            sys.stdin.read()
        case "commit":
            write(store, session).commit()
            die()
        case "hold":
            session.held.put(more[0], [hold("m1"), hold("m2")], [])
            die()
        case "lease":
            fence = session.leases.take(more[0], "killed", float(more[1]))
            say("none" if fence is None else str(fence.epoch))
            sys.stdin.read()
        case "claim":
            for number in range(int(more[0])):
                claimer = session.begin("claim")
                new = session.inbox.claim(claimer, "claimed", [f"m{number}"])
                claimer.commit()
                say(" ".join(new))
        case _:
            sys.exit(f"no action {action!r}")


def write(store: Store, session: Session) -> OpenTransaction:
    tx = session.begin("killed")
    session.inbox.claim(tx, "killed", ["m1"])
    store.add(tx, [message("m1")])
    return tx


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
