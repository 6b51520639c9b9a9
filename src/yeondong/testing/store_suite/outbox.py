"""The outbox as callers fill it and as the relay empties it."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import structs

from yeondong.core.delivery import Delivery
from yeondong.core.store import RELAY, Hold
from yeondong.errors import FenceLost
from yeondong.testing.store_suite.inbox import NOW
from yeondong.testing.store_suite.scene import BARE, LONG_SECONDS, OCCURRED_AT, RICH, Scene, ids, message

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
        assert scene.session.outbox.lag().waiting == 1

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
        assert scene.session.outbox.sweep(NOW, 10) == 1

    def test_lag_counts_what_waits_and_since_when(self, scene: Scene) -> None:
        assert scene.session.outbox.lag().waiting == 0
        scene.add(*(message(f"m{number}") for number in range(3)))

        whole = scene.session.outbox.lag()
        scene.session.outbox.mark([scene.row("m1").receipt], scene.lease(RELAY))

        assert (whole.waiting, whole.since) == (3, OCCURRED_AT)
        assert scene.session.outbox.lag().waiting == 2

    def test_failures_on_rows_are_counted(self, scene: Scene) -> None:
        scene.add(message("m1"), message("m2"))
        assert scene.session.outbox.failed() == 0
        scene.session.outbox.hold([Hold(scene.row("m1"), failed=True)], scene.lease(RELAY))

        assert scene.session.outbox.failed() == 1

    def test_a_sweep_deletes_what_was_sent_before_the_age_up_to_its_limit(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(*(message(f"m{number}") for number in range(5)))
        rows = [scene.row(f"m{number}") for number in range(5)]
        scene.session.outbox.hold([Hold(rows[0], failed=True)], fence)
        scene.session.outbox.mark([row.receipt for row in rows[1:4]], fence)

        assert scene.session.outbox.sweep(timedelta(hours=1), 10) == 0
        assert scene.session.outbox.sweep(NOW, 2) == 2
        assert scene.session.outbox.sweep(NOW, 10) == 1
        assert (scene.waiting(), scene.session.outbox.failed(), scene.session.outbox.repeats("start")) == (["m4"], 1, 0)

    def test_what_was_sent_is_sent_again_from_the_start_or_a_time(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        early = structs.replace(message("early"), occurred_at=OCCURRED_AT - timedelta(days=1))
        scene.add(early, message("late"), message("waits"))
        scene.session.outbox.mark([scene.row("early").receipt, scene.row("late").receipt], fence)

        assert scene.session.outbox.repeats("start") == 2
        assert scene.session.outbox.repeats(OCCURRED_AT.isoformat()) == 1
        assert scene.session.outbox.rewind(OCCURRED_AT.isoformat(), fence) == 1
        assert ids(scene.another().outbox.waiting(10, ())) == ["late", "waits"]
        assert scene.session.outbox.rewind("start", fence) == 1
        assert ids(scene.another().outbox.waiting(10, ())) == ["early", "late", "waits"]

    def test_a_relay_that_lost_its_lease_sends_nothing_again(self, scene: Scene) -> None:
        zombie, fence = scene.overtaken(RELAY)
        scene.add(message("m1"))
        scene.rival.outbox.mark([scene.row("m1").receipt], fence)

        with pytest.raises(FenceLost):
            scene.session.outbox.rewind("start", zombie)
        assert scene.waiting() == []

    def test_ids_are_never_given_again(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(message("m1"))
        last = scene.row("m1").receipt
        scene.session.outbox.mark([last], fence)
        assert scene.session.outbox.sweep(NOW, 10) == 1
        scene.add(message("m2"))

        assert scene.row("m2").receipt > last


class OutboxLogSuite:
    """``OutboxLog``: marking by position."""

    def test_the_log_gives_all_rows_once_and_what_comes_later_behind_them(self, scene: Scene) -> None:
        scene.add(*(message(f"m{number}") for number in range(3)))
        log = scene.log()
        first, rest = log.read(2), log.read(10)
        scene.add(message("m3"))
        later = log.read(10)

        assert ids([*first, *rest, *later]) == ["m0", "m1", "m2", "m3"]
        receipts = [row.receipt for row in (*first, *rest, *later)]
        assert receipts == sorted(set(receipts))
        assert ids(log.read(10)) == []

    def test_the_log_gives_rows_as_they_were_added(self, scene: Scene) -> None:
        scene.add(RICH, BARE)

        rich, bare = scene.log(scene.rival_store).read(10)

        assert (rich.message, rich.attempt) == (RICH, 1)
        assert (bare.message, bare.attempt) == (BARE, 1)

    def test_a_new_opening_goes_on_behind_what_was_saved(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(*(message(f"m{number}") for number in range(4)))
        log = scene.log()
        rows = log.read(10)
        log.save(rows[1].receipt, fence)
        assert ids(scene.log().read(10)) == ["m2", "m3"]
        log.save(rows[0].receipt, fence)
        assert ids(scene.log().read(10)) == ["m2", "m3"]
        log.save(rows[3].receipt, fence)

        scene.add(message("m4"))
        assert ids(scene.log(scene.rival_store).read(10)) == ["m4"]

    def test_what_commits_late_comes_later_and_is_not_passed_over(self, scene: Scene) -> None:
        scene.needs(not scene.traits.one_writer, "ids are given in the order of commits")
        fence = scene.lease(RELAY)
        late = scene.rival.begin("late")
        scene.rival_store.add(late, [message("first")])
        scene.add(message("second"))
        log = scene.log()
        (second,) = log.read(10)
        log.save(second.receipt, fence)
        fresh = scene.log()
        late.commit()
        scene.add(message("third"))

        assert second.message.id == "second"
        for each in (log, fresh, scene.log()):
            assert ids(each.read(10)) == ["first", "third"]

    def test_what_was_rolled_back_is_nowhere(self, scene: Scene) -> None:
        tx = scene.session.begin("undone")
        scene.store.add(tx, [message("undone")])
        tx.rollback()
        scene.add(message("m1"))

        assert ids(scene.log().read(10)) == ["m1"]

    def test_a_relay_that_lost_its_lease_saves_no_position(self, scene: Scene) -> None:
        zombie, fence = scene.overtaken(RELAY)
        scene.add(message("m1"), message("m2"))
        log = scene.log()
        rows = log.read(10)

        with pytest.raises(FenceLost):
            log.save(rows[1].receipt, zombie)
        assert ids(scene.log().read(10)) == ["m1", "m2"]
        log.save(rows[0].receipt, fence)
        with pytest.raises(FenceLost):
            log.rewind("start", zombie)
        assert ids(scene.log().read(10)) == ["m2"]

    def test_the_log_begins_at_the_first_row_that_marking_by_status_left(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(*(message(f"m{number}") for number in range(4)))
        receipts = [scene.row(f"m{number}").receipt for number in range(4)]
        scene.session.outbox.mark([receipts[0], receipts[2]], fence)
        assert ids(scene.log().read(10))[0] == "m1"

        scene.session.outbox.mark(receipts, fence)
        log = scene.log()
        assert ids(log.read(10)) == []
        scene.add(message("m4"))
        assert ids(log.read(10)) == ["m4"]

    def test_lag_counts_what_is_beyond_the_saved_position(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        log = scene.log()
        assert (log.lag().waiting, log.lag().since) == (0, None)
        scene.add(*(message(f"m{number}") for number in range(3)))
        rows = log.read(10)

        assert (log.lag().waiting, log.lag().since) == (3, OCCURRED_AT)
        log.save(rows[1].receipt, fence)
        assert (scene.log().lag().waiting, scene.log().lag().since) == (1, OCCURRED_AT)
        log.save(rows[2].receipt, fence)
        assert (log.lag().waiting, log.lag().since) == (0, None)

    def test_a_sweep_deletes_nothing_beyond_the_saved_position(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        scene.add(*(message(f"m{number}") for number in range(4)))
        log = scene.log()
        assert log.sweep(NOW, 10) == 0
        log.save(log.read(10)[2].receipt, fence)

        assert log.sweep(timedelta(days=30_000), 10) == 0
        assert log.sweep(NOW, 1) == 1
        assert log.sweep(NOW, 10) == 2
        assert log.sweep(NOW, 10) == 0
        assert ids(scene.log().read(10)) == ["m3"]
        assert log.repeats("start") == 0

    def test_the_log_goes_back_to_the_start_or_to_a_time(self, scene: Scene) -> None:
        fence = scene.lease(RELAY)
        early = structs.replace(message("early"), occurred_at=OCCURRED_AT - timedelta(days=1))
        scene.add(early, message("late"), message("unsent"))
        log = scene.log()
        log.save(log.read(10)[1].receipt, fence)

        assert (log.repeats("start"), log.repeats(OCCURRED_AT.isoformat())) == (2, 1)
        assert log.rewind((OCCURRED_AT + timedelta(hours=1)).isoformat(), fence) == 0
        assert ids(scene.log().read(10)) == ["unsent"]
        assert log.rewind(OCCURRED_AT.isoformat(), fence) == 1
        assert ids(scene.log().read(10)) == ["late", "unsent"]
        assert log.rewind("start", fence) == 1
        assert ids(scene.log().read(10)) == ["early", "late", "unsent"]
