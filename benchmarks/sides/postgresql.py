"""What the sides on PostgreSQL share: our tables, filled with rows that wait."""

from __future__ import annotations

import psycopg

from yeondong import Yeondong

KEYS = 1_000
EACH = 100  # rows of one transaction
PAYLOAD_START = '{"order_id":00000000,"customer":"customer-000","note":"'

# As an application writes them: a few rows in each transaction, ids that rise with the time.
FILL = """
DO $$
BEGIN
  FOR t IN 0..{transactions} - 1 LOOP
    INSERT INTO yeondong_outbox
      (message_id, message_type, kind, channel, key, payload, origin, occurred_at, partition, status)
    SELECT lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000', 'Order', 'event', '{channel}',
      'customer-' || lpad((i % {keys})::text, 3, '0'),
      convert_to('{{"order_id":' || 10000000 + i || ',"customer":"customer-' || lpad((i % {keys})::text, 3, '0')
        || '","note":"' || repeat('x', {note}) || '"}}', 'UTF8'),
      '/measured', now(), i % 64, '{status}'
    FROM generate_series({start} + t * {each}, {start} + (t + 1) * {each} - 1) AS i;
    COMMIT;
  END LOOP;
END $$
"""


def fill(app: Yeondong, database: str, rows: int, size: int, *, channel: str = "orders") -> None:
    """Make the tables and write rows that wait; leave nothing behind that the server would do later."""
    app.store.create()
    with psycopg.connect(database, autocommit=True) as connection:
        insert(connection, rows, size, channel=channel)
        settle_down(connection)


def insert(
    connection: psycopg.Connection,
    rows: int,
    size: int,
    *,
    channel: str = "orders",
    status: str = "WAITING",
    start: int = 0,
    each: int = EACH,
) -> None:
    """Write rows, so many in each transaction."""
    note = size - len(PAYLOAD_START) - len('"}')
    connection.execute("SET synchronous_commit = off")
    connection.execute(
        FILL.format(
            transactions=rows // each, channel=channel, keys=KEYS, note=note, status=status, start=start, each=each
        )
    )
    connection.execute("RESET synchronous_commit")


def settle_down(connection: psycopg.Connection) -> None:
    """Do now what the server would do while we measure."""
    connection.execute("VACUUM ANALYZE yeondong_outbox")
    connection.execute("CHECKPOINT")
