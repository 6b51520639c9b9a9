"""Peers' environments: each of its own, from a lock with hashes, below ``.benchmarks/``, never in ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).resolve().parent
PLACE: Final = PEERS.parent.parent / ".benchmarks"
INSTALL_SECONDS: Final = 300


class PeerMissing(Exception):
    """The peer can't be measured here; the text says why."""


def python_with(peer: str, *, install: bool) -> str:
    """Return the Python of the peer's environment, made anew when its lock has changed. Raises ``PeerMissing``."""
    lock = (PEERS / f"{peer}.txt").read_text()
    folder = PLACE / peer
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if done.exists() and done.read_text() == lock:
        return str(python)
    if not install:
        raise PeerMissing("its environment is not there")
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(
            str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "-r", str(PEERS / f"{peer}.txt"),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise PeerMissing(f"it could not be installed ({said.strip().splitlines()[-1]})") from error
    done.write_text(lock)
    return str(python)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
