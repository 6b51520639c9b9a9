"""What a broker's sources promise."""

# ruff: noqa: PLR2004 - numbers of a scenario stand where they are checked

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from yeondong.core.delivery import Delivery
from yeondong.core.message import Kind, Message
from yeondong.core.traits import Order, Partitions, Settles
from yeondong.errors import ConnectionLost, FenceLost
from yeondong.testing.broker_suite.scene import (
    OCCURRED_AT,
    PATIENCE_SECONDS,
    Scene,
    ids,
    keeps_order,
    message,
    messages,
    nothing_comes,
)

CONTENTS = [
    pytest.param(message("m"), id="plain"),
    pytest.param(message("m", data=None), id="tombstone"),
    pytest.param(message("m", data=b""), id="empty data"),
    pytest.param(message("m", data=bytes(range(256))), id="binary data"),
    pytest.param(message("m", key=None), id="no key"),
    pytest.param(message("m", key="열쇠 🗝"), id="key that is not ASCII"),
    pytest.param(
        Message(
            "주문-1",
            "grant.points",
            Kind.COMMAND,
            "orders",
            "k",
            b"{}",
            {"text": "값 ä 🙂", "raw": b"\x00\xff\xfe", "none": "", "no bytes": b"", "quote": '"{}\\'},
            "/상점",
            OCCURRED_AT,
        ),
        id="command with headers",
    ),
    pytest.param(Message("m", "t", Kind.EVENT, "orders", "k", b"{}"), id="no origin, no time"),
]


