"""A server that loads the app, uses it, and then forks its workers, as gunicorn does with --preload."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from datetime import timedelta

from tests.acceptance import orders
from tests.acceptance.orders import OrderPlaced
from yeondong import Yeondong
from yeondong.core.store import Session

CHILDREN = 2
EACH = 5
TIMEOUT = timedelta(seconds=20)


def use(app: Yeondong, session: Session, who: str, first: int = 0) -> None:
    """Publish, place in a transaction, and read and write with a session that may be inherited."""
    for number in range(first, first + EACH):
        order = OrderPlaced(f"published by {who}", number)
        with app.transaction() as tx:
            orders.note(tx, [order])
        app.publish(order, timeout=TIMEOUT)
        orders.place(app, [OrderPlaced(f"placed by {who}", number)])
        session.flows.pause(f"{who} {number}", "written")
        assert session.flows.control(f"{who} {number}").paused == "written"


def publish_until(over: threading.Event, begun: threading.Event, app: Yeondong) -> None:
    """Write without a pause, on connections that stay open: opening one just when a process forks is not safe."""
    session = app.store.connect()
    for number in itertools.count():
        order = OrderPlaced("published meanwhile", number)
        tx = session.begin("publisher")
        orders.note(tx, [order])
        time.sleep(0.005)
        tx.commit()
        app.publish(order, timeout=TIMEOUT)
        begun.set()
        if over.is_set():
            return


def main(*, busy: bool) -> None:
    app = orders.make()
    session = app.store.connect()
    use(app, session, "parent")
    over, begun = threading.Event(), threading.Event()
    publisher = threading.Thread(target=publish_until, args=(over, begun, app))
    if busy:
        # Another thread has locks, connections and mostly a transaction at the moment of the fork.
        publisher.start()
        begun.wait()

    children = []
    for child in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            use(app, session, f"child {child}")
            sys.exit(0)  # with all that an interpreter does at its end, also to what it inherited
        children.append(pid)
    use(app, session, "parent", first=EACH)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    use(app, session, "parent", first=2 * EACH)

    if busy:
        over.set()
        publisher.join()
    sys.exit(any(ends))


if __name__ == "__main__":
    main(busy=sys.argv[1] == "busy")
