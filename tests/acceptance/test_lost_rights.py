"""A running worker that may no longer use a table says so once, and goes on when a person has mended it."""

from __future__ import annotations

import psycopg

from tests.acceptance.world import until, working
from yeondong import Event, Transaction, Yeondong


class Parcel(Event, channel="parcels", key="number"):
    number: int


def test_a_table_that_is_gone_pauses_the_flow_until_it_is_back(database: str) -> None:
    app = Yeondong("lost_rights", store=database, broker="memory:")
    outbox = app.outbox()
    handled: list[int] = []

    @app.subscribe(Parcel, group="depot")
    def take(parcel: Parcel, tx: Transaction) -> None:
        handled.append(parcel.number)

    app.store.create()
    with psycopg.connect(database, autocommit=True) as person, working(app) as worker:

        def report() -> dict[str, str]:
            return {flow.flow: f"{flow.state} {flow.reason}" for flow in worker.report().flows}

        until(lambda: all(said.startswith("running") for said in report().values()), "all flows run")
        person.execute("ALTER TABLE yeondong_flows RENAME TO away")
        said = until(lambda: [r for r in report().values() if "yeondong_flows" in r], "a flow says what is missing")
        assert "internal error" not in said[0]

        person.execute("ALTER TABLE away RENAME TO yeondong_flows")
        with psycopg.connect(database) as shop:
            outbox.add(shop, Parcel(1))
        until(lambda: handled == [1], "what was added meanwhile is handled")
