"""A private PostgreSQL can be harmed, comes back, and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.servers.postgresql import PrivatePostgresql


@pytest.fixture
def server() -> Iterator[PrivatePostgresql]:
    with PrivatePostgresql() as server:
        yield server


def test_what_was_committed_outlives_a_stop_and_a_kill(server: PrivatePostgresql) -> None:
    server.execute("CREATE TABLE orders (id int)")
    with psycopg.connect(server.url()) as session:
        session.execute("INSERT INTO orders VALUES (1)")
        session.commit()
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url())

    server.start()
    assert server.execute("SELECT id FROM orders") == [(1,)]
    server.restart()
    assert server.execute("SELECT id FROM orders") == [(1,)]


def test_a_paused_server_answers_when_it_is_resumed(server: PrivatePostgresql) -> None:
    with psycopg.connect(server.url()) as session:
        server.pause()
        answered = threading.Event()

        def ask() -> None:
            session.execute("SELECT 1")
            answered.set()

        asking = threading.Thread(target=ask)
        asking.start()
        assert not answered.wait(0.3)
        server.resume()
        asking.join()
        assert answered.is_set()


def test_every_session_of_a_database_can_be_ended_and_new_ones_refused(server: PrivatePostgresql) -> None:
    name = server.create_database()
    with psycopg.connect(server.url(name), autocommit=True) as session:
        assert server.terminate_backends(name) == 1
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("SELECT 1")

    with psycopg.connect(server.url(name), autocommit=True) as session:
        with server.refusing(name):
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
                psycopg.connect(server.url(name))
        psycopg.connect(server.url(name)).close()


def test_a_small_disk_gets_full_and_free_again(server: PrivatePostgresql) -> None:
    name = server.create_database(server.add_small_disk(24))
    with psycopg.connect(server.url(name), autocommit=True) as session:
        session.execute("CREATE TABLE filler AS SELECT '' AS text")
        with pytest.raises(psycopg.errors.DiskFull):
            session.execute("INSERT INTO filler SELECT repeat('x', 2000) FROM generate_series(1, 20000)")
        session.execute("DROP TABLE filler")
        session.execute("CREATE TABLE filler AS SELECT 'y' AS text")


def test_tls_by_a_certificate_of_the_tests_own() -> None:
    ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    with PrivatePostgresql(tls_host="localhost") as server:
        name = server.create_database()
        with psycopg.connect(server.url(name)) as session:
            assert session.execute(ssl).fetchone() == (True,)
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            psycopg.connect(server.url(name, sslmode="disable"))

    with PrivatePostgresql(tls_host="elsewhere.test") as server:
        with pytest.raises(psycopg.OperationalError, match='does not match host name "localhost"'):
            psycopg.connect(server.url())
        psycopg.connect(server.url(sslmode="verify-ca")).close()


def test_nothing_is_left_when_the_test_run_is_killed() -> None:
    program = """
from tests.servers.postgresql import PrivatePostgresql
with PrivatePostgresql() as server:
    print(server.url(), server.folder, flush=True)
    input()
"""
    run = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    url, folder = run.stdout.readline().split()
    psycopg.connect(url).close()
    run.kill()
    run.communicate()

    deadline = time.monotonic() + 10
    with pytest.raises(psycopg.OperationalError):  # noqa: PT012 - until it is gone
        while time.monotonic() < deadline:
            psycopg.connect(url).close()
    shutil.rmtree(folder)
