"""Ending what a worker that stands still has left open."""

from __future__ import annotations

from collections.abc import Collection

from yeondong.connections.postgresql import process_name
from yeondong.stores.postgresql.link import Link

# A handler's transaction has the inbox rows of its messages locked. Where its process stands still (SIGSTOP, a frozen
# container, a host that vanished without a word), whoever was given the same messages would wait for them for ever.
# ``state`` is told to the same role only, which alone may end a session.
END = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND usename = current_user AND datname = current_database() AND state <> 'idle'
  AND EXISTS (
    SELECT 1 FROM unnest(%s::text[]) AS process WHERE right(application_name, length(process) + 1) = ' ' || process)
"""


def end_transactions(link: Link, former: Collection[str], owner: str) -> None:
    """End the open transactions of processes whose leases or partitions ``owner`` has just taken over.

    A process that is well after all, and was only slow, meets an outage: it does again what was undone.
    """
    mine = _process(owner)
    processes = sorted({process for one in former if (process := _process(one)) is not None and process != mine})
    if processes:
        link.read(END, (processes,))


def _process(owner: str) -> str | None:
    """Return the process in a worker's name, HOST-PID-RANDOM, as its connections are called."""
    parts = owner.rsplit("-", 2)
    return process_name(parts[0], parts[1]) if len(parts) == 3 else None  # noqa: PLR2004 - the three of the name
