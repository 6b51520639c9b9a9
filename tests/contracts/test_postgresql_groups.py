"""Groups of messages that share a transaction on PostgreSQL: whose error it is, and what is applied."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

from tests.servers.schemas import schema_of_its_own
from yeondong import Event, Transaction
from yeondong.core.clock import SystemClock
from yeondong.core.delivery import Delivery, Done, Retry, Settled, Unhandled
from yeondong.core.message import Kind, Message
from yeondong.core.store import Session
from yeondong.engine.dispatch import Dispatch
from yeondong.engine.handling import Grouped
from yeondong.engine.lane import Halt
from yeondong.engine.plan import Scope
from yeondong.messaging.handlers import bind
from yeondong.stores.postgresql import PostgresqlStore


class Paid(Event, channel="payments"):
    number: int


INSERT = "INSERT INTO effects (number) VALUES (:number)"


@pytest.fixture
def url() -> Iterator[str]:
    with schema_of_its_own() as (url, _):
        PostgresqlStore(url).create()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE effects (number int PRIMARY KEY CHECK (number <> 13))")
        yield url


@pytest.fixture
def session(url: str) -> Session:
    return PostgresqlStore(url).connect()


def handle(session: Session, handler: Callable[..., Any], numbers: Sequence[int]) -> dict[int, Settled]:
    """Handle messages of these numbers with a lane's work; return what became of each."""
    dispatch = Dispatch(handlers={"Paid": bind(handler, Paid)}, passed_over=frozenset(), park_unknown=True)
    work = Grouped(dispatch, session, Scope("group"))
    lent = [
        Delivery(Message(f"m{n}", "Paid", Kind.EVENT, "payments", None, msgspec.json.encode(Paid(n))), n, "p")
        for n in numbers
    ]
    became: dict[int, Settled] = {}
    while lent:
        settled = list(work(lent, Halt(SystemClock(), None)))
        became |= {delivery.receipt: each for each in settled for delivery in each.deliveries}
        # Work that takes long gives the rest back for a while, which is no outage.
        lent = [delivery for each in settled if each.outcome == Unhandled() for delivery in each.deliveries]
    return became


def applied(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM effects ORDER BY number")]


def outcomes(became: dict[int, Settled]) -> dict[int, type]:
    return {number: type(settled.outcome) for number, settled in became.items()}


def insert(event: Paid, tx: Transaction) -> None:
    tx.execute(INSERT, event)


def test_an_error_is_told_to_the_message_that_caused_it(session: Session, url: str) -> None:
    became = handle(session, insert, range(10, 17))

    assert outcomes(became) == {number: Retry if number == 13 else Done for number in range(10, 17)}
    assert "effects_number_check" in (became[13].error or "")
    assert applied(url) == [10, 11, 12, 14, 15, 16]


def test_what_was_handled_is_not_handled_again(session: Session, url: str) -> None:
    handle(session, insert, range(5))
    became = handle(session, insert, range(8))

    assert set(outcomes(became).values()) == {Done}
    assert applied(url) == list(range(8))


def test_a_handler_that_catches_an_error_without_a_savepoint_has_failed(session: Session, url: str) -> None:
    def careless(event: Paid, tx: Transaction) -> None:
        try:
            list(tx.execute(INSERT + " RETURNING number", event))
        except psycopg.Error:
            return

    became = handle(session, careless, (12, 13, 14))

    assert outcomes(became) == {12: Done, 13: Retry, 14: Done}
    assert "savepoint" in (became[13].error or "")
    assert applied(url) == [12, 14]


def test_a_handler_that_catches_an_error_within_a_savepoint_has_not(session: Session, url: str) -> None:
    def careful(event: Paid, tx: Transaction) -> None:
        try:
            with tx.connection.transaction():
                list(tx.execute(INSERT + " RETURNING number", event))
        except psycopg.errors.CheckViolation:
            tx.execute("INSERT INTO effects (number) VALUES (1300)")

    became = handle(session, careful, (12, 13, 14))

    assert set(outcomes(became).values()) == {Done}
    assert applied(url) == [12, 14, 1300]


def test_a_handler_may_copy(session: Session, url: str) -> None:
    def copies(event: Paid, tx: Transaction) -> None:
        with tx.connection.cursor() as cursor, cursor.copy("COPY effects (number) FROM STDIN") as copy:
            copy.write_row((event.number,))

    became = handle(session, copies, range(3))

    assert set(outcomes(became).values()) == {Done}
    assert applied(url) == [0, 1, 2]


def test_a_handler_that_commits_is_refused_and_the_others_go_on(session: Session, url: str) -> None:
    def commits(event: Paid, tx: Transaction) -> None:
        tx.execute(INSERT, event)
        if event.number == 2:
            tx.connection.commit()

    became = handle(session, commits, range(4))

    assert outcomes(became) == {0: Done, 1: Done, 2: Retry, 3: Done}
    assert "refused commit" in (became[2].error or "")
    assert applied(url) == [0, 1, 3]


def test_a_backend_that_ends_in_the_midst_of_a_group_parks_nothing(session: Session, url: str) -> None:
    ended: list[int] = []

    def meets(event: Paid, tx: Transaction) -> None:
        tx.execute(INSERT, event)
        if event.number == 2 and not ended:
            ((pid,),) = tx.execute("SELECT pg_backend_pid()")
            ended.append(pid)
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    became = outcomes(handle(session, meets, range(5)))
    assert set(became.values()) - {Done} == {Unhandled}  # a slow machine may have split the group
    assert applied(url) == [number for number, outcome in became.items() if outcome is Done]

    assert set(outcomes(handle(session, meets, range(5))).values()) == {Done}
    assert applied(url) == list(range(5))


def test_a_group_that_deadlocks_with_another_is_handled_all_the_same(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO effects VALUES (1), (2)")
        connection.execute("CREATE TABLE sums (number int PRIMARY KEY, sum int NOT NULL DEFAULT 0)")
        connection.execute("INSERT INTO sums (number) VALUES (0), (1)")
    met = threading.Barrier(2)
    results: dict[str, dict[int, Settled]] = {}

    def lane(name: str, first: int, numbers: Sequence[int]) -> None:
        waited: list[bool] = []

        def adds(event: Paid, tx: Transaction) -> None:
            row = (event.number + first) % 2
            list(tx.execute("UPDATE sums SET sum = sum + 1 WHERE number = :row RETURNING sum", {"row": row}))
            if not waited:
                waited.append(True)
                met.wait(20)

        results[name] = handle(PostgresqlStore(url).connect(), adds, numbers)

    lanes = [
        threading.Thread(target=lane, args=("one", 0, (100, 101))),
        threading.Thread(target=lane, args=("other", 1, (200, 201))),
    ]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join(40)

    assert {kind for became in results.values() for kind in outcomes(became).values()} == {Done}
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT sum(sum) FROM sums").fetchone() == (4,)
