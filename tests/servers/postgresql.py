"""A PostgreSQL of one test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg import sql

from scripts.servers import postgresql
from scripts.servers.postgresql import Postgresql
from scripts.servers.table import place
from tests.servers.certificates import Certificate, certificate
from tests.servers.private import Private, free_port, one_at_a_time
from tests.servers.shared import missing, unique

_QUICK: Mapping[str, str] = {"fsync": "off"}  # processes are killed here, not the kernel, which keeps what was written
# TLS only; save for one database, by which it is seen that the server is up.
_SSL_ONLY = "hostnossl postgres postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 trust\n"


class PrivatePostgresql(Private):
    """Starts in a quarter of a second. With ``tls_host`` its databases are reached over TLS only.

    Its certificate is for that name. Clients know it as ``localhost``, so that any other name is the wrong one.
    """

    def __init__(self, *, settings: Mapping[str, str] | None = None, tls_host: str | None = None) -> None:
        if not postgresql.installed():
            missing("PostgreSQL's programs are not installed here; install them: scripts/services install postgresql")
        super().__init__("postgresql")
        self._certificate: Certificate | None = None
        self._disks: list[str] = []
        chosen = {**_QUICK, **(settings or {})}
        if tls_host is not None:
            self._certificate = certificate(self.folder / "tls", tls_host)
            chosen |= {
                "ssl": "on",
                "ssl_cert_file": str(self._certificate.chain),
                "ssl_key_file": str(self._certificate.key),
            }
        self._server = Postgresql(self.folder, free_port(), chosen)
        self._copy_template()
        if self._certificate is not None:
            self._own(str(self._certificate.key))
            self._certificate.key.chmod(0o600)
            (self._server.data / "pg_hba.conf").write_text(_SSL_ONLY)

    @property
    def server(self) -> Postgresql:
        return self._server

    def url(self, database: str = "postgres", **options: str) -> str:
        """The address of a database; over TLS with the strictest check, unless ``sslmode`` says otherwise."""
        host = "127.0.0.1"
        if self._certificate is not None:
            host = "localhost"
            options = {"sslmode": "verify-full", "sslrootcert": str(self._certificate.authority), **options}
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://postgres@{host}:{self._server.port}/{database}{query}"

    def execute(self, statement: LiteralString | sql.Composed, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction, and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, disk: str | None = None) -> str:
        """Make a database, on that small disk if one is named, and return its name."""
        name = unique("test")
        where = sql.SQL(" TABLESPACE {}").format(sql.Identifier(disk)) if disk else sql.SQL("")
        self.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), where))
        return name

    def terminate_backends(self, database: str) -> int:
        """End every session of a database, as an operator or a failover does; return how many there were."""
        counted = sql.SQL("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = {}")
        ((count,),) = self.execute(counted.format(sql.Literal(database)))
        return int(count)

    @contextmanager
    def refusing(self, database: str) -> Iterator[None]:
        """End every session of a database and let the server turn away each new one."""
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        self.execute(allow.format(sql.Identifier(database), sql.SQL("false")))
        self.terminate_backends(database)
        try:
            yield
        finally:
            self.execute(allow.format(sql.Identifier(database), sql.SQL("true")))

    def add_small_disk(self, megabytes: int) -> str:
        """Mount a disk of that size, and return the name of the tablespace on it."""
        name = unique("disk")
        folder = self.folder / name
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            # Also in CI: nothing that could be installed brings this right.
            pytest.skip("a small disk needs the right to mount one, which this machine does not give")
        self._disks.append(str(folder))
        self._own(str(folder))
        location = sql.Literal(str(folder))
        self.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(sql.Identifier(name), location))
        return name

    def remove(self) -> None:
        if self._process is not None:
            self._process.kill()
        for folder in self._disks:
            subprocess.run(["umount", folder], check=False)
        super().remove()

    def _copy_template(self) -> None:
        """A copy of a new data folder takes a tenth of the time that making one takes."""
        template = Postgresql(place() / f"template-{postgresql.programs().parent.name}", 0)
        with one_at_a_time(place() / "template.lock"):
            template.folder.mkdir(exist_ok=True)
            template.prepare()
        subprocess.run(["cp", "--archive", template.data, self.folder], check=True)

    def _own(self, path: str) -> None:
        if self._server.account:
            shutil.chown(path, self._server.account, self._server.account)
