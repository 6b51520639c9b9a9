"""The outbox as callers fill it and as the relay empties it."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

from datetime import timedelta

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.store import RELAY, Hold
from yeondong.errors import FenceLost
from yeondong.testing.store_suite.inbox import NOW
from yeondong.testing.store_suite.scene import BARE, LONG_SECONDS, OCCURRED_AT, RICH, Scene, message

SOON_SECONDS = 0.05


def again(row: Delivery, *, attempt: int, after_seconds: float) -> Hold:
    delivery = Delivery(row.message, row.receipt, row.partition, attempt)
    return Hold(delivery, after_seconds=after_seconds, error="once")


class OutboxSuite:
    """``Store.add`` and ``OutboxRows``."""

    def test_rows_come_out_as_they_were_added(self, scene: Scene) -> None:
        scene.add(RICH, BARE)

        rich, bare = scene.rival.outbox.waiting(10, ())

        assert (rich.message, rich.attempt) == (RICH, 1)
        assert (bare.message, bare.attempt) == (BARE, 1)

    def test_rows_wait_in_the_order_in_which_they_were_added(self, scene: Scene) -> None:
        scene.add(message("m2"), message("m1"))
        scene.add(message("m3"))

        assert scene.waiting() == ["m2", "m1", "m3"]
        assert scene.waiting(limit=2) == ["m2", "m1"]

    def test_rows_on_loan_are_not_lent_again(self, scene: Scene) -> None:
        scene.add(*(message(f"m{number}") for number in range(4)))
        rows = scene.session.outbox.waiting(10, ())

        assert scene.waiting([rows[0].receipt, rows[2].receipt], limit=2) == ["m1", "m3"]

    def test_a_commit_that_comes_late_is_seen(self, scene: Scene) -> None:
        scene.needs(not scene.traits.one_writer, "ids are given in the order of commits")
        late = scene.rival.begin("late")
        scene.rival_store.add(late, [message("first", "a")])
        scene.add(message("second", "a"))
        on_loan = [row.receipt for row in scene.session.outbox.waiting(10, ())]
        late.commit()

        assert scene.waiting(on_loan) == ["first"]

    def test_marked_rows_do_not_wait_and_marking_twice_is_harmless(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("m1"), message("m2"))
        sent = [scene.row("m1").receipt]
        scene.session.outbox.mark(sent, fence)
        scene.session.outbox.mark(sent, fence)

        assert scene.waiting() == ["m2"]
        assert scene.session.outbox.lag(None).waiting == 1

    def test_a_failure_that_blocks_keeps_the_later_rows_of_its_key(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(
            message("a0", "a"), message("a1", "a"), message("a2", "a"), message("b", "b"), message("none"),
            message("elsewhere", "a", channel="refunds"),
        )  # fmt: skip
        scene.session.outbox.hold([Hold(scene.row("a1"), failed=True, error="boom")], fence)

        assert scene.waiting() == ["a0", "b", "none", "elsewhere"]

    def test_a_failure_that_does_not_block_lets_its_key_go_on(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("a1", "a"), message("a2", "a"))
        scene.session.outbox.hold([Hold(scene.row("a1"), failed=True, blocks=False, error="boom")], fence)

        assert scene.waiting() == ["a2"]

    def test_a_failure_without_a_key_keeps_nobody(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("m1"), message("m2"))
        scene.session.outbox.hold([Hold(scene.row("m1"), failed=True, error="boom")], fence)

        assert scene.waiting() == ["m2"]

    def test_a_row_that_waits_longer_keeps_the_later_rows_of_its_key(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("a1", "a"), message("a2", "a"), message("b", "b"))
        scene.session.outbox.hold([again(scene.row("a1"), attempt=2, after_seconds=LONG_SECONDS)], fence)

        assert scene.waiting() == ["b"]
        assert scene.waiting([scene.row("b").receipt]) == []

    def test_a_row_comes_again_when_it_is_due_with_the_attempt_to_come(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("a1", "a"), message("a2", "a"))
        scene.session.outbox.hold([again(scene.row("a1"), attempt=2, after_seconds=SOON_SECONDS)], fence)

        rows = scene.until(lambda: scene.session.outbox.waiting(10, ()))

        assert [(row.message.id, row.attempt) for row in rows] == [("a1", 2), ("a2", 1)]

    def test_a_relay_that_lost_its_lease_marks_nothing(self, scene: Scene) -> None:
        zombie, fence = scene.overtaken(RELAY)
        scene.add(message("m1"), message("m2"))
        row = scene.row("m1")

        with pytest.raises(FenceLost):
            scene.session.outbox.mark([row.receipt], zombie)
        with pytest.raises(FenceLost):
            scene.session.outbox.hold([Hold(row, failed=True)], zombie)
        assert scene.waiting() == ["m1", "m2"]
        scene.rival.outbox.mark([row.receipt], fence)
        assert scene.waiting() == ["m2"]

    def test_holding_changes_nothing_that_no_longer_waits(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("m1"))
        row = scene.row("m1")
        scene.session.outbox.mark([row.receipt], fence)
        scene.session.outbox.hold([Hold(row, failed=True, error="late")], fence)
        scene.session.outbox.hold([again(row, attempt=2, after_seconds=0)], fence)

        assert scene.waiting() == []
        assert scene.session.outbox.sweep(NOW, 10, None) == 1

    def test_rows_follow_a_position_whatever_their_status(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(*(message(f"m{number}", "a") for number in range(4)))
        scene.session.outbox.mark([scene.row("m1").receipt], fence)
        scene.session.outbox.hold([Hold(scene.row("m2"), failed=True)], fence)
        first = scene.row("m0").receipt

        rows = scene.session.outbox.following(first, 2)
        rest = scene.session.outbox.following(rows[-1].receipt, 10)

        assert [row.message.id for row in (*rows, *rest)] == ["m1", "m2", "m3"]

    def test_lag_counts_what_waits_and_since_when(self, scene: Scene) -> None:
        assert scene.session.outbox.lag(None).waiting == 0
        scene.add(*(message(f"m{number}") for number in range(3)))

        whole = scene.session.outbox.lag(None)
        rest = scene.session.outbox.lag(scene.row("m1").receipt)
        none = scene.session.outbox.lag(scene.row("m2").receipt)

        assert (whole.waiting, whole.since) == (3, OCCURRED_AT)
        assert (rest.waiting, rest.since) == (1, OCCURRED_AT)
        assert (none.waiting, none.since) == (0, None)

    def test_unsent_is_just_below_the_first_row_that_was_not_sent(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        assert scene.session.outbox.unsent() == 0
        scene.add(*(message(f"m{number}") for number in range(4)))
        rows = [scene.row(f"m{number}") for number in range(4)]

        scene.session.outbox.mark([rows[0].receipt, rows[2].receipt], fence)
        assert scene.session.outbox.unsent() == rows[1].receipt - 1
        assert scene.session.outbox.failed() == 0
        scene.session.outbox.hold([Hold(rows[1], failed=True)], fence)
        assert scene.session.outbox.unsent() == rows[1].receipt - 1
        assert scene.session.outbox.failed() == 1
        scene.session.outbox.mark([rows[3].receipt], fence)
        assert scene.session.outbox.unsent() == rows[1].receipt - 1

    def test_unsent_is_the_highest_id_when_all_was_sent(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("m0"), message("m1"))
        scene.session.outbox.mark([scene.row("m0").receipt, scene.row("m1").receipt], fence)

        assert scene.session.outbox.unsent() == scene.session.outbox.following(0, 10)[-1].receipt

    def test_a_sweep_deletes_what_was_sent_before_the_age_up_to_its_limit(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(*(message(f"m{number}") for number in range(5)))
        scene.session.outbox.hold([Hold(scene.row("m0"), failed=True)], fence)
        scene.session.outbox.mark([scene.row(f"m{number}").receipt for number in (1, 2, 3)], fence)

        assert scene.session.outbox.sweep(timedelta(hours=1), 10, None) == 0
        assert scene.session.outbox.sweep(NOW, 2, None) == 2
        assert scene.session.outbox.sweep(NOW, 10, None) == 1
        assert [row.message.id for row in scene.session.outbox.following(0, 10)] == ["m0", "m4"]

    def test_a_sweep_by_position_deletes_nothing_beyond_it(self, scene: Scene) -> None:
        scene.add(*(message(f"m{number}") for number in range(3)))
        position = scene.row("m1").receipt

        assert scene.session.outbox.sweep(timedelta(days=30_000), 10, position) == 0
        assert scene.session.outbox.sweep(NOW, 1, position) == 1
        assert scene.session.outbox.sweep(NOW, 10, position) == 1
        assert [row.message.id for row in scene.session.outbox.following(0, 10)] == ["m2"]

    def test_ids_are_never_given_again(self, scene: Scene) -> None:
        scene.add(message("m1"))
        last = scene.row("m1").receipt
        scene.session.outbox.sweep(NOW, 10, last)
        scene.add(message("m2"))

        assert scene.row("m2").receipt > last
