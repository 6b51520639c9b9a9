"""Leases, fences and positions."""

from __future__ import annotations

import pytest

from yeondong.core.clock import SystemClock
from yeondong.core.fence import Fence
from yeondong.errors import FenceLost
from yeondong.testing.store_suite.scene import FLOW, LONG_SECONDS, SHORT_SECONDS, Scene


class LeaseSuite:
    """``Leases`` and ``Positions``."""

    def test_one_owner_at_a_time_holds_a_lease(self, scene: Scene) -> None:
        fence = scene.lease()

        assert (fence.name, fence.owner) == (FLOW, "worker")
        assert scene.rival.leases.take(FLOW, "rival", LONG_SECONDS) is None
        assert scene.rival.leases.take("another", "rival", LONG_SECONDS) is not None

    def test_the_deadline_counts_from_before_the_lease_was_written(self, scene: Scene) -> None:
        clock = SystemClock()
        before = clock.elapsed()
        taken = scene.lease(seconds=10)
        between = clock.elapsed()
        renewed = scene.session.leases.renew(taken, 20)

        assert renewed is not None
        assert before + 10 <= taken.deadline <= between + 10
        assert between + 20 <= renewed.deadline <= clock.elapsed() + 20

    def test_an_expired_lease_goes_to_whoever_asks_under_a_higher_epoch(self, scene: Scene) -> None:
        old, new = scene.overtaken()

        assert new.owner == "rival"
        assert new.epoch > old.epoch

    def test_a_renewed_lease_keeps_its_epoch_and_does_not_expire(self, scene: Scene) -> None:
        taken = scene.lease(seconds=SHORT_SECONDS)
        renewed = scene.session.leases.renew(taken, LONG_SECONDS)

        assert renewed is not None
        assert renewed.epoch == taken.epoch
        clock = SystemClock()
        scene.until(lambda: clock.elapsed() > taken.deadline + SHORT_SECONDS)
        assert scene.rival.leases.take(FLOW, "rival", LONG_SECONDS) is None

    def test_a_lease_that_nobody_took_meanwhile_can_be_renewed(self, scene: Scene) -> None:
        taken = scene.lease(seconds=SHORT_SECONDS)
        clock = SystemClock()
        scene.until(lambda: clock.elapsed() > taken.deadline + SHORT_SECONDS)

        assert scene.session.leases.renew(taken, LONG_SECONDS) is not None
        assert scene.rival.leases.take(FLOW, "rival", LONG_SECONDS) is None

    def test_a_lease_that_another_took_cannot_be_renewed(self, scene: Scene) -> None:
        old, new = scene.overtaken()

        assert scene.session.leases.renew(old, LONG_SECONDS) is None
        assert scene.rival.leases.renew(new, LONG_SECONDS) is not None

    def test_a_released_lease_is_free_at_once(self, scene: Scene) -> None:
        fence = scene.lease()
        scene.session.leases.release(fence)
        new = scene.rival.leases.take(FLOW, "rival", LONG_SECONDS)

        assert new is not None
        assert new.epoch > fence.epoch
        assert scene.session.leases.renew(fence, LONG_SECONDS) is None

    def test_releasing_what_another_took_changes_nothing(self, scene: Scene) -> None:
        old, new = scene.overtaken()
        scene.session.leases.release(old)

        assert scene.session.leases.take(FLOW, "worker", LONG_SECONDS) is None
        assert scene.rival.leases.renew(new, LONG_SECONDS) is not None

    def test_an_owner_that_takes_its_lease_again_gets_a_higher_epoch(self, scene: Scene) -> None:
        first, second = scene.lease(), scene.lease()

        assert second.epoch > first.epoch
        assert scene.session.leases.renew(first, LONG_SECONDS) is None

    def test_a_position_is_what_was_saved_last(self, scene: Scene) -> None:
        fence = scene.lease()
        assert scene.session.positions.load(FLOW) is None
        scene.session.positions.save(FLOW, "17", fence)
        scene.session.positions.save(FLOW, "18", fence)

        assert scene.rival.positions.load(FLOW) == "18"
        assert scene.rival.positions.load("another") is None

    def test_a_worker_that_lost_its_lease_saves_no_position(self, scene: Scene) -> None:
        zombie, fence = scene.overtaken()
        scene.session.positions.save(FLOW, "17", fence)

        with pytest.raises(FenceLost):
            scene.session.positions.save(FLOW, "3", zombie)
        assert scene.session.positions.load(FLOW) == "17"

    def test_a_released_lease_saves_no_position(self, scene: Scene) -> None:
        fence = scene.lease()
        scene.session.leases.release(fence)

        with pytest.raises(FenceLost):
            scene.session.positions.save(FLOW, "3", fence)

    def test_a_lease_that_never_was_saves_no_position(self, scene: Scene) -> None:
        with pytest.raises(FenceLost):
            scene.session.positions.save(FLOW, "3", Fence(FLOW, "nobody", 1, 0.0))
