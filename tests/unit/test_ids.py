"""Ids of messages."""

from __future__ import annotations

import uuid

from yeondong.core.ids import new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(new_id())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_begin_with_the_time() -> None:
    first = int(new_id()[:13].replace("-", ""), 16)
    later = int(new_id()[:13].replace("-", ""), 16)

    assert first <= later < first + 60_000


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
