"""recovers: PostgreSQL goes away in every way there is, while orders are placed. An outage parks nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance import orders
from tests.acceptance.outages import Customers, Site
from tests.acceptance.world import until
from tests.servers.postgresql import PrivatePostgresql
from tests.servers.shared import unique

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server() -> Iterator[PrivatePostgresql]:
    with PrivatePostgresql() as server:
        yield server


@pytest.fixture
def site_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: PrivatePostgresql, kafka: str
) -> Iterator[Callable[[str], Site]]:
    """Makes the site in the database of that name."""
    monkeypatch.chdir(tmp_path)
    made: list[Site] = []

    def make(name: str) -> Site:
        made.append(Site(tmp_path, server.url(name), kafka, prefix=f"{unique('outage')}."))
        orders.prepare(orders.make())
        return made[0]

    yield make
    for site in made:
        site.end()


def restarted(server: PrivatePostgresql, _name: str) -> None:
    server.restart()


def killed(server: PrivatePostgresql, _name: str) -> None:
    server.kill()
    server.start()


def sessions_ended(server: PrivatePostgresql, name: str) -> None:
    for _ in range(3):
        assert server.terminate_backends(name) > 0
        time.sleep(0.3)


def unreachable(server: PrivatePostgresql, _name: str) -> None:
    """Nobody listens on the port for 10 seconds."""
    server.stop()
    time.sleep(10)
    server.start()


def turned_away(server: PrivatePostgresql, name: str) -> None:
    """The server is up, ends all sessions, and lets nobody in."""
    with server.refusing(name):
        time.sleep(3)


@pytest.mark.parametrize("outage", [restarted, killed, sessions_ended, unreachable, turned_away])
def test_postgresql_is(
    site_on: Callable[[str], Site], server: PrivatePostgresql, outage: Callable[[PrivatePostgresql, str], None]
) -> None:
    name = server.create_database()
    site = site_on(name)
    site.work()
    with Customers().ordering() as customers:
        site.under_load()
        outage(server, name)
        customers.order_on()

    site.recovered()
    if outage in (unreachable, turned_away):
        assert site.noticed()
    site.stop()
    assert site.wrong() == []
    site.blameless()


def test_a_full_disk_pauses_flows_until_there_is_room(
    site_on: Callable[[str], Site], server: PrivatePostgresql
) -> None:
    site = site_on(server.create_database(server.add_small_disk(40)))
    _relay, *workers = site.work()
    site.rows("CREATE TABLE filler (content text)")
    with Customers().ordering() as customers:
        site.under_load()
        for worker in workers:  # what waits for them needs more room than is left in the pages there are
            worker.pause()
        customers.order_on(40)
        until(lambda: full(site) and customers.refused > 0, "no order has room any more")
        for worker in workers:
            worker.go_on()
        until(lambda: any("flow.paused" in worker.log() for worker in workers), "a flow has paused")
        site.rows("DROP TABLE filler")
        customers.order_on()

    site.recovered()
    assert site.noticed()
    site.stop()
    assert site.wrong() == []
    site.blameless()


def full(site: Site) -> bool:
    """Take what room there is, down to the last page."""
    for rows in (1_000, 100, 10, 1):
        with contextlib.suppress(psycopg.errors.DiskFull):
            while True:
                site.rows("INSERT INTO filler SELECT repeat('x', 1900) FROM generate_series(1, %s)", rows)
    return True
