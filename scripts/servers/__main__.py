"""scripts/services: start the servers, end what was started, say what answers."""

import argparse
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.servers import compose, kafka, packages
from scripts.servers.answers import port_is_taken
from scripts.servers.process import NotStarted, Process, launch
from scripts.servers.table import SERVICES, TABLE, TOOLS, Server, make

_STOP_WAIT_SECONDS = 20.0


class Refused(Exception):
    """What was asked for can't be done here; the message says why."""


def main() -> int:
    actions = {"up": up, "down": down, "status": status, "install": install, "missing": missing}
    parser = argparse.ArgumentParser(prog="scripts/services", description=__doc__)
    parser.add_argument("action", choices=list(actions))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(TABLE)}; all, where none is named")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(TABLE)):
        parser.error(f"no server named {unknown[0]!r}; there are {', '.join(TABLE)}")
    names = [name for name in TABLE if name in (arguments.names or TABLE)]
    try:
        with _alone():
            return actions[arguments.action](names)
    except (packages.Missing, compose.Failed, NotStarted, Refused) as problem:
        print(f"scripts/services: {problem}", file=sys.stderr)
        return 1


def up(names: Sequence[str]) -> int:
    """Start what does not answer, and return when everything answers."""
    waiting = [name for name in names if not make(name).answers()]
    engine = compose.engine() if waiting else None
    if engine:
        compose.up(engine, waiting)
        for name in waiting:
            _mark(name).write_text("")
    elif waiting:
        install(names)
        for name in waiting:
            _start(make(name))
    return status(names)


def down(names: Sequence[str]) -> int:
    """End what this checkout started, and nothing else."""
    for name in reversed(names):
        record = _record(name)
        if process := Process.recorded(record):
            process.end(make(name).stop_signal, _STOP_WAIT_SECONDS)
            print(f"{name:<11}ended")
        record.unlink(missing_ok=True)
    contained = [name for name in names if _mark(name).exists()]
    if contained:
        engine = compose.engine()
        if engine is None:
            raise Refused(f"{', '.join(contained)} run in containers, and no container engine answers now")
        compose.down(engine, contained)
        for name in contained:
            _mark(name).unlink()
            print(f"{name:<11}ended")
    return 0


def status(names: Sequence[str]) -> int:
    """Print where each server answers, and who started it; 1 where one is missing."""
    away = 0
    for name in names:
        server = make(name)
        if not server.answers():
            away += 1
            print(f"{name:<11}does not answer on port {server.port}; start it: scripts/services up {name}")
        else:
            print(f"{name:<11}{server.address:<51}{_owner(name)}")
    return min(away, 1)


def missing(names: Sequence[str]) -> int:
    """Print the names of those that do not answer, for programs."""
    print(*[name for name in names if not make(name).answers()])
    return 0


def install(names: Sequence[str]) -> int:
    """Bring the programs, also for tests that start private servers, and start nothing."""
    needed = {package: there for name in names for package, there in TABLE[name].programs.items()}
    needed |= TOOLS if len(names) == len(TABLE) else {}
    packages.install(package for package, there in needed.items() if not there())
    if "kafka" in names:
        SERVICES.mkdir(exist_ok=True)
        kafka.bring_jars(SERVICES)
    return 0


def _start(server: Server) -> None:
    if port_is_taken(server.port):
        row = TABLE[server.name]
        raise Refused(
            f"port {server.port} is taken by something that does not answer as {server.name}; "
            f"end it, or choose another port: {row.port_variable}=…"
        )
    server.folder.mkdir(parents=True, exist_ok=True)
    server.prepare()
    process = launch(
        server.command(),
        log=server.folder / "log",
        account=server.account,
        answers=server.answers,
        wait_seconds=server.wait_seconds,
    )
    process.record(_record(server.name))


def _owner(name: str) -> str:
    if Process.recorded(_record(name)):
        return "started by this checkout"
    return "started by this checkout, as a container" if _mark(name).exists() else "was there before"


def _record(name: str) -> Path:
    return SERVICES / f"{name}.process"


def _mark(name: str) -> Path:
    return SERVICES / f"{name}.container"


@contextmanager
def _alone() -> Iterator[None]:
    """Two runs of the tests may begin at once: the second one waits, and finds the servers there."""
    SERVICES.mkdir(exist_ok=True)
    with (SERVICES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
