"""The transaction that carries an effect, its inbox row and its outbox rows."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy
from msgspec import Struct

from yeondong.core.store import OpenTransaction
from yeondong.errors import StoreError, TransactionError
from yeondong.testing.store_suite.scene import GROUP, Scene, message

EFFECTS = sqlalchemy.Table(
    "suite_effects",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True, autoincrement=False),
    sqlalchemy.Column("name", sqlalchemy.String(50)),
)
INSERT = "INSERT INTO suite_effects (id, name) VALUES (:id, :name)"
SELECT = "SELECT name FROM suite_effects WHERE id >= :id ORDER BY id"


class Record(Struct):
    id: int
    name: str


@dataclass(slots=True)
class Dataclass:
    id: int
    name: str


class Plain:
    def __init__(self, id: int, name: str) -> None:
        self.id = id
        self.name = name


def commits(tx: OpenTransaction) -> None:
    tx.connection.commit()


def rolls_back(tx: OpenTransaction) -> None:
    tx.connection.rollback()


def commits_and_begins_another(tx: OpenTransaction) -> None:
    tx.connection.commit()
    tx.connection.cursor().execute("BEGIN")


def rolls_back_and_begins_another(tx: OpenTransaction) -> None:
    tx.connection.rollback()
    tx.connection.cursor().execute("BEGIN")


def executes_commit(tx: OpenTransaction) -> None:
    tx.connection.cursor().execute("COMMIT")


def executes_rollback(tx: OpenTransaction) -> None:
    tx.execute("ROLLBACK")


ENDS = [
    commits,
    rolls_back,
    commits_and_begins_another,
    rolls_back_and_begins_another,
    executes_commit,
    executes_rollback,
]


class TransactionSuite:
    """Begin, execute, commit, roll back; and prepare, connect, watch."""

    @pytest.fixture
    def effects(self, scene: Scene) -> Scene:
        """Make a table of an application in the store's database."""
        tx = scene.session.begin("test")
        tx.connection.cursor().execute(str(sqlalchemy.schema.CreateTable(EFFECTS)))
        tx.commit()
        return scene

    def names(self, scene: Scene) -> list[str]:
        with scene.committed(scene.rival) as tx:
            return [row[0] for row in tx.execute(SELECT, {"id": 0})]

    def test_effect_inbox_row_and_outbox_row_commit_together(self, effects: Scene) -> None:
        with effects.committed() as tx:
            effects.session.inbox.claim(tx, GROUP, ["m1"])
            tx.execute(INSERT, {"id": 1, "name": "one"})
            effects.store.add(tx, [message("m2")])

        assert self.names(effects) == ["one"]
        assert effects.claim("m1") == set()
        assert effects.waiting() == ["m2"]

    def test_a_transaction_of_several_messages_is_one_too(self, effects: Scene) -> None:
        tx = effects.session.begin("test", together=True)
        new = effects.session.inbox.claim(tx, GROUP, ["m1", "m2", "m3"])
        for id in (1, 2):
            tx.execute(INSERT, Record(id, f"n{id}"))
            effects.store.add(tx, [message(f"out {id}")])
            assert tx.current()
        found = [row[0] for row in tx.execute(SELECT, {"id": 2})]
        effects.session.inbox.unclaim(tx, GROUP, ["m3"])
        tx.commit()

        assert new == {"m1", "m2", "m3"}
        assert found == ["n2"]
        assert self.names(effects) == ["n1", "n2"]
        assert effects.claim("m1", "m2", "m3") == {"m3"}
        assert effects.waiting() == ["out 1", "out 2"]

    def test_an_error_among_several_messages_is_told_by_the_commit_at_the_latest(self, effects: Scene) -> None:
        def fail() -> None:
            for id in (1, 1, 2):
                tx.execute(INSERT, Record(id, f"n{id}"))
            tx.commit()

        tx = effects.session.begin("test", together=True)
        effects.session.inbox.claim(tx, GROUP, ["m1"])
        with pytest.raises(Exception, match=r"(?i)unique") as raised:
            fail()
        assert effects.session.lost(raised.value, tx) is None
        tx.rollback()

        assert self.names(effects) == []
        assert effects.claim("m1") == {"m1"}

    def test_a_transaction_that_is_rolled_back_leaves_nothing(self, effects: Scene) -> None:
        tx = effects.session.begin("test")
        effects.session.inbox.claim(tx, GROUP, ["m1"])
        tx.execute(INSERT, {"id": 1, "name": "one"})
        effects.store.add(tx, [message("m2")])
        tx.rollback()

        assert self.names(effects) == []
        assert effects.claim("m1") == {"m1"}
        assert effects.waiting() == []

    def test_nobody_sees_what_is_not_committed(self, scene: Scene) -> None:
        tx = scene.session.begin("test")
        scene.store.add(tx, [message("m1")])

        assert scene.rival.outbox.waiting(10, ()) == []
        tx.commit()
        assert len(scene.rival.outbox.waiting(10, ())) == 1

    def test_a_transaction_is_current_until_it_ends(self, scene: Scene) -> None:
        tx = scene.session.begin("test")
        assert tx.current()
        assert tx.current()
        scene.session.inbox.claim(tx, GROUP, ["m1"])
        assert tx.current()
        tx.commit()
        assert not tx.current()

    @pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
    def test_a_handler_cannot_end_the_transaction_unnoticed(
        self, scene: Scene, end: Callable[[OpenTransaction], None]
    ) -> None:
        tx = scene.session.begin("test")
        scene.session.inbox.claim(tx, GROUP, ["m1"])
        try:
            end(tx)
        except Exception:  # noqa: BLE001 -- the driver's own, or ours: a store that can refuse does so
            assert tx.current()
            tx.rollback()
            assert scene.claim("m1") == {"m1"}
        else:
            assert not tx.current()
            with pytest.raises(StoreError, match="transaction"):
                tx.commit()
        assert scene.claim("m2") == {"m2"}

    def test_a_savepoint_of_the_handler_does_no_harm(self, effects: Scene) -> None:
        with effects.committed() as tx:
            tx.execute("SAVEPOINT theirs")
            tx.execute(INSERT, {"id": 1, "name": "one"})
            tx.execute("ROLLBACK TO SAVEPOINT theirs")
            tx.execute(INSERT, {"id": 2, "name": "two"})
            assert tx.current()

        assert self.names(effects) == ["two"]

    def test_rolling_back_twice_is_harmless(self, scene: Scene) -> None:
        tx = scene.session.begin("test")
        tx.rollback()
        tx.rollback()
        assert not tx.current()
        assert scene.claim("m1") == {"m1"}

    @pytest.mark.parametrize(
        "values", [{"id": 7, "name": "seven"}, Record(7, "seven"), Dataclass(7, "seven"), Plain(7, "seven")],
        ids=["mapping", "struct", "dataclass", "object"],
    )  # fmt: skip
    def test_parameters_come_from_a_mapping_or_from_fields(self, effects: Scene, values: Any) -> None:
        with effects.committed() as tx:
            tx.execute(INSERT, values)

        assert self.names(effects) == ["seven"]

    def test_a_statement_runs_once_for_each_of_a_sequence(self, effects: Scene) -> None:
        with effects.committed() as tx:
            tx.execute(INSERT, [Record(1, "one"), {"id": 2, "name": "two"}])
            tx.execute(INSERT, [])

        assert self.names(effects) == ["one", "two"]

    def test_a_sqlalchemy_statement_runs_once_for_each_of_a_sequence(self, effects: Scene) -> None:
        with effects.committed() as tx:
            tx.execute(sqlalchemy.insert(EFFECTS), (Record(1, "one"), {"id": 2, "name": "two"}))
            tx.execute(sqlalchemy.insert(EFFECTS), [])

        assert self.names(effects) == ["one", "two"]

    def test_sqlalchemy_statements_run_in_the_same_transaction(self, effects: Scene) -> None:
        tx = effects.session.begin("test")
        tx.execute(sqlalchemy.insert(EFFECTS), [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}])
        tx.execute(sqlalchemy.insert(EFFECTS), Record(3, "three"))
        tx.execute(sqlalchemy.update(EFFECTS).where(EFFECTS.c.id == 2).values(name="zwei"))
        found = list(tx.execute(sqlalchemy.select(EFFECTS.c.name).where(EFFECTS.c.id.in_([2, 3])).order_by("id")))

        assert [row[0] for row in found] == ["zwei", "three"]
        assert tx.current()
        tx.rollback()
        assert self.names(effects) == []

    def test_an_error_of_a_statement_is_no_outage(self, effects: Scene) -> None:
        tx = effects.session.begin("test")
        with pytest.raises(Exception, match=r"no_such_table") as raised:
            tx.execute("SELECT 1 FROM no_such_table")
        assert effects.session.lost(raised.value, tx) is None
        tx.rollback()

        assert effects.session.lost(raised.value, tx) is None
        assert effects.session.lost(raised.value) is None
        assert effects.session.lost(ValueError("theirs"), tx) is None

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_a_transaction_that_is_over_takes_no_more(self, effects: Scene, end: str) -> None:
        tx = effects.session.begin("test")
        getattr(tx, end)()
        with pytest.raises(StoreError, match="over"):
            tx.execute(INSERT, {"id": 1, "name": "late"})
        with pytest.raises(TransactionError, match="over"):
            effects.store.add(tx, [message("late")])
        with effects.committed():  # also while the next one is open on the same connection
            with pytest.raises(StoreError, match="over"):
                tx.execute(sqlalchemy.insert(EFFECTS), {"id": 1, "name": "late"})
            with pytest.raises(TransactionError, match="over"):
                effects.store.add(tx, [message("late")])

        assert self.names(effects) == []
        assert effects.waiting() == []

    def test_two_transactions_may_be_open_at_once(self, scene: Scene) -> None:
        scene.needs(not scene.traits.one_writer, "one writer at a time")
        with scene.committed(scene.rival) as other, scene.committed() as tx:
            assert scene.session.inbox.claim(tx, GROUP, ["m1"]) == {"m1"}
            assert scene.rival.inbox.claim(other, GROUP, ["m2"]) == {"m2"}

    def test_add_refuses_what_is_no_transaction(self, scene: Scene) -> None:
        with pytest.raises(TransactionError, match="object"):
            scene.store.add(object(), [message("m1")])

    def test_a_closed_session_connects_anew(self, scene: Scene) -> None:
        scene.claim("m1")
        scene.session.close()
        scene.session.close()

        assert scene.claim("m1", "m2") == {"m2"}

    def test_preparing_again_makes_nothing(self, scene: Scene) -> None:
        scene.add(message("m1"))

        assert scene.rival_store.prepare() is None
        assert scene.store.create() == []
        assert scene.store.check() == []
        assert scene.waiting() == ["m1"]

    def test_the_statements_name_what_they_create(self, scene: Scene) -> None:
        text = "\n".join(scene.store.statements())

        for table in ("outbox", "inbox", "held", "leases", "positions"):
            assert f"yeondong_{table}" in text

    def test_who_watches_is_woken_when_another_commits(self, scene: Scene) -> None:
        scene.needs(scene.store.poll_seconds is None, "whoever waits for commits looks for them")
        woken: list[int] = []
        unwatch = scene.store.watch(lambda: woken.append(1))
        scene.until(lambda: woken)  # the first look tells that there may have been something before
        for number in range(3):
            woken.clear()
            with scene.committed(scene.rival) as tx:
                scene.rival_store.add(tx, [message(f"m{number}")])
            scene.until(lambda: woken)
        unwatch()
        unwatch()
