"""The outbox on PostgreSQL: what one look may read, and what lookups cost."""

from __future__ import annotations

import psycopg

from yeondong.stores.postgresql import PostgresqlStore
from yeondong.testing.store_suite.scene import ids, message


def test_no_look_reads_much_more_than_8_mib(database: str) -> None:
    store = PostgresqlStore(database)
    store.create()
    many = [message(f"m{number:02}", data=bytes(1 << 20)) for number in range(12)]
    with psycopg.connect(database) as connection:
        store.add(connection, many)
    session = store.connect()
    session.outbox_log.resume()

    first = session.outbox.waiting(100, set())
    assert ids(first) == ids(session.outbox_log.read(100)) == [f"m{number:02}" for number in range(8)]
    rest = session.outbox.waiting(100, {each.receipt for each in first})
    assert ids(rest) == ids(session.outbox_log.read(100)) == ["m08", "m09", "m10", "m11"]
    assert ids(session.outbox.waiting(100, set())) == ids(first)
    with psycopg.connect(database) as connection:
        store.add(connection, [message("n1", data=bytes(5000)), message("n2", data=None)])
    assert [len(row.message.data or b"") for row in session.outbox_log.read(100)] == [5000, 0]


def test_a_row_that_others_broke_does_not_hinder_the_rest(database: str) -> None:
    store = PostgresqlStore(database)
    store.create()
    with psycopg.connect(database) as connection:
        store.add(connection, [message("m1"), message("m2")])
        connection.execute("UPDATE yeondong_outbox SET kind = 'rumour', headers = '{' WHERE message_id = 'm1'")

    broken, sound = store.connect().outbox.waiting(10, ())
    assert "rumour" in (broken.flaw or "")
    assert (broken.message.id, sound.flaw, sound.message) == ("m1", None, message("m2"))
