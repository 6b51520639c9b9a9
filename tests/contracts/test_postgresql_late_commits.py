"""However late transactions commit: nothing is lost, nothing sent twice, and each key keeps its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import pytest

from tests.contracts.late_commits import ByPosition, ByStatus, MakeReader, torture
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.store import Store
from yeondong.stores.postgresql import snapshots
from yeondong.stores.postgresql.snapshots import Snapshot
from yeondong.testing.store_suite.scene import message


@pytest.mark.parametrize("make", [ByStatus, ByPosition])
@pytest.mark.parametrize("seed", [1, 2])
def test_late_commits_lose_repeat_and_disorder_nothing(
    database: str, new_database: Callable[[], str], make: MakeReader, seed: int
) -> None:
    assert torture(database, new_database(), make, seed) == []


# --- the same test, with relays that are known to be wrong ------------------------------------------------------------


@dataclass
class AboveTheLast:
    """What everybody writes first: the rows with ids above the last one."""

    url: str
    saved: list[int]

    def read(self, limit: int) -> Sequence[Delivery]:
        statement = "SELECT id, message_id FROM yeondong_outbox WHERE id > %s ORDER BY id LIMIT %s"
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(statement, (self.saved[-1], limit)).fetchall()
        return [Delivery(message(row[1]), row[0], "outbox") for row in rows]

    def sent(self, deliveries: Sequence[Delivery]) -> None:
        self.saved.append(deliveries[-1].receipt)


def test_ids_above_the_last_one_lose_messages(database: str, new_database: Callable[[], str]) -> None:
    saved = [0]

    def make(_store: Store, _fence: Fence) -> AboveTheLast:
        return AboveTheLast(database, saved)

    assert any("never sent" in found for found in torture(database, new_database(), make, seed=1))


@pytest.mark.parametrize("make", [ByStatus, ByPosition])
def test_a_cursor_that_passes_open_transactions_loses_messages(
    database: str, new_database: Callable[[], str], make: MakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(text: str) -> Snapshot:
        found = whole(text)
        return Snapshot(f"{found.first}:{found.first}:", found.first, ())

    whole = snapshots.snapshot
    for module in ("windows", "outbox", "outbox_log"):
        monkeypatch.setattr(f"yeondong.stores.postgresql.{module}.snapshot", blind)

    assert any("never sent" in found for found in torture(database, new_database(), make, seed=1))


@pytest.mark.parametrize("make", [ByStatus, ByPosition])
def test_a_window_in_another_order_than_that_of_ids_disorders_keys(
    database: str, new_database: Callable[[], str], make: MakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yeondong.stores.postgresql.windows._by_id", lambda row: (hash(row[2]), row[0]))

    assert any("after number" in found for found in torture(database, new_database(), make, seed=1))
