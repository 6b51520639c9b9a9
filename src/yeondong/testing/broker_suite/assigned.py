"""What sources promise whose broker gives the partitions to the readers of a group, and takes them away again."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked

from __future__ import annotations

import os
import signal
import time

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.source import AssignedSource, Source
from yeondong.core.traits import Partitions
from yeondong.errors import ConnectionLost
from yeondong.testing.broker_suite.processes import Factory, running
from yeondong.testing.broker_suite.scene import Scene, ids, keeps_order, messages, nothing_comes, reader_of

KEYS = 12
"""Enough that every partition has some."""


class AssignedSuite:
    """Readers that share a group: they join, leave, are stopped, and nothing is lost and little repeated."""

    def test_readers_share_the_partitions(self, scene: Scene) -> None:
        first, second = self._two(scene)
        sent = messages(60, keys=KEYS)
        scene.send(sent)

        found = self._drain(scene, [first, second], 60)

        assert first.existing == second.existing == first.partitions | second.partitions
        assert {delivery.partition for delivery in found[0]} <= first.partitions
        assert {delivery.partition for delivery in found[1]} <= second.partitions
        assert min(map(len, found)) > 0
        assert keeps_order([*found[0], *found[1]], sent)

    def test_what_is_settled_before_a_partition_leaves_comes_not_again(self, scene: Scene) -> None:
        self._needs(scene)
        scene.register()
        sent = messages(60, keys=KEYS)
        scene.send(sent)
        source = scene.source()
        left: list[Delivery] = []

        def settle_all_but_the_last(partitions: frozenset[str]) -> None:
            for partition in partitions:
                *done, last = [delivery for delivery in found if delivery.partition == partition]
                for each in done:  # one by one: also what no commit of its own was due for
                    source.settle([each])
                left.append(last)

        scene.open(source, settle_all_but_the_last)
        found = scene.drain(source, 60)
        first = reader_of(source)
        mine = first.partitions
        second = reader_of(scene.opened(broker=scene.other()))
        scene.wait(lambda: first.partitions | second.partitions == first.existing)

        again = scene.drain(second, len(left))

        assert 0 < len(left) < len(mine)
        assert first.partitions < mine
        assert sorted(ids(again)) == sorted(ids(left))
        assert nothing_comes(second)
        source.settle(found)  # what is another's by now does it no harm
        assert nothing_comes(first)

    def test_who_leaves_hands_over_what_is_unsettled(self, scene: Scene) -> None:
        first, second = self._two(scene)
        sent = messages(60, keys=KEYS)
        scene.send(sent)
        mine, others = self._drain(scene, [first, second], 60)
        first.settle(mine[:3])
        second.settle(others)

        first.close()
        scene.wait(lambda: second.partitions == second.existing)
        again = scene.drain(second, len(mine) - 3)

        assert first.partitions == frozenset()
        assert sorted(ids(again)) == sorted(ids(mine[3:]))
        assert keeps_order(again, [one for one in sent if one.id in ids(mine[3:])])
        assert nothing_comes(second)

    def test_a_reader_at_its_limit_stays_in_its_group_and_loses_nothing(self, scene: Scene) -> None:
        self._needs(scene)
        scene.register()
        sent = messages(200, keys=KEYS)
        scene.send(sent)
        source = reader_of(scene.opened())
        found = scene.drain(source, 20)
        mine = source.partitions
        until = time.monotonic() + source.session_seconds + 0.5

        while time.monotonic() < until:
            assert list(source.receive(0, 0)) == []
            time.sleep(0.02)

        found += scene.drain(source, 180)
        assert source.partitions is mine
        assert keeps_order(found, sent)
        assert nothing_comes(source)

    def test_a_member_is_confirmed(self, scene: Scene) -> None:
        self._needs(scene)
        scene.register()
        source = reader_of(scene.opened())

        scene.wait(source.confirm)
        scene.wait(source.confirm)

        source.close()
        with pytest.raises(ConnectionLost):
            source.confirm()

    def test_a_reader_that_stood_still_forgets_nothing(self, scene: Scene, factory: Factory) -> None:
        self._needs(scene)
        scene.register()
        scene.send(messages(30, keys=KEYS))
        with running(factory, "outlive", 30) as zombie:
            assert zombie.stdin is not None
            assert zombie.stdout is not None
            assert len(zombie.stdout.readline().split()) == 30
            os.kill(zombie.pid, signal.SIGSTOP)
            successor = reader_of(scene.opened())
            inherited = scene.drain(successor, 30)

            os.kill(zombie.pid, signal.SIGCONT)
            zombie.stdin.write("\n")
            zombie.stdin.flush()
            told = zombie.stdout.readline().split()

        assert len(inherited) == 30
        assert told[0] in ("expelled", "lost")
        assert scene.progress().waiting == 30

    def test_a_group_that_is_open_is_neither_forgotten_nor_set_back(self, scene: Scene) -> None:
        self._needs(scene)
        scene.register()
        scene.send(messages(3))
        source = scene.opened()
        scene.settle(source, scene.drain(source, 3))

        with pytest.raises(ConnectionLost, match="search"):
            scene.broker.forget("orders", "search")
        if scene.traits.replay:
            with pytest.raises(ConnectionLost, match="search"):
                scene.broker.rewind("orders", "search", "start")

        assert scene.progress().waiting == 0
        source.close()
        assert scene.broker.forget("orders", "search") is True

    def test_a_closed_reader_has_no_partitions(self, scene: Scene) -> None:
        self._needs(scene)
        scene.register()
        source = reader_of(scene.opened())
        assert source.partitions == source.existing

        source.close()

        assert source.partitions == frozenset()
        scene.open(source)
        assert source.partitions == source.existing

    def _needs(self, scene: Scene) -> None:
        scene.needs(scene.traits.partitions is Partitions.ASSIGNED, "its partitions are not assigned")

    def _two(self, scene: Scene) -> tuple[AssignedSource, AssignedSource]:
        """Open two readers that have their share."""
        self._needs(scene)
        scene.register()
        first = reader_of(scene.opened())
        second = reader_of(scene.opened(broker=scene.other()))
        scene.wait(lambda: first.partitions | second.partitions == first.existing)
        return first, second

    def _drain(self, scene: Scene, sources: list[Source], total: int) -> list[list[Delivery]]:
        """Borrow ``total`` deliveries from several readers."""
        found: list[list[Delivery]] = [[] for _ in sources]

        def all_came() -> bool:
            for mine, source in zip(found, sources, strict=True):
                mine.extend(source.receive(7, 0.05))
            return sum(map(len, found)) >= total

        scene.wait(all_came)
        return found
