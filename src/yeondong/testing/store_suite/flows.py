"""What is known about flows, workers and suspects."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

from datetime import UTC, datetime

from yeondong.core.store import Control, FlowReport, WorkerReport
from yeondong.testing.store_suite.scene import FLOW, OCCURRED_AT, Scene


def report(worker: str, **known: object) -> WorkerReport:
    flows = [FlowReport(FLOW, "running", OCCURRED_AT, handled=3, rate=1.5)]
    return WorkerReport(worker, "shop", "host", 7, OCCURRED_AT, flows, **known)  # type: ignore[arg-type]


class FlowSuite:
    """``Flows`` and ``Suspects``."""

    def test_a_flow_that_nobody_touched_is_not_controlled(self, scene: Scene) -> None:
        assert scene.session.flows.control(FLOW) == Control()

    def test_a_pause_and_a_stop_stay_until_someone_resumes(self, scene: Scene) -> None:
        scene.session.flows.pause(FLOW, "deployment")
        scene.session.flows.stop(FLOW, "held is full")

        control = scene.rival.flows.control(FLOW)
        assert (control.paused, control.stopped) == ("deployment", "held is full")
        assert control.paused_at is not None
        assert control.stopped_at is not None
        assert control.paused_at <= control.stopped_at
        scene.session.flows.pause(FLOW, "deployment, still")
        assert scene.rival.flows.control(FLOW).paused_at == control.paused_at
        assert scene.rival.flows.control("another") == Control()
        scene.rival.flows.resume(FLOW)
        scene.rival.flows.resume("another")
        assert scene.session.flows.control(FLOW) == Control()

    def test_a_replay_is_asked_for_and_noted(self, scene: Scene) -> None:
        flows = scene.session.flows
        flows.ask_replay(FLOW, "start")
        assert scene.rival.flows.control(FLOW) == Control(replay="start")

        assert flows.replayed(FLOW, "start") == 1
        assert scene.rival.flows.control(FLOW) == Control(generation=1)
        flows.ask_replay(FLOW, "2026-02-03T04:05:06+00:00")
        assert flows.replayed(FLOW, "2026-02-03T04:05:06+00:00") == 2
        assert scene.rival.flows.control(FLOW) == Control(generation=2)

    def test_a_replay_that_is_asked_for_meanwhile_is_still_to_be_carried_out(self, scene: Scene) -> None:
        flows = scene.session.flows
        flows.ask_replay(FLOW, "2026-02-03T04:05:06+00:00")
        scene.rival.flows.ask_replay(FLOW, "start")

        assert flows.replayed(FLOW, "2026-02-03T04:05:06+00:00") == 1
        assert flows.control(FLOW) == Control(replay="start", generation=1)

    def test_a_replay_that_another_worker_has_noted_is_not_counted_again(self, scene: Scene) -> None:
        scene.session.flows.ask_replay(FLOW, "start")

        assert scene.session.flows.replayed(FLOW, "start") == 1
        assert scene.rival.flows.replayed(FLOW, "start") == 1
        assert scene.rival.flows.replayed("another", "start") == 0
        assert scene.session.flows.control(FLOW) == Control(generation=1)

    def test_that_a_replay_has_begun_is_known_until_it_is_carried_out(self, scene: Scene) -> None:
        flows = scene.session.flows
        flows.begin_replay(FLOW)
        assert flows.control(FLOW) == Control()
        flows.ask_replay(FLOW, "start")
        flows.begin_replay(FLOW)

        assert scene.rival.flows.control(FLOW) == Control(replay="start", replay_begun=True)
        flows.ask_replay(FLOW, "2026-02-03T04:05:06+00:00")
        assert flows.control(FLOW).replay_begun
        flows.replayed(FLOW, "2026-02-03T04:05:06+00:00")
        assert flows.control(FLOW) == Control(generation=1)
        flows.ask_replay(FLOW, "start")
        flows.begin_replay(FLOW)
        flows.withdraw_replay(FLOW, "start")
        assert flows.control(FLOW) == Control(replay="start", generation=1, replay_begun=True)

    def test_a_replay_that_cannot_be_carried_out_is_withdrawn(self, scene: Scene) -> None:
        flows = scene.session.flows
        flows.ask_replay(FLOW, "start")
        flows.withdraw_replay(FLOW, "2026-02-03T04:05:06+00:00")
        assert flows.control(FLOW) == Control(replay="start")
        flows.withdraw_replay(FLOW, "start")
        flows.withdraw_replay("another", "start")

        assert scene.rival.flows.control(FLOW) == Control()

    def test_the_first_opening_and_one_after_a_clean_end_are_clean(self, scene: Scene) -> None:
        flows = scene.session.flows

        assert not flows.opened(FLOW, "first")
        flows.closed(FLOW, "first")
        assert not flows.opened(FLOW, "second")

    def test_an_owner_that_never_closed_ended_uncleanly(self, scene: Scene) -> None:
        scene.session.flows.opened(FLOW, "first")

        assert scene.rival.flows.opened(FLOW, "second")
        assert not scene.rival.flows.opened("another", "second")

    def test_an_owner_that_opens_again_has_not_ended(self, scene: Scene) -> None:
        scene.session.flows.opened(FLOW, "first")

        assert not scene.session.flows.opened(FLOW, "first")

    def test_a_close_by_an_earlier_owner_does_not_count(self, scene: Scene) -> None:
        scene.session.flows.opened(FLOW, "first")
        scene.rival.flows.opened(FLOW, "second")
        scene.session.flows.closed(FLOW, "first")

        assert scene.session.flows.opened(FLOW, "third")

    def test_workers_are_as_they_said_youngest_first(self, scene: Scene) -> None:
        scene.session.flows.beat(report("w1"))
        scene.session.flows.beat(report("w2"))
        scene.until(lambda: datetime.now(UTC) > (scene.session.flows.workers()[0].seen_at or OCCURRED_AT))
        scene.session.flows.beat(report("w1", notice="slow"))

        first, second = scene.rival.flows.workers()

        assert (first.worker, first.notice, first.flows) == ("w1", "slow", report("w1").flows)
        assert (second.worker, second.started_at, second.pid) == ("w2", OCCURRED_AT, 7)
        assert first.seen_at is not None
        assert 0 <= first.age_seconds <= second.age_seconds < 60

    def test_a_worker_that_ended_cleanly_is_forgotten(self, scene: Scene) -> None:
        scene.session.flows.beat(report("w1"))
        scene.session.flows.forget_worker("w1")
        scene.session.flows.forget_worker("w1")

        assert scene.rival.flows.workers() == []

    def test_suspects_are_kept_until_the_flow_is_through_with_them(self, scene: Scene) -> None:
        suspects = scene.session.suspects
        suspects.begin(FLOW, "p1", "m1", 1)
        suspects.begin(FLOW, "p1", "m1", 2)
        suspects.begin(FLOW, "p2", "m2", 1)
        suspects.begin("another", "p1", "m1", 9)

        assert scene.rival.suspects.load(FLOW) == {"m1": 2, "m2": 1}
        suspects.clear(FLOW)
        assert scene.rival.suspects.load(FLOW) == {}
        assert scene.rival.suspects.load("another") == {"m1": 9}

    def test_workers_that_share_a_flow_suspect_in_their_own_partitions(self, scene: Scene) -> None:
        suspects = scene.session.suspects
        suspects.begin(FLOW, "p1", "m1", 1)
        suspects.begin(FLOW, "p2", "m2", 2)
        suspects.begin(FLOW, "p3", "m3", 3)

        assert suspects.load(FLOW, ["p2", "p3"]) == {"m2": 2, "m3": 3}
        assert suspects.load(FLOW, []) == {}
        suspects.clear(FLOW, ["p1", "p3"])
        assert scene.rival.suspects.load(FLOW) == {"m2": 2}
