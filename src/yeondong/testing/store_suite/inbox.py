"""The inbox: at most one effect for each group and message."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest

from yeondong.testing.store_suite.scene import FLOW, GROUP, Scene, failed, hold

NOW = timedelta(seconds=-1)
"""An age that everything has reached."""


class InboxSuite:
    """``Inbox``."""

    def test_a_claim_tells_the_new_ids(self, scene: Scene) -> None:
        assert scene.claim("b", "a") == {"a", "b"}
        assert scene.claim("a", "c", "b") == {"c"}
        assert scene.claim() == set()

    def test_ids_claimed_in_the_same_transaction_are_not_new(self, scene: Scene) -> None:
        with scene.committed() as tx:
            assert scene.session.inbox.claim(tx, GROUP, ["a"]) == {"a"}
            assert scene.session.inbox.claim(tx, GROUP, ["a", "b"]) == {"b"}

    def test_each_group_claims_for_itself(self, scene: Scene) -> None:
        assert scene.claim("a", group="search") == {"a"}
        assert scene.claim("a", group="statistics") == {"a"}

    def test_a_claim_is_seen_by_other_sessions_once_committed(self, scene: Scene) -> None:
        scene.claim("a")

        with scene.committed(scene.rival) as tx:
            assert scene.rival.inbox.claim(tx, GROUP, ["a", "b"]) == {"b"}

    @pytest.mark.parametrize("commits", [True, False])
    def test_a_claim_waits_for_another_of_the_same_id(self, scene: Scene, *, commits: bool) -> None:
        first = scene.session.begin("first")
        assert scene.session.inbox.claim(first, GROUP, ["a"]) == {"a"}

        def second() -> set[str]:
            with scene.committed(scene.rival) as tx:
                return scene.rival.inbox.claim(tx, GROUP, ["b", "a"])

        with ThreadPoolExecutor() as threads:
            claiming = threads.submit(second)
            assert wait([claiming], 0.2).not_done
            if commits:
                first.commit()
            else:
                first.rollback()
            assert claiming.result(scene.patience_seconds) == ({"b"} if commits else {"a", "b"})

    def test_claims_can_be_taken_back(self, scene: Scene) -> None:
        with scene.committed() as tx:
            scene.session.inbox.claim(tx, GROUP, ["a", "b"])
            scene.session.inbox.unclaim(tx, GROUP, ["a"])

        assert scene.claim("a", "b") == {"a"}

    def test_a_thousand_ids_are_claimed_at_once(self, scene: Scene) -> None:
        many = [f"m{number}" for number in range(1_000)]
        assert scene.claim(*many) == set(many)
        assert scene.claim(*many, "new") == {"new"}

    def test_a_sweep_forgets_what_is_older_up_to_its_limit(self, scene: Scene) -> None:
        scene.claim("a", "b", "c")

        assert scene.session.inbox.sweep(timedelta(hours=1), 10) == 0
        assert scene.session.inbox.sweep(NOW, 2) == 2
        assert scene.session.inbox.sweep(NOW, 2) == 1
        assert scene.claim("a", "b", "c") == {"a", "b", "c"}

    def test_a_sweep_keeps_every_id_that_is_held(self, scene: Scene) -> None:
        scene.claim("waits", "failed", "done")
        scene.session.held.put(FLOW, [hold("waits"), failed("failed")], [])

        assert scene.session.inbox.sweep(NOW, 10) == 1
        assert scene.claim("waits", "failed", "done") == {"done"}
