"""The limit of an idempotent consumer on PostgreSQL: inbox rows and one effect per message, in pipelined groups."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

import psycopg

from benchmarks.sides.running import run

TABLES = """
CREATE TABLE inbox (
  receiver text, message_id uuid, handled_at timestamptz DEFAULT now(), PRIMARY KEY (receiver, message_id));
CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint, note text)
"""
CLAIM = """
INSERT INTO inbox (receiver, message_id) SELECT 'bare', unnest(%s::uuid[]) ON CONFLICT DO NOTHING RETURNING message_id
"""
EFFECT = "INSERT INTO effects (order_id, note) VALUES (%s, %s)"
NOTE = "x" * 40


def groups(database: str, messages: int, group: int) -> Mapping[str, float]:
    """Claim a group in one statement, write its effects through a pipeline, commit."""
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        connection.commit()
        ids = [uuid.uuid4() for _ in range(messages)]
        began = time.perf_counter()
        for start in range(0, messages, group):
            part = ids[start : start + group]
            new = {row[0] for row in cursor.execute(CLAIM, (part,))}
            with connection.pipeline():
                for number, message_id in enumerate(part, start):
                    if message_id in new:
                        cursor.execute(EFFECT, (number, NOTE))
            connection.commit()
        return {"rate": messages / (time.perf_counter() - began)}


if __name__ == "__main__":
    run(groups)
