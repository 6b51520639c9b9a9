"""What flows took over from their sources."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

import pytest

from yeondong.core.store import HeldReceipt, Hold
from yeondong.errors import FenceLost
from yeondong.testing.store_suite.scene import BARE, FLOW, LONG_SECONDS, RICH, Scene, failed, hold, ids, lent

SOON_SECONDS = 0.05


class HeldSuite:
    """``Held``."""

    def test_an_entry_comes_out_as_it_was_put(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [Hold(lent(RICH, attempt=3)), Hold(lent(BARE))], [])

        rich, bare = scene.rival.held.due(FLOW, 10)

        assert (rich.message, rich.attempt, rich.partition) == (RICH, 3, "partition")
        assert (bare.message, bare.attempt) == (BARE, 1)
        assert isinstance(rich.receipt, HeldReceipt)

    def test_entries_of_a_key_keep_the_order_in_which_they_were_put(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [hold("a2", "a"), hold("b1", "b")], [])
        scene.session.held.put(FLOW, [hold("a1", "a"), hold("a3", "a")], [])

        due = ids(scene.session.held.due(FLOW, 10))

        assert [id for id in due if id[0] == "a"] == ["a2", "a1", "a3"]
        assert sorted(due) == ["a1", "a2", "a3", "b1"]

    def test_no_more_are_due_than_asked_for(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [hold(f"m{number}", "a") for number in range(5)], [])

        assert ids(scene.session.held.due(FLOW, 2)) == ["m0", "m1"]

    def test_what_is_not_yet_due_keeps_those_behind_it_waiting(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [hold("a1", "a", after_seconds=LONG_SECONDS), hold("a2", "a"), hold("b", "b")], [])

        assert ids(scene.session.held.due(FLOW, 10)) == ["b"]

    def test_those_behind_the_first_follow_whatever_their_time(self, scene: Scene) -> None:
        scene.session.held.put(
            FLOW, [hold("a1", "a", after_seconds=SOON_SECONDS), hold("a2", "a", after_seconds=LONG_SECONDS)], []
        )

        assert ids(scene.until(lambda: scene.session.held.due(FLOW, 10))) == ["a1", "a2"]

    def test_a_failure_that_blocks_keeps_those_behind_it(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [hold("a0", "a"), failed("a1", "a"), hold("a2", "a")], [])

        assert ids(scene.session.held.due(FLOW, 10)) == ["a0"]

    def test_a_failure_that_does_not_block_is_left_aside(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [failed("a1", "a", blocks=False), hold("a2", "a")], [])

        assert ids(scene.session.held.due(FLOW, 10)) == ["a2"]
        assert scene.session.held.keys(FLOW) == {("orders", "a"): 1}

    def test_messages_without_a_key_stand_alone(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [failed("m1"), hold("m2"), hold("m3", after_seconds=LONG_SECONDS)], [])

        assert ids(scene.session.held.due(FLOW, 10)) == ["m2"]
        assert scene.session.held.keys(FLOW) == {("m1",): 1, ("m2",): 1, ("m3",): 1}

    def test_keys_count_what_later_messages_wait_behind(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [hold("a1", "a"), failed("a2", "a"), failed("b1", "b", blocks=False)], [])

        assert scene.session.held.keys(FLOW) == {("orders", "a"): 2}
        assert scene.session.held.count(FLOW) == 3

    def test_an_id_that_is_held_already_is_left_as_it_is(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [failed("m1", error="first")], [])
        scene.session.held.put(FLOW, [hold("m1"), hold("m2")], [])

        assert scene.session.held.known(FLOW, ["m0", "m1", "m2"]) == {"m1", "m2"}
        assert scene.session.held.count(FLOW) == 2
        assert ids(scene.session.held.due(FLOW, 10)) == ["m2"]

    def test_each_flow_holds_for_itself(self, scene: Scene) -> None:
        scene.session.held.put("one", [hold("m1", "a")], [])
        scene.session.held.put("two", [hold("m1", "a")], [])
        due = scene.session.held.due("one", 10)

        scene.session.held.settle("one", due, [], [])

        assert scene.session.held.known("one", ["m1"]) == set()
        assert scene.session.held.known("two", ["m1"]) == {"m1"}

    def test_settled_entries_are_gone_or_as_they_became(self, scene: Scene) -> None:
        held = scene.session.held
        held.put(FLOW, [hold("done"), hold("again"), hold("given up")], [])
        done, again, given_up = held.due(FLOW, 10)
        retried = lent(again.message, attempt=2, receipt=again.receipt)

        held.settle(
            FLOW,
            [done],
            [Hold(retried, error="once"), Hold(given_up, failed=True, blocks=False, error="for good")],
            [],
        )

        assert [(found.message.id, found.attempt) for found in held.due(FLOW, 10)] == [("again", 2)]
        assert held.keys(FLOW) == {("again",): 1}
        assert held.count(FLOW) == 2

    def test_a_retried_entry_waits_its_time_before_those_behind_it(self, scene: Scene) -> None:
        held = scene.session.held
        held.put(FLOW, [hold("a1", "a"), hold("a2", "a")], [])
        first = held.due(FLOW, 1)[0]

        held.settle(FLOW, [], [Hold(first, after_seconds=LONG_SECONDS, error="once")], [])

        assert held.due(FLOW, 10) == []

    def test_settling_twice_is_harmless(self, scene: Scene) -> None:
        held = scene.session.held
        held.put(FLOW, [hold("done"), hold("given up")], [])
        done, given_up = held.due(FLOW, 10)
        for _ in range(2):
            held.settle(FLOW, [done], [Hold(given_up, failed=True, error="for good")], [])

        assert held.count(FLOW) == 1

    def test_a_worker_that_lost_its_lease_holds_nothing(self, scene: Scene) -> None:
        held = scene.session.held
        zombie, fence = scene.overtaken()
        held.put(FLOW, [hold("a")], [fence])
        due = held.due(FLOW, 10)

        with pytest.raises(FenceLost):
            held.put(FLOW, [hold("b")], [zombie])
        with pytest.raises(FenceLost):
            held.settle(FLOW, due, [], [zombie])
        with pytest.raises(FenceLost):
            held.settle(FLOW, [], [Hold(due[0], failed=True)], [zombie])

        assert ids(held.due(FLOW, 10)) == ["a"]

    def test_who_has_the_lease_may_hold(self, scene: Scene) -> None:
        fence = scene.lease()
        scene.session.held.put(FLOW, [hold("a"), hold("b")], [fence])
        a, b = scene.session.held.due(FLOW, 10)
        scene.session.held.settle(FLOW, [a], [Hold(b, failed=True)], [fence])

        assert scene.session.held.count(FLOW) == 1
