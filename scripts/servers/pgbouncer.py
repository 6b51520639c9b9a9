"""PgBouncer in transaction mode, before every database of the PostgreSQL beside it."""

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from scripts.servers.answers import postgresql_answers
from scripts.servers.postgresql import account

# Any role of the server may come in: its name is looked up there, its password is not asked for.
_CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={behind} auth_user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
auth_type = trust
auth_file = {users}
admin_users = postgres
max_client_conn = 1000
default_pool_size = 20
server_idle_timeout = 30
ignore_startup_parameters = extra_float_digits
logfile =
pidfile =
"""


class Pgbouncer:
    name = "pgbouncer"
    stop_signal = signal.SIGTERM
    wait_seconds = 20.0
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path, port: int, behind: int) -> None:
        self.folder = folder
        self.port = port
        self.account = account()
        self._behind = behind

    @property
    def address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        users = self.folder / "users.txt"
        users.write_text('"postgres" ""\n')
        configuration = _CONFIGURATION.format(behind=self._behind, port=self.port, users=users)
        (self.folder / "pgbouncer.ini").write_text(configuration)

    def command(self) -> list[str | Path]:
        return [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", "--quiet", self.folder / "pgbouncer.ini"]

    def answers(self) -> bool:
        return postgresql_answers(self.port)


def installed() -> bool:
    return bool(shutil.which("pgbouncer") or Path("/usr/sbin/pgbouncer").exists())
