"""What a store promises about processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from yeondong.testing.store_suite import program
from yeondong.testing.store_suite.scene import FLOW, LONG_SECONDS, Scene

Factory: TypeAlias = tuple[str, str]
"""``module:callable`` and the text that it is called with to give the store in another process."""


class ProcessSuite:
    """Several processes on one store; each may be killed at any moment."""

    def test_a_process_killed_within_its_transaction_leaves_nothing(self, scene: Scene, factory: Factory) -> None:
        with running(factory, "open") as process:
            said(process)
            process.kill()
            process.wait()

        assert scene.claim("m1", group="killed") == {"m1"}
        assert scene.waiting() == []

    def test_a_process_killed_right_after_its_commit_leaves_all(self, scene: Scene, factory: Factory) -> None:
        with running(factory, "commit") as process:
            assert process.wait() < 0, "the process was to kill itself"

        assert scene.claim("m1", group="killed") == set()
        assert scene.waiting() == ["m1"]

    def test_what_a_killed_process_held_is_held(self, scene: Scene, factory: Factory) -> None:
        with running(factory, "hold", FLOW) as process:
            assert process.wait() < 0, "the process was to kill itself"

        assert scene.session.held.known(FLOW, ["m1", "m2"]) == {"m1", "m2"}

    def test_the_lease_of_a_killed_process_is_taken_over_when_it_ends(self, scene: Scene, factory: Factory) -> None:
        with running(factory, "lease", FLOW, 1.0) as process:
            epoch = int(said(process))
            assert scene.session.leases.take(FLOW, "worker", LONG_SECONDS) is None
            process.kill()
            process.wait()

        fence = scene.until(lambda: scene.session.leases.take(FLOW, "worker", LONG_SECONDS))
        assert fence.epoch > epoch

    def test_processes_that_claim_the_same_ids_each_get_their_own(self, scene: Scene, factory: Factory) -> None:
        with running(factory, "claim", 100) as one, running(factory, "claim", 100) as other:
            claimed = [process.communicate()[0].split() for process in (one, other)]
            assert (one.returncode, other.returncode) == (0, 0)

        assert sorted(claimed[0] + claimed[1]) == sorted(f"m{number}" for number in range(100))
        assert scene.claim("m0", "m99", group="claimed") == set()


def said(process: subprocess.Popen[str]) -> str:
    """Wait for the next line of a process."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the process ended without a word"
    return line.strip()


@contextmanager
def running(factory: Factory, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the suite's program on the driver's store; kill it at the end."""
    process = subprocess.Popen(  # noqa: S603 - this module's own program
        [sys.executable, "-P", str(Path(program.__file__)), str(arguments[0]), *factory, *map(str, arguments[1:])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
