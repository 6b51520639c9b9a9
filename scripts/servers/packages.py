"""What servers need from the machine: Debian packages, and Kafka's jars through Maven."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLICY = Path("/usr/sbin/policy-rc.d")


class Missing(Exception):
    """Something that only the person at the machine can bring; the message says what."""


def install(packages: Iterable[str]) -> None:
    """Install Debian packages, and start nothing: their system services stay down."""
    names = sorted(packages)
    if not names:
        return
    if not shutil.which("apt-get"):
        raise Missing(
            f"this machine has neither a container engine that answers nor Debian's apt-get; "
            f"start Docker or Podman with Compose, or install what Debian calls {', '.join(names)}"
        )
    if os.geteuid() != 0:
        raise Missing(f"missing programs, and only root may install them: sudo apt-get install {' '.join(names)}")
    print(f"installing {', '.join(names)}", flush=True)
    with _no_service_starts():
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
            _run(["apt-get", "--quiet", "--quiet", *arguments], {"DEBIAN_FRONTEND": "noninteractive"})


def copy_jars(pom: Path, folder: Path) -> None:
    """Bring the jars that a pom.xml names, with all that they need, into a folder that exists only when complete."""
    if folder.exists():
        return
    print(f"fetching the jars of {pom.name} into {folder}", flush=True)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={part}", "-DincludeScope=runtime"]
    _run(["mvn", "--quiet", "--batch-mode", "--file", str(pom), *copy])
    part.rename(folder)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's packages start a system instance at once, unless this file forbids it."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise Missing(f"{' '.join(command)} ended with status {done.returncode}:\n{tail}")
