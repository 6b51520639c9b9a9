"""Failures, in whatever table they are, and what persons do about them."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked
from __future__ import annotations

from datetime import timedelta

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Message
from yeondong.core.store import RELAY, Failure, FailureFilter, Hold
from yeondong.testing.store_suite.inbox import NOW
from yeondong.testing.store_suite.scene import RICH, Scene, ids, lent, message

ALL = FailureFilter()


class Place:
    """Where failures are kept: a flow's held entries, or the outbox's own rows."""

    def __init__(self, scene: Scene, flow: str, *, rows: bool) -> None:
        self.scene = scene
        self.flow = flow
        self._rows = rows
        self._fence: Fence = scene.lease(flow)

    def put(self, *messages: Message) -> None:
        """Have messages that wait."""
        if self._rows:
            self.scene.add(*messages)
        else:
            self.scene.session.held.put(self.flow, [Hold(lent(each)) for each in messages], [self._fence])

    def fail(self, id: str, *, error: str = "boom", attempts: int = 5, blocks: bool = True) -> Failure:
        """Let one of them fail for good."""
        delivery = next(found for found in self.due() if found.message.id == id)
        tried = Delivery(delivery.message, delivery.receipt, delivery.partition, attempts)
        hold = Hold(tried, failed=True, blocks=blocks, error=error)
        if self._rows:
            self.scene.session.outbox.hold([hold], self._fence)
        else:
            self.scene.session.held.settle(self.flow, [], [hold], [self._fence])
        return next(found for found in self.find() if found.message.id == id)

    def due(self) -> list[Delivery]:
        if self._rows:
            return list(self.scene.session.outbox.waiting(100, ()))
        return list(self.scene.session.held.due(self.flow, 100))

    def find(self, which: FailureFilter = ALL) -> list[Failure]:
        return list(self.scene.rival.failures.find(which, 100))


class FailureSuite:
    """``Failures``."""

    @pytest.fixture(params=["held", "outbox"])
    def place(self, scene: Scene, request: pytest.FixtureRequest) -> Place:
        rows = request.param == "outbox"
        return Place(scene, RELAY if rows else "points", rows=rows)

    def test_a_failure_tells_what_failed_why_and_what_waits_behind(self, place: Place) -> None:
        place.put(RICH, Message("next", "t", RICH.kind, RICH.channel, RICH.key, b""), message("other", "b"))
        failure = place.fail("rich", error="refused: 422", attempts=7)

        assert failure.message == RICH
        assert (failure.flow, failure.attempts, failure.error) == (place.flow, 7, "refused: 422")
        assert (failure.blocks, failure.behind, failure.edited) == (True, 1, False)
        assert abs(failure.failed_at - RICH.occurred_at) > timedelta(hours=1)  # type: ignore[operator]

    def test_nothing_waits_behind_a_failure_that_does_not_block(self, place: Place) -> None:
        place.put(message("a1", "a"), message("a2", "a"))
        failure = place.fail("a1", blocks=False)

        assert (failure.blocks, failure.behind) == (False, 0)

    def test_failures_are_found_oldest_first_up_to_the_limit(self, place: Place) -> None:
        place.put(*(message(f"m{number}") for number in range(4)))
        for number in (2, 0, 1):
            place.fail(f"m{number}")

        found = [failure.message.id for failure in place.find()]
        assert sorted(found) == ["m0", "m1", "m2"]
        assert sorted(place.find(), key=lambda failure: failure.failed_at) == place.find()
        assert len(place.scene.session.failures.find(ALL, 2)) == 2
        assert place.scene.session.failures.count(ALL) == 3

    def test_a_filter_leaves_out_what_was_not_asked_for(self, place: Place) -> None:
        place.put(message("a", "a"), message("b", "b"), message("c"))
        first, second = place.fail("a", error="HTTP 503 from Partner"), place.fail("b", error="bad data")
        failures = place.scene.session.failures

        def found(which: FailureFilter) -> list[str]:
            assert failures.count(which) == len(failures.find(which, 10))
            return [failure.id for failure in failures.find(which, 10)]

        assert found(FailureFilter(ids=[first.id, "h999", "nonsense"])) == [first.id]
        assert found(FailureFilter(ids=[])) == []
        assert sorted(found(FailureFilter(flow=place.flow))) == sorted([first.id, second.id])
        assert found(FailureFilter(flow="another")) == []
        assert found(FailureFilter(type="another")) == []
        assert found(FailureFilter(key="b")) == [second.id]
        assert found(FailureFilter(error="from partner")) == [first.id]
        assert found(FailureFilter(error="%")) == []
        assert found(FailureFilter(before=first.failed_at)) == []
        assert len(found(FailureFilter(before=second.failed_at + timedelta(seconds=1)))) == 2
        assert found(FailureFilter(type="order.placed", key="a", error="503", flow=place.flow)) == [first.id]

    def test_a_retried_one_starts_anew_before_what_waits_behind_it(self, place: Place) -> None:
        place.put(message("a1", "a"), message("a2", "a"))
        failure = place.fail("a1")
        assert ids(place.due()) == []

        assert place.scene.rival.failures.retry([failure.id], "kim") == 1

        assert [(found.message.id, found.attempt) for found in place.due()] == [("a1", 1), ("a2", 1)]
        assert place.find() == []
        assert place.scene.rival.failures.retry([failure.id], "kim") == 0

    def test_a_retried_one_is_no_longer_suspected(self, place: Place) -> None:
        place.put(message("a1", "a"))
        suspects = place.scene.session.suspects
        suspects.begin(place.flow, "partition", "a1", 3)
        suspects.begin(place.flow, "partition", "other", 1)
        failure = place.fail("a1")

        place.scene.rival.failures.retry([failure.id], "kim")

        assert suspects.load(place.flow) == {"other": 1}

    def test_a_discarded_one_is_gone_and_what_waits_behind_it_goes_on(self, place: Place) -> None:
        place.put(message("a1", "a"), message("a2", "a"))
        failure = place.fail("a1")

        assert place.scene.rival.failures.discard([failure.id], "kim") == 1

        assert ids(place.due()) == ["a2"]
        assert place.find() == []
        assert place.scene.rival.failures.discard([failure.id], "kim") == 0
        place.scene.session.outbox.sweep(NOW, 100)
        assert ids(place.due()) == ["a2"]

    def test_an_edited_one_has_the_new_payload_and_the_original_is_kept(self, place: Place) -> None:
        place.put(message("a1", "a", data=b"wrong"))
        failure = place.fail("a1")

        assert place.scene.rival.failures.edit(failure.id, b"right", "kim")

        edited = place.find()[0]
        assert (edited.message.data, edited.edited) == (b"right", True)
        place.scene.rival.failures.retry([failure.id], "lee")
        assert [found.message.data for found in place.due()] == [b"right"]
        actions = place.scene.session.failures.actions(failure.id)
        assert [(each["action"], each["by"], each["original"]) for each in actions] == [
            ("edit", "kim", b"wrong"),
            ("retry", "lee", None),
        ]

    def test_a_discard_keeps_the_original_with_who_did_it_and_when(self, place: Place) -> None:
        place.put(message("a1", data=b"original"))
        failure = place.fail("a1")
        place.scene.session.failures.discard([failure.id], "kim")

        (action,) = place.scene.session.failures.actions(failure.id)

        assert (action["action"], action["by"], action["original"]) == ("discard", "kim", b"original")
        assert action["at"] >= failure.failed_at

    def test_what_is_no_failure_is_left_alone(self, place: Place) -> None:
        place.put(message("a1", "a"), message("waits", "b"))
        failure = place.fail("a1")
        failures = place.scene.session.failures
        failures.retry([failure.id], "kim")
        unknown = [failure.id, failure.id + "0", "", "x1", "h", "o-1", "h1; DROP TABLE yeondong_held"]

        assert failures.retry(unknown, "kim") == 0
        assert failures.discard(unknown, "kim") == 0
        assert not any(failures.edit(id, b"new", "kim") for id in unknown)
        assert sorted(ids(place.due())) == ["a1", "waits"]
        assert len(failures.actions(failure.id)) == 1

    def test_failures_of_all_places_are_told_apart(self, scene: Scene) -> None:
        held, rows = Place(scene, "points", rows=False), Place(scene, RELAY, rows=True)
        for place in (held, rows):
            place.put(message(f"{place.flow} 1"))
        one, other = held.fail("points 1"), rows.fail(f"{RELAY} 1")

        assert one.id != other.id
        assert [failure.id for failure in held.find(FailureFilter(flow="points"))] == [one.id]
        assert scene.session.failures.discard([one.id, other.id], "kim") == 2
