"""recovers: Kafka goes away in every way there is, while orders are placed. An outage parks nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.acceptance import orders
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.outages import Customers, Site
from tests.acceptance.world import Process, until
from tests.servers.kafka import PrivateKafka
from tests.servers.shared import unique

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server() -> Iterator[PrivateKafka]:
    with PrivateKafka() as server:
        yield server


@pytest.fixture
def site_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[Callable[..., Site]]:
    """Makes the site that has its topics at this address, behind a prefix."""
    monkeypatch.chdir(tmp_path)
    made: list[Site] = []

    def make(broker: str, prefix: str = "") -> Site:
        made.append(Site(tmp_path, database, broker, prefix))
        orders.prepare(orders.make())
        return made[0]

    yield make
    for site in made:
        site.end()


def killed(server: PrivateKafka) -> None:
    server.kill()
    time.sleep(3)
    server.start()


def standing_still(server: PrivateKafka) -> None:
    server.pause()
    time.sleep(20)
    server.resume()


@pytest.mark.parametrize("outage", [killed, standing_still])
def test_kafka_is(site_at: Callable[..., Site], server: PrivateKafka, outage: Callable[[PrivateKafka], None]) -> None:
    site = site_at(server.url)
    site.work()
    with Customers(pause_seconds=0.2).ordering() as customers:
        site.under_load()
        before = customers.rounds
        outage(server)
        assert customers.rounds > before, "customers had to wait for the broker"

    site.recovered()
    assert site.noticed()
    site.stop()
    assert site.wrong() == []
    site.blameless()


def test_flows_wait_for_a_deleted_topic_and_begin_the_new_one_at_its_start(
    site_at: Callable[..., Site], kafka: str
) -> None:
    site = site_at(kafka, f"{unique('deleted')}.")
    relay, *workers = site.work()
    place(rounds=range(20))
    site.recovered()
    effects, letters = site.effects(), orders.LETTERS.read_text().splitlines()

    admin = AdminClient({"bootstrap.servers": kafka.removeprefix("kafka://")})
    topic = f"{site.prefix}orders"
    admin.delete_topics([topic])[topic].result(20)
    place(rounds=range(20, 25))
    why = f"there is no topic '{topic}'"
    for process, flow in [(relay, "outbox"), (workers[0], "orders/search"), (workers[1], "orders/letters")]:
        until(partial(paused, process, flow, why), f"{flow} has paused and says why")
    assert site.effects() == effects
    assert orders.LETTERS.read_text().splitlines() == letters

    orders.prepare(orders.make())  # it makes what is missing
    site.recovered()
    assert any("kafka.topic_made_anew" in worker.log() for worker in workers)
    place(rounds=range(25, 30))
    site.recovered()
    site.stop()
    assert site.wrong() == []
    site.blameless()
    assert set(letters).isdisjoint(orders.LETTERS.read_text().splitlines()[len(letters) :])


def place(rounds: range) -> None:
    app = orders.make()
    for number in rounds:
        orders.place(app, [OrderPlaced(f"c{customer:02}", number) for customer in range(5)])


def paused(process: Process, flow: str, why: str) -> bool:
    return any(f"flow.paused flow='{flow}'" in line and why in line for line in process.log().splitlines())