class SourceSuite:
    """Sources: order, loans, settling, giving back, waking, what a crash leaves."""

    @pytest.mark.parametrize("sent", CONTENTS)
    def test_a_message_arrives_as_it_was_sent(self, scene: Scene, sent: Message) -> None:
        scene.register()
        scene.send([sent])

        (delivery,) = scene.drain(scene.opened(broker=scene.other()), 1)

        assert delivery.message == sent
        assert (delivery.attempt, delivery.flaw) == (1, None)

    def test_the_order_is_kept(self, scene: Scene) -> None:
        scene.register()
        sent = messages(300, keys=5)
        for start in range(0, 300, 7):
            scene.send(sent[start : start + 7])

        arrived = [delivery.message for delivery in scene.drain(scene.opened(), 300, at_once=11)]

        assert sorted(ids(arrived)) == sorted(ids(sent))
        match scene.traits.order:
            case Order.CHANNEL:
                assert ids(arrived) == ids(sent)
            case Order.KEY:
                for key in {one.key for one in sent}:
                    assert [m.id for m in arrived if m.key == key] == [m.id for m in sent if m.key == key]
            case Order.NONE:
                pass

    def test_a_source_gives_the_messages_of_its_channel_only(self, scene: Scene) -> None:
        scene.register()
        scene.send([message("other", channel="refunds"), message("mine"), message("another", channel="refunds")])

        source = scene.opened()

        assert ids(scene.drain(source, 1)) == ["mine"]
        assert nothing_comes(source)

    def test_the_limit_is_respected_and_nothing_is_lent_twice(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(10, keys=5))
        source = scene.opened()

        batches: list[list[Delivery]] = []
        give_up = time.monotonic() + PATIENCE_SECONDS
        while sum(map(len, batches)) < 10 and time.monotonic() < give_up:
            batches.append(list(source.receive(4, 0.1)))

        assert max(map(len, batches)) <= 4
        assert sorted(ids(delivery for batch in batches for delivery in batch)) == sorted(ids(messages(10, keys=5)))
        assert nothing_comes(source)

    def test_receipts_are_unique_within_a_partition(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(20, keys=5))

        found = scene.drain(scene.opened(), 20)

        assert len({(delivery.partition, delivery.receipt) for delivery in found}) == 20

    def test_a_limit_of_zero_borrows_nothing_and_returns_at_once(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(1))
        source = scene.opened()
        began = time.monotonic()

        assert list(source.receive(0, PATIENCE_SECONDS)) == []

        assert time.monotonic() - began < PATIENCE_SECONDS / 2
        assert ids(scene.drain(source, 1)) == ["m0"]

    def test_receiving_waits_for_the_first_message_and_no_longer_than_asked(self, scene: Scene) -> None:
        scene.register()
        source = scene.opened()
        began = time.monotonic()

        assert list(source.receive(10, 0.05)) == []
        assert time.monotonic() - began < PATIENCE_SECONDS / 2

        sender = threading.Thread(target=scene.send, args=(messages(1),))
        sender.start()
        assert ids(scene.drain(source, 1)) == ["m0"]
        sender.join()

    def test_wake_before_receiving_makes_it_return_at_once(self, scene: Scene) -> None:
        scene.register()
        source = scene.opened()
        assert nothing_comes(source)
        began = time.monotonic()

        source.wake()
        source.wake()
        assert list(source.receive(10, PATIENCE_SECONDS)) == []

        assert time.monotonic() - began < PATIENCE_SECONDS / 2

    def test_wake_by_another_thread_ends_the_waiting(self, scene: Scene) -> None:
        scene.register()
        source = scene.opened()
        assert nothing_comes(source)
        waiting = threading.Event()

        def wake() -> None:
            waiting.wait(PATIENCE_SECONDS)
            source.wake()

        waker = threading.Thread(target=wake)
        waker.start()
        began = time.monotonic()
        waiting.set()
        assert list(source.receive(10, PATIENCE_SECONDS)) == []

        assert time.monotonic() - began < PATIENCE_SECONDS / 2
        waker.join()

    def test_what_was_settled_does_not_come_again(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(5))
        source = scene.opened()
        source.settle(scene.drain(source, 5))
        source.close()

        again = scene.opened(broker=scene.other())
        scene.send([message("new")])

        assert ids(scene.drain(again, 1)) == ["new"]

    def test_settling_twice_is_harmless(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(6))
        source = scene.opened()
        found = scene.drain(source, 6)
        first, rest = found[:3], found[3:]

        source.settle(first)
        source.settle(first)
        source.settle([])
        source.settle(rest)
        source.settle(first)
        source.close()

        assert nothing_comes(scene.opened(broker=scene.other()))

    def test_what_is_unsettled_comes_again_after_closing_and_opening(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        scene.send(messages(10, keys=5))
        source = scene.opened()
        found = scene.drain(source, 10)
        source.settle(found[:4])
        source.close()
        scene.open(source)

        assert sorted(ids(scene.drain(source, 6))) == sorted(ids(found[4:]))
        assert nothing_comes(source)

    def test_what_is_unsettled_comes_again_to_whoever_opens_next(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        sent = messages(10, keys=5)
        scene.send(sent)
        source = scene.opened()
        found = scene.drain(source, 10)
        source.settle(found[:4])
        source.close()

        again = scene.drain(scene.opened(broker=scene.other()), 6)

        assert sorted(ids(again)) == sorted(ids(found[4:]))
        if scene.traits.order is Order.CHANNEL:
            assert ids(again) == ids(found[4:])
        if scene.traits.order is Order.KEY:
            assert keeps_order(again, [one for one in sent if one.id in ids(again)])

    def test_settling_a_prefix_forgets_all_up_to_it(self, scene: Scene) -> None:
        scene.needs(scene.traits.settles is Settles.PREFIX, "it does not settle by prefix")
        scene.register()
        scene.send(messages(6))
        source = scene.opened()
        found = scene.drain(source, 6)
        source.settle(found[:2])
        source.settle(found[2:5])
        source.close()

        assert ids(scene.drain(scene.opened(broker=scene.other()), 1)) == ids(found[5:])

    def test_settling_one_leaves_the_others_on_loan(self, scene: Scene) -> None:
        scene.needs(scene.traits.settles is Settles.EACH, "it does not settle each message")
        scene.register()
        scene.send(messages(5))
        source = scene.opened()
        found = scene.drain(source, 5)
        source.settle([found[3]])
        assert nothing_comes(source)
        source.close()

        again = scene.drain(scene.opened(broker=scene.other()), 4)

        assert sorted(ids(again)) == sorted(ids(found[:3] + found[4:]))

    def test_what_is_given_back_is_lent_again_in_order(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        scene.send(messages(8))
        source = scene.opened()
        found = scene.drain(source, 6)

        source.give_back([found[3], found[1]])
        source.give_back([found[1]])
        source.give_back([])
        again = scene.drain(source, 4)

        expected = [ids(found)[1], ids(found)[3], *ids(messages(8)[6:])]
        assert (sorted(ids(again)) if scene.traits.order is Order.NONE else ids(again)) == expected
        assert nothing_comes(source)

    def test_what_is_given_back_can_be_settled_after_it_was_lent_again(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        scene.send(messages(3))
        source = scene.opened()
        source.give_back(scene.drain(source, 3))

        source.settle(scene.drain(source, 3))
        assert nothing_comes(source)
        source.close()

        assert nothing_comes(scene.opened(broker=scene.other()))

    def test_what_was_settled_cannot_be_given_back(self, scene: Scene) -> None:
        scene.register()
        scene.send(messages(3))
        source = scene.opened()
        found = scene.drain(source, 3)
        source.settle(found)

        source.give_back(found)

        assert nothing_comes(source)

    def test_lag_counts_what_waits_and_what_is_on_loan(self, scene: Scene) -> None:
        scene.needs_memory_of_loans()
        scene.register()
        source = scene.opened()
        assert (source.lag().waiting, source.lag().since) == (0, None)
        before = datetime.now(UTC)
        scene.send(messages(5))

        found = scene.drain(source, 3)
        lag = source.lag()
        assert lag.waiting == 5
        assert lag.since is not None
        assert abs((lag.since - before).total_seconds()) < PATIENCE_SECONDS

        source.settle(found[:2])
        assert source.lag().waiting == 3

    def test_a_group_that_is_not_registered_cannot_be_opened(self, scene: Scene) -> None:
        source = scene.source(group="nobody")

        with pytest.raises(ConnectionLost, match="nobody"):
            scene.open(source)

        scene.register(since="start")
        scene.open(scene.source())

    def test_closing_twice_is_harmless(self, scene: Scene) -> None:
        scene.register()
        source = scene.opened()
        source.close()
        source.close()
        scene.source().close()

    def test_a_reader_with_an_older_lease_forgets_nothing(self, scene: Scene) -> None:
        scene.needs(scene.traits.partitions is Partitions.LEASED, "its groups are not leased")
        scene.register()
        scene.send(messages(5))
        zombie = scene.opened()
        found = scene.drain(zombie, 5)
        successor = scene.opened(broker=scene.other())

        with pytest.raises(FenceLost):
            zombie.settle(found)

        assert successor.lag().waiting == 5
        inherited = scene.drain(successor, 5)
        assert ids(inherited) == ids(found)
        successor.settle(inherited[:3])
        with pytest.raises(FenceLost):
            zombie.settle(found)
        assert successor.lag().waiting == 2

    def test_a_group_is_not_opened_under_an_older_lease(self, scene: Scene) -> None:
        scene.needs(scene.traits.partitions is Partitions.LEASED, "its groups are not leased")
        scene.register()
        scene.send(messages(2))
        old, young = scene.fence(7), scene.fence(8)
        holder = scene.source()
        holder.open(young, lambda _partitions: None)

        with pytest.raises(FenceLost):
            scene.source(broker=scene.other()).open(old, lambda _partitions: None)

        holder.settle(scene.drain(holder, 2))
        holder.close()
        holder.open(young, lambda _partitions: None)
        assert nothing_comes(holder)
