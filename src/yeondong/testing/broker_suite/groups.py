"""What a broker promises about groups and receivers."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from yeondong.core.message import Kind
from yeondong.core.traits import Partitions
from yeondong.errors import ConnectionLost, DeclarationError, ReceiverError, UnknownName
from yeondong.testing.broker_suite.scene import (
    PATIENCE_SECONDS,
    Scene,
    ids,
    message,
    messages,
    nothing_comes,
    receiver,
)

GRANT = "grant.points"


class GroupSuite:
    """Groups: registration, independent progress, replay, forgetting, waking."""

    def test_preparing_twice_is_harmless(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(1))
        scene.broker.prepare()
        scene.other().prepare()

        assert ids(scene.drain(scene.opened(), 1)) == ["m0"]

    def test_what_was_prepared_lacks_nothing_and_creating_again_makes_nothing(self, scene: Scene) -> None:
        scene.register()

        assert list(scene.broker.check()) == []
        assert list(scene.other().create()) == []
        assert list(scene.broker.statements()) == list(scene.other().statements())
        assert len(scene.broker.groups()) == 1

    def test_an_empty_broker_knows_no_groups_and_no_receivers(self, scene: Scene) -> None:
        assert list(scene.broker.groups()) == []
        assert list(scene.broker.receivers()) == []
        assert scene.broker.sweep() == 0

    def test_every_group_gets_every_message_at_its_own_pace(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register(receiver(group="search"), receiver(group="statistics"))
        scene.send(messages(6))
        search, statistics = scene.opened(group="search"), scene.opened(group="statistics")

        scene.settle(search, scene.drain(search, 6))

        assert (scene.progress("search").waiting, scene.progress("statistics").waiting) == (0, 6)
        assert ids(scene.drain(statistics, 6)) == ids(messages(6))

    def test_a_new_group_starts_from_the_start(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register(receiver(group="first"))
        scene.send(messages(3))
        scene.register(receiver(group="second"), app="reports", since="start")

        source = scene.opened(group="second")

        assert ids(scene.drain(source, 3)) == ids(messages(3))

    def test_a_new_group_starts_from_now(self, scene: Scene) -> None:
        scene.register(receiver(group="first"))
        scene.send(messages(3))
        scene.register(receiver(group="second"), app="reports", since="now")
        scene.send([message("later")])

        source = scene.opened(group="second")

        assert ids(scene.drain(source, 1)) == ["later"]
        assert nothing_comes(source)

    def test_each_new_group_is_asked_once_where_it_starts(self, scene: Scene) -> None:
        asked: list[tuple[str, str]] = []

        def since(channel: str, group: str) -> str:
            asked.append((channel, group))
            return "now"

        both = [receiver("a"), receiver("b"), receiver("a", group="statistics")]
        scene.broker.register("shop", both, since)  # type: ignore[arg-type]
        scene.broker.register("shop", both, since)  # type: ignore[arg-type]

        assert sorted(asked) == [("orders", "search"), ("orders", "statistics")]

    def test_registering_again_keeps_the_progress(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(4))
        source = scene.opened()
        source.settle(scene.drain(source, 4)[:3])
        source.close()

        scene.register(since="now", broker=scene.other())
        scene.register(since="start")

        assert ids(scene.drain(scene.opened(), 1)) == ["m3"]

    def test_an_app_replaces_only_its_own_receivers(self, scene: Scene) -> None:
        scene.register(receiver("a"), receiver("b"), receiver("b"))
        scene.register(receiver("a", group="statistics", app="reports"), app="reports")

        scene.register(receiver("c"), broker=scene.other())

        assert {(one.app, one.type) for one in scene.broker.receivers()} == {("shop", "c"), ("reports", "a")}
        assert {lag.group for lag in scene.broker.groups()} == {"search", "statistics"}

    def test_receivers_come_back_as_they_were_registered(self, scene: Scene) -> None:
        given = {receiver("a"), receiver(GRANT, Kind.COMMAND, channel="points", group="points")}

        scene.register(*given)

        assert set(scene.other().receivers()) == given
        assert all(isinstance(one.kind, Kind) for one in scene.other().receivers())

    def test_a_second_receiver_of_a_command_is_refused(self, scene: Scene) -> None:
        command = receiver(GRANT, Kind.COMMAND, group="points", app="shop")
        scene.register(command)
        before = set(scene.broker.receivers())
        second = receiver(GRANT, Kind.COMMAND, group="bonus", app="loyalty")

        with pytest.raises(ReceiverError) as refused:
            scene.register(receiver("a", group="new", app="loyalty"), second, app="loyalty", broker=scene.other())

        for name in (GRANT, "points", "shop", "bonus", "loyalty"):
            assert name in str(refused.value)
        assert set(scene.broker.receivers()) == before
        assert {lag.group for lag in scene.broker.groups()} == {"points"}

    def test_a_second_receiver_of_a_command_in_the_same_app_is_refused(self, scene: Scene) -> None:
        with pytest.raises(ReceiverError, match=r"points.*bonus"):
            scene.register(receiver(GRANT, Kind.COMMAND, group="points"), receiver(GRANT, Kind.COMMAND, group="bonus"))

        assert list(scene.broker.receivers()) == []

    def test_commands_of_one_type_in_two_channels_have_a_receiver_each(self, scene: Scene) -> None:
        points = receiver(GRANT, Kind.COMMAND, channel="points", group="shop", app="shop")
        miles = receiver(GRANT, Kind.COMMAND, channel="miles", group="loyalty", app="loyalty")

        scene.register(points, app="shop")
        scene.register(miles, app="loyalty", broker=scene.other())

        assert set(scene.broker.receivers()) == {points, miles}

    def test_the_same_receiver_of_a_command_may_register_again(self, scene: Scene) -> None:
        command = receiver(GRANT, Kind.COMMAND)

        scene.register(command)
        scene.register(command, broker=scene.other())

        assert list(scene.broker.receivers()) == [command]

    def test_forgetting_a_group_ends_its_claims(self, scene: Scene) -> None:
        command = receiver(GRANT, Kind.COMMAND, group="points")
        scene.register(command)
        scene.send(messages(3))

        assert scene.broker.forget("orders", "points") is True
        assert scene.broker.forget("orders", "points") is False

        assert list(scene.broker.groups()) == []
        assert list(scene.broker.receivers()) == []
        scene.register(receiver(GRANT, Kind.COMMAND, group="bonus", app="loyalty"), app="loyalty")

    def test_a_forgotten_group_that_comes_back_is_a_new_one(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(3))
        scene.broker.forget("orders", "search")
        scene.register(since="now")
        scene.send([message("new")])

        source = scene.opened()

        assert ids(scene.drain(source, 1)) == ["new"]

    def test_an_open_source_of_a_forgotten_group_says_so(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.needs(scene.traits.partitions is not Partitions.ASSIGNED, "nobody forgets a group that has readers")
        scene.register()
        scene.send(messages(3))
        source = scene.opened()
        found = scene.drain(source, 3)
        scene.broker.forget("orders", "search")

        with pytest.raises(ConnectionLost, match="search"):
            source.settle(found)

    def test_groups_tell_how_much_waits_and_since_when(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        assert (scene.progress().waiting, scene.progress().since, scene.progress().dropped) == (0, None, 0)
        before = datetime.now(UTC)
        scene.send(messages(5))
        source = scene.opened()
        scene.settle(source, scene.drain(source, 5)[:2])

        lag = scene.progress()

        assert (lag.waiting, lag.dropped) == (3, 0)
        assert lag.since is not None
        assert abs((lag.since - before).total_seconds()) < PATIENCE_SECONDS

    def test_a_sweep_deletes_nothing_that_a_group_has_not_read(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        scene.send(messages(5))

        scene.broker.sweep()

        assert ids(scene.drain(scene.opened(), 5)) == ids(messages(5))

    def test_a_replay_from_the_start_repeats_everything(self, scene: Scene) -> None:
        self._settled(scene, 5)

        assert scene.other().repeats("orders", "search", "start") == 5
        assert scene.other().rewind("orders", "search", "start") == 5
        assert scene.other().repeats("orders", "search", "start") == 0

        assert ids(scene.drain(scene.opened(), 5)) == ids(messages(5))

    def test_a_replay_from_a_time_repeats_what_was_sent_since(self, scene: Scene) -> None:
        scene.needs(scene.traits.replay, "it keeps nothing that was settled")
        scene.register()
        scene.send([message("before")])
        time.sleep(0.002)  # times may be kept in whole milliseconds
        between = datetime.now(UTC).astimezone()
        scene.send([message("after"), message("last")])
        source = scene.opened()
        source.settle(scene.drain(source, 3))
        source.close()

        assert scene.broker.rewind("orders", "search", between.isoformat()) == 2

        assert ids(scene.drain(scene.opened(), 2)) == ["after", "last"]

    def test_a_replay_never_goes_forward(self, scene: Scene) -> None:
        self._settled(scene, 5, of=10)
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

        assert scene.broker.rewind("orders", "search", later) == 0

        assert ids(scene.drain(scene.opened(), 5)) == ids(messages(10)[5:])

    def test_a_replay_leaves_other_groups_where_they_are(self, scene: Scene) -> None:
        scene.register(receiver(group="statistics", app="reports"), app="reports")
        self._settled(scene, 5)

        scene.broker.rewind("orders", "search", "start")

        assert (scene.progress("search").waiting, scene.progress("statistics").waiting) == (5, 5)
        statistics = scene.opened(group="statistics")
        scene.settle(statistics, scene.drain(statistics, 5))
        assert (scene.progress("search").waiting, scene.progress("statistics").waiting) == (5, 0)

    def test_a_replay_of_an_unknown_group_or_time_is_refused(self, scene: Scene) -> None:
        self._settled(scene, 2)

        with pytest.raises(UnknownName, match=r"odrers/search.*orders/search"):
            scene.broker.rewind("odrers", "search", "start")
        for start in ("yesterday", "2026-01-31T09:00:00"):
            with pytest.raises(DeclarationError, match=start):
                scene.broker.rewind("orders", "search", start)
        assert scene.progress().waiting == 0

    def test_a_broker_without_replay_says_so(self, scene: Scene) -> None:
        scene.needs(not scene.traits.replay, "it can replay")
        scene.register()

        with pytest.raises(DeclarationError, match="search"):
            scene.broker.rewind("orders", "search", "start")

    def test_who_watches_is_woken_when_another_sends(self, scene: Scene) -> None:
        scene.needs(scene.traits.partitions is not Partitions.ASSIGNED, "its readers wait at the broker itself")
        scene.register()
        woken = threading.Event()
        end = scene.broker.watch(woken.set)

        scene.send(messages(1), broker=scene.other())

        assert woken.wait(PATIENCE_SECONDS)
        end()

    def test_who_stopped_watching_is_not_woken(self, scene: Scene) -> None:
        scene.needs(scene.traits.partitions is not Partitions.ASSIGNED, "its readers wait at the broker itself")
        scene.register()
        first, second = threading.Event(), threading.Event()
        end_first = scene.broker.watch(first.set)
        end_first()
        end_first()
        first.clear()
        end_second = scene.broker.watch(second.set)
        second.clear()

        scene.send(messages(1))

        assert second.wait(PATIENCE_SECONDS)
        assert not first.is_set()
        end_second()

    def test_closing_a_broker_twice_is_harmless(self, scene: Scene) -> None:
        scene.register()
        broker = scene.other()
        broker.close()
        broker.close()

    def _settled(self, scene: Scene, settled: int, of: int | None = None) -> None:
        scene.needs(scene.traits.replay, "it keeps nothing that was settled")
        scene.register()
        scene.send(messages(of or settled))
        source = scene.opened()
        source.settle(scene.drain(source, settled))
        source.close()
