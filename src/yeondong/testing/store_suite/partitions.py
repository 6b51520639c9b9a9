"""Partitions that a broker assigns to the workers of one flow: who may write for them, and what is held of them."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.store import Hold, Session
from yeondong.errors import FenceLost
from yeondong.testing.store_suite.scene import FLOW, LONG_SECONDS, Scene, ids, message


def of(partition: str, id: str, key: str | None = None, *, failed: bool = False, after_seconds: float = 0.0) -> Hold:
    """Return what is to be held of this partition."""
    return Hold(Delivery(message(id, key), 0, partition), failed=failed, after_seconds=after_seconds)


def claimed(session: Session, *partitions: str, owner: str = "worker") -> list[Fence]:
    return [claim.fence for claim in session.claims.claim(FLOW, partitions, owner)]


class PartitionSuite:
    """``Claims``, and ``Held`` by partition."""

    def test_a_claim_names_its_partition_and_has_no_end(self, scene: Scene) -> None:
        first, second = sorted(claimed(scene.session, "p1", "p2"), key=lambda fence: fence.partition or "")

        assert (first.name, first.owner, first.partition) == (FLOW, "worker", "p1")
        assert second.partition == "p2"
        assert first.deadline == float("inf")

    def test_who_claims_first_asks_nobody(self, scene: Scene) -> None:
        claimed(scene.session, "p1")
        fences = claimed(scene.rival, "p1", owner="rival")

        scene.rival.held.put(FLOW, [of("p1", "m1")], fences)

        assert scene.session.held.known(FLOW, ["m1"]) == {"m1"}

    def test_a_worker_whose_partition_another_has_claimed_writes_nothing(self, scene: Scene) -> None:
        zombie = claimed(scene.session, "p1", "p2")
        scene.session.held.put(FLOW, [of("p1", "m1")], zombie)
        due = scene.session.held.due(FLOW, 10)
        fences = claimed(scene.rival, "p1", owner="rival")

        with pytest.raises(FenceLost) as lost:
            scene.session.held.put(FLOW, [of("p1", "m2"), of("p2", "m3")], zombie)
        with pytest.raises(FenceLost):
            scene.session.held.settle(FLOW, due, [], zombie)

        assert lost.value.partition == "p1"
        assert scene.rival.held.partitions(FLOW) == {"p1": 1}
        scene.rival.held.settle(FLOW, due, [], fences)
        assert scene.rival.held.count(FLOW) == 0

    def test_a_worker_writes_on_for_the_partitions_that_it_still_has(self, scene: Scene) -> None:
        _, kept = sorted(claimed(scene.session, "p1", "p2"), key=lambda fence: fence.partition or "")
        claimed(scene.rival, "p1", owner="rival")

        scene.session.held.put(FLOW, [of("p2", "m1")], [kept])

        assert scene.session.held.count(FLOW) == 1

    def test_a_claim_of_ones_own_partition_ends_the_former_one(self, scene: Scene) -> None:
        former, current = claimed(scene.session, "p1"), claimed(scene.session, "p1")

        with pytest.raises(FenceLost):
            scene.session.held.put(FLOW, [of("p1", "m1")], former)
        scene.session.held.put(FLOW, [of("p1", "m1")], current)

    def test_a_claim_counts_for_its_own_flow_only(self, scene: Scene) -> None:
        fences = claimed(scene.session, "p1")
        scene.rival.claims.claim("another", ["p1"], "rival")

        scene.session.held.put(FLOW, [of("p1", "m1")], fences)

        assert scene.session.held.count(FLOW) == 1

    def test_a_partition_that_nobody_released_had_an_unclean_end(self, scene: Scene) -> None:
        released, left = sorted(claimed(scene.session, "p1", "p2"), key=lambda fence: fence.partition or "")
        scene.session.claims.release([released])

        claims = scene.rival.claims.claim(FLOW, ["p1", "p2", "p3"], "rival")

        assert {claim.fence.partition: claim.unclean for claim in claims} == {"p1": False, "p2": True, "p3": False}
        assert left.owner == "worker"

    def test_a_worker_that_claims_again_has_not_ended(self, scene: Scene) -> None:
        claimed(scene.session, "p1")

        assert not scene.session.claims.claim(FLOW, ["p1"], "worker")[0].unclean

    def test_nothing_is_written_under_a_released_claim(self, scene: Scene) -> None:
        fences = claimed(scene.session, "p1")
        scene.session.claims.release(fences)
        scene.session.claims.release(fences)

        with pytest.raises(FenceLost):
            scene.session.held.put(FLOW, [of("p1", "m1")], fences)

    def test_releasing_what_another_has_claimed_changes_nothing(self, scene: Scene) -> None:
        former = claimed(scene.session, "p1")
        fences = claimed(scene.rival, "p1", owner="rival")
        scene.session.claims.release(former)

        scene.rival.held.put(FLOW, [of("p1", "m1")], fences)

        assert scene.session.claims.claim(FLOW, ["p1"], "third")[0].unclean

    def test_what_is_due_is_due_in_its_own_partition(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [of("p1", "a", "a"), of("p2", "b", "b"), of("p3", "c")], [])

        assert ids(scene.session.held.due(FLOW, 10, ["p1", "p3"])) == ["a", "c"]
        assert ids(scene.rival.held.due(FLOW, 10, ["p2"])) == ["b"]
        assert scene.rival.held.due(FLOW, 10, []) == []
        assert sorted(ids(scene.rival.held.due(FLOW, 10))) == ["a", "b", "c"]

    def test_entries_of_other_partitions_take_no_place_among_the_due(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [*(of("p1", f"a{number}") for number in range(5)), of("p2", "b")], [])

        assert ids(scene.session.held.due(FLOW, 1, ["p2"])) == ["b"]

    def test_what_stands_behind_an_entry_of_another_partition_waits_for_it(self, scene: Scene) -> None:
        """A channel that gets more partitions has the later messages of a key in another one."""
        held = scene.session.held
        held.put(FLOW, [of("p1", "a1", "a"), of("p2", "a2", "a"), of("p1", "a3", "a")], [])

        assert held.due(FLOW, 10, ["p2"]) == []
        first = held.due(FLOW, 10, ["p1"])
        assert ids(first) == ["a1"]
        held.settle(FLOW, first, [], [])
        assert ids(held.due(FLOW, 10, ["p2"])) == ["a2"]
        assert held.due(FLOW, 10, ["p1"]) == []

    def test_a_failure_of_another_partition_keeps_those_behind_it(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [of("p1", "a1", "a", failed=True), of("p2", "a2", "a")], [])

        assert scene.session.held.due(FLOW, 10, ["p2"]) == []
        assert scene.session.held.keys(FLOW) == {("orders", "a"): 2}

    def test_what_is_not_yet_due_in_another_partition_keeps_those_behind_it(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [of("p1", "a1", "a", after_seconds=LONG_SECONDS), of("p2", "a2", "a")], [])

        assert scene.session.held.due(FLOW, 10, ["p2"]) == []

    def test_what_is_held_is_counted_by_partition(self, scene: Scene) -> None:
        scene.session.held.put(FLOW, [of("p1", "m1"), of("p1", "m2", failed=True), of("p2", "m3")], [])
        scene.session.held.put("another", [of("p1", "m1")], [])

        assert scene.rival.held.partitions(FLOW) == {"p1": 2, "p2": 1}
        assert scene.rival.held.partitions("none") == {}
        assert scene.rival.held.count(FLOW) == 3
