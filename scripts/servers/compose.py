"""The same servers as containers, where a container engine answers."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from scripts.servers.table import ROOT, TABLE

_ENGINES = (("docker",), ("podman",))
_ENGINE_WAIT_SECONDS = 5


class Failed(Exception):
    """Compose could not do it; the message is what Compose said."""


def engine() -> Sequence[str] | None:
    """The command of an engine that runs and has Compose."""
    for command in _ENGINES:
        if shutil.which(command[0]) and _succeeds([*command, "info"]) and _succeeds([*command, "compose", "version"]):
            return command
    return None


def up(command: Sequence[str], names: Sequence[str]) -> None:
    _compose(command, "up", "--detach", "--wait", *names)


def down(command: Sequence[str], names: Sequence[str]) -> None:
    _compose(command, "rm", "--stop", "--force", "--volumes", *names)


def _compose(command: Sequence[str], *arguments: str) -> None:
    ports = {row.port_variable: str(row.chosen_port()) for row in TABLE.values()}
    done = subprocess.run(
        [*command, "compose", "--file", str(ROOT / "compose.yaml"), *arguments],
        env={**os.environ, **ports},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)} compose {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_ENGINE_WAIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
