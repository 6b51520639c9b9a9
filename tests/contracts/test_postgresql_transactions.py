"""Transactions on PostgreSQL: in pipeline mode as out of it, and never a handler's to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import psycopg
import pytest
import sqlalchemy

from tests.servers.schemas import schema_of_its_own
from yeondong.core.store import OpenTransaction, Session
from yeondong.errors import ConnectionLost, StoreError
from yeondong.stores.postgresql import PostgresqlStore

INSERT = "INSERT INTO effects (id, name) VALUES (:id, :name)"
EFFECTS = sqlalchemy.Table(
    "effects",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True, autoincrement=False),
    sqlalchemy.Column("name", sqlalchemy.String(50)),
)


@pytest.fixture
def url() -> Iterator[str]:
    with schema_of_its_own() as (url, _):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE effects (id int PRIMARY KEY, name text, tags text[])")
        yield url


@pytest.fixture
def store(url: str) -> PostgresqlStore:
    store = PostgresqlStore(url)
    store.create()
    return store


@pytest.fixture
def session(store: PostgresqlStore) -> Session:
    return store.connect()


@pytest.fixture(params=[False, True], ids=["alone", "together"])
def together(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM effects ORDER BY id")]


def insert_and_commit(tx: OpenTransaction, ids: Iterable[int]) -> None:
    for id in ids:
        tx.execute(INSERT, {"id": id, "name": "x"})
    tx.commit()


def test_rows_and_their_number_are_read_in_the_midst_of_it(session: Session, url: str, together: bool) -> None:
    tx = session.begin("test", together=together)
    tx.execute(INSERT, [{"id": number, "name": f"n{number}"} for number in range(3)])
    found = list(tx.execute("SELECT id, name FROM effects WHERE id > :id ORDER BY id", {"id": 0}))
    changed = tx.connection.execute("UPDATE effects SET name = 'x' WHERE id = 99").rowcount
    cursor = tx.connection.cursor()
    cursor.execute("UPDATE effects SET name = 'two' WHERE id = %s RETURNING name", (2,))
    described = cursor.description
    tx.commit()

    assert found == [(1, "n1"), (2, "n2")]
    assert changed == 0
    assert [column.name for column in described] == ["name"]
    assert names(url) == ["n0", "n1", "two"]


def test_sqlalchemy_rides_along(session: Session, url: str, together: bool) -> None:
    tx = session.begin("test", together=together)
    tx.execute(INSERT, {"id": 1, "name": "one"})
    tx.execute(sqlalchemy.insert(EFFECTS), [{"id": 2, "name": "two"}, {"id": 3, "name": "three"}])
    found = list(tx.execute(sqlalchemy.select(EFFECTS.c.name).where(EFFECTS.c.id.in_([1, 3])).order_by("id")))
    tx.commit()

    assert [row[0] for row in found] == ["one", "three"]
    assert names(url) == ["one", "two", "three"]


def test_an_error_is_met_by_the_commit_at_the_latest(session: Session, url: str, together: bool) -> None:
    tx = session.begin("test", together=together)
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert_and_commit(tx, (1, 2, 1, 3))
    tx.rollback()

    assert names(url) == []
    again = session.begin("test", together=together)
    again.execute(INSERT, {"id": 1, "name": "one"})
    again.commit()
    assert names(url) == ["one"]


def test_an_error_that_the_handler_caught_is_not_taken_for_success(session: Session, url: str, together: bool) -> None:
    tx = session.begin("test", together=together)
    tx.execute(INSERT, {"id": 1, "name": "one"})
    with pytest.raises(psycopg.errors.UniqueViolation):
        list(tx.execute(INSERT + " RETURNING id", {"id": 1, "name": "again"}))

    with pytest.raises((StoreError, psycopg.Error)):
        tx.commit()
    assert names(url) == []


def test_what_may_fail_runs_within_a_savepoint(session: Session, url: str) -> None:
    tx = session.begin("test")
    tx.execute(INSERT, {"id": 1, "name": "one"})
    with pytest.raises(psycopg.errors.UniqueViolation), tx.connection.transaction():
        tx.execute(INSERT, {"id": 1, "name": "again"})
    tx.execute(INSERT, {"id": 2, "name": "two"})
    tx.commit()

    assert names(url) == ["one", "two"]


def test_a_savepoint_in_which_something_failed_commits_nothing_wrong_together(session: Session, url: str) -> None:
    tx = session.begin("test", together=True)
    tx.execute(INSERT, {"id": 1, "name": "one"})
    try:
        with pytest.raises(psycopg.Error), tx.connection.transaction():
            list(tx.execute(INSERT + " RETURNING id", {"id": 1, "name": "again"}))
        tx.execute(INSERT, {"id": 2, "name": "two"})
        tx.commit()
    except (StoreError, psycopg.Error):
        tx.rollback()
        assert names(url) == []
    else:
        assert names(url) == ["one", "two"]


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT", "commit and chain", " /* done */ -- so\n Commit", "END", "ABORT", "ROLLBACK", "rollback work",
        "BEGIN", "START  TRANSACTION", "PREPARE TRANSACTION 'x'", "INSERT INTO effects VALUES (9, ';'); COMMIT",
    ],
)  # fmt: skip
def test_a_handler_cannot_end_it_by_any_statement(session: Session, url: str, together: bool, statement: str) -> None:
    tx = session.begin("test", together=together)
    tx.execute(INSERT, {"id": 1, "name": "one"})
    for refused in (
        lambda: tx.execute(statement),
        lambda: tx.connection.execute(statement),
        lambda: tx.connection.cursor().execute(statement.encode()),
        lambda: tx.connection.execute(psycopg.sql.SQL(statement)),
        lambda: tx.execute(sqlalchemy.text(statement)),
    ):
        with pytest.raises(StoreError, match="refused"):
            refused()
    assert tx.current()
    tx.rollback()

    assert names(url) == []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO effects (id, name) VALUES (1, '; commit')",
        "INSERT INTO effects (id, name) VALUES (1, $$; rollback $$)",
        "DO $$ BEGIN INSERT INTO effects (id, name) VALUES (1, 'x'); END $$",
        "/* ; commit */ INSERT INTO effects (id, name) VALUES (1, 'x')",
    ],
)
def test_a_statement_that_only_speaks_of_it_is_run(session: Session, url: str, statement: str) -> None:
    tx = session.begin("test")
    tx.execute(statement)
    tx.commit()

    assert len(names(url)) == 1


def test_parameters_are_found_and_nothing_else_is_taken_for_one(session: Session) -> None:
    tx = session.begin("test")
    ((row),) = tx.execute(
        "SELECT :n::int + 1, ':n', '%', 7 % 4, (ARRAY[1, 2, 3])[1:2], E'it\\'s :n', $$ :n $$ -- :n", {"n": 4}
    )
    assert row == (5, ":n", "%", 3, [1, 2], "it's :n", " :n ")
    with pytest.raises(LookupError, match="asks for :n, :m"):
        tx.execute("SELECT :n, :m", {"n": 1})
    tx.rollback()


def test_a_terminated_backend_is_an_outage(session: Session, url: str, together: bool) -> None:
    tx = session.begin("test", together=together)
    ((pid,),) = tx.execute("SELECT pg_backend_pid()")
    with psycopg.connect(url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with pytest.raises((ConnectionLost, psycopg.Error)) as raised:
        insert_and_commit(tx, range(1_000))
    tx.rollback()

    assert isinstance(raised.value, ConnectionLost) or session.lost(raised.value, tx) is not None
    again = session.begin("test", together=together)
    again.execute(INSERT, {"id": 1, "name": "one"})
    again.commit()
    assert names(url) == ["one"]


def test_the_outage_of_another_database_of_the_handler_is_none_of_ours(session: Session) -> None:
    tx = session.begin("test")
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("postgresql://postgres@127.0.0.1:1/none", connect_timeout=2)

    assert session.lost(raised.value, tx) is None
    tx.rollback()
    assert session.lost(raised.value, tx) is None
    assert session.lost(raised.value) is not None


def test_an_outage_that_the_handler_met_elsewhere_first_is_ours_too(session: Session, url: str) -> None:
    tx = session.begin("test")
    ((pid,),) = tx.execute("SELECT pg_backend_pid()")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    tx.rollback()

    assert session.lost(psycopg.OperationalError("server closed the connection unexpectedly"), tx) is not None
