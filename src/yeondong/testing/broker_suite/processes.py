"""What a durable broker promises about processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from yeondong.core.traits import Order, Partitions
from yeondong.testing.broker_suite import program
from yeondong.testing.broker_suite.scene import PATIENCE_SECONDS, Scene, ids, keeps_order, messages, nothing_comes

BATCH = 20

Factory: TypeAlias = tuple[str, str]
"""``module:callable`` and the text that it is called with to give the broker in another process."""


class ProcessSuite:
    """Several processes on one durable broker; each may be killed at any moment."""

    sends_whole = True
    """Whether a call of ``send`` that was cut off leaves all or nothing; else it leaves the first ones, no gap."""

    @pytest.mark.parametrize("returned", [1, 5, 30])
    def test_a_killed_sender_loses_nothing_that_was_sent(self, scene: Scene, factory: Factory, returned: int) -> None:
        scene.register()
        with running(factory, "send", "s", 100_000, BATCH) as sender:
            assert sender.stdout is not None
            for _ in range(returned):
                assert sender.stdout.readline()
            sender.kill()
            done = returned + len(sender.stdout.read().splitlines())

        count = scene.progress().waiting
        arrived = ids(scene.drain(scene.opened(), count))

        assert done * BATCH <= count <= (done + 1) * BATCH
        assert arrived == [f"s-{number // BATCH}-{number % BATCH}" for number in range(count)]
        assert count % BATCH == 0 or not self.sends_whole

    def test_a_killed_receiver_loses_nothing_that_it_had_not_settled(self, scene: Scene, factory: Factory) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        sent = messages(10, keys=5)
        scene.send(sent)
        with running(factory, "receive", 1, 10, 4) as reader:
            assert reader.stdout is not None
            lent = reader.stdout.readline().split()
            reader.kill()
        assert sorted(lent) == sorted(ids(sent))
        scene.fence()  # the epoch of the process that was killed

        source = scene.opened()
        waiting = scene.progress().waiting
        again = scene.drain(source, waiting)

        # Where the broker assigns partitions, what was settled in the last moment may come again.
        left = len(sent) - 4
        assert waiting == left or (scene.traits.partitions is Partitions.ASSIGNED and waiting > left)
        assert set(lent[4:]) <= set(ids(again)) <= set(lent)
        if scene.traits.order is not Order.NONE:
            assert keeps_order(again, [one for one in sent if one.id in ids(again)])
        assert nothing_comes(source)

    def test_two_processes_send_at_once(self, scene: Scene, factory: Factory) -> None:
        scene.register()
        with running(factory, "send", "a", 30, BATCH) as first, running(factory, "send", "b", 30, BATCH) as second:
            assert (first.wait(PATIENCE_SECONDS), second.wait(PATIENCE_SECONDS)) == (0, 0)

        arrived = ids(scene.drain(scene.opened(), 2 * 30 * BATCH))

        for sender in "ab":
            sent = [f"{sender}-{batch}-{number}" for batch in range(30) for number in range(BATCH)]
            mine = [id for id in arrived if id.startswith(sender)]
            assert (sorted(mine) if scene.traits.order is Order.NONE else mine) == sent


@contextmanager
def running(factory: Factory, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the suite's program on the driver's broker; kill it at the end."""
    process = subprocess.Popen(  # noqa: S603 - this module's own program
        [sys.executable, "-P", Path(program.__file__), arguments[0], *factory, *map(str, arguments[1:])],  # type: ignore[list-item]
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
