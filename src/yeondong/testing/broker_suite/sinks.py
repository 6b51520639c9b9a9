"""What a broker's sinks promise."""

from __future__ import annotations

import threading

import pytest

from yeondong.core.broker import Broker
from yeondong.core.clock import SystemClock
from yeondong.core.sink import Sink
from yeondong.errors import ConnectionLost
from yeondong.testing.broker_suite.scene import Scene, ids, message, messages, nothing_comes, receiver, soon

MOST_SENDS = 1_000


class SinkSuite:
    """Sinks: what they refuse, deadlines, bounds."""

    def test_sending_tells_that_nothing_was_refused(self, scene: Scene) -> None:
        scene.register()
        assert list(scene.send(messages(3))) == []
        assert list(scene.send([])) == []

        assert ids(scene.drain(scene.opened(), 3)) == ids(messages(3))

    def test_a_repeat_keeps_its_id(self, scene: Scene) -> None:
        scene.register()
        scene.send([message("once")])
        scene.send([message("once")])

        assert set(ids(scene.drain(scene.opened(), 1))) == {"once"}

    def test_what_is_too_large_is_refused_and_the_rest_is_sent(self, scene: Scene) -> None:
        limit = scene.traits.max_bytes
        scene.needs(limit is not None, "data of any size")
        assert limit is not None
        scene.register()
        fits = message("fits", key="fits", data=b"x" * limit)
        too_large = message("too large", key="too large", data=b"x" * (limit + 1))
        sink = scene.sink()
        assert sink.check(fits) is None
        assert str(limit) in (sink.check(too_large) or "")

        refused = sink.send([message("before"), too_large, fits], soon())

        assert ids(one.message for one in refused) == ["too large"]
        assert all(one.reason for one in refused)
        assert sorted(ids(scene.drain(scene.opened(), 2))) == ["before", "fits"]

    def test_nothing_is_handed_over_after_the_deadline(self, scene: Scene) -> None:
        scene.register()
        sink = scene.sink()

        with pytest.raises(ConnectionLost):
            sink.send(messages(3), SystemClock().elapsed() - 0.001)

        sink.send([message("in time")], soon())
        source = scene.opened()
        assert ids(scene.drain(source, 1)) == ["in time"]
        assert nothing_comes(source)

    def test_several_channels_in_one_call(self, scene: Scene) -> None:
        scene.register()
        scene.register(receiver(channel="refunds", app="returns"), app="returns")
        mixed = [message(f"{i}", channel=("orders", "refunds")[i % 2]) for i in range(10)]

        scene.send(mixed)

        assert ids(scene.drain(scene.opened(), 5)) == ["0", "2", "4", "6", "8"]
        assert ids(scene.drain(scene.opened(channel="refunds"), 5)) == ["1", "3", "5", "7", "9"]

    def test_sinks_of_several_threads_do_not_mix_up_their_order(self, scene: Scene) -> None:
        scene.register()

        def send(prefix: str) -> None:
            for one in messages(20, keys=1, prefix=prefix):
                scene.send([one])

        senders = [threading.Thread(target=send, args=(prefix,)) for prefix in "abc"]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

        arrived = ids(scene.drain(scene.opened(), 60))
        for prefix in "abc":
            assert [id for id in arrived if id.startswith(prefix)] == ids(messages(20, prefix=prefix))

    def test_closing_a_sink_twice_is_harmless(self, scene: Scene) -> None:
        scene.register()
        sink = scene.sink()
        sink.close()
        sink.close()
        sink.open()
        sink.send([message("after")], soon())
        sink.close()

        scene.broker.sink().close()
        assert ids(scene.drain(scene.opened(), 1)) == ["after"]

    def test_a_full_broker_takes_nothing_until_a_group_has_read(self, bounded: Broker | None) -> None:
        if bounded is None:
            pytest.skip("the test gives no broker with a small bound")
        scene = Scene(bounded, None)
        scene.register()
        sink = scene.sink()
        taken, reason = _fill(sink)
        assert taken > 0
        assert "search" in reason
        source = scene.opened()
        found = scene.drain(source, taken)
        assert ids(found) == [f"m{i}" for i in range(taken)]
        with pytest.raises(ConnectionLost):
            sink.send([message("too early", data=bytes(1_000))], SystemClock().elapsed() + 0.05)

        source.settle(found)
        sink.send([message("next", data=bytes(1_000))], soon())

        assert ids(scene.drain(source, 1)) == ["next"]
        scene.close()


def _fill(sink: Sink) -> tuple[int, str]:
    """Send until the broker is full; return how many messages it took, and what it says."""
    for number in range(MOST_SENDS):
        try:
            sink.send([message(f"m{number}", data=bytes(1_000))], SystemClock().elapsed() + 0.05)
        except ConnectionLost as full:
            return number, full.reason
    return MOST_SENDS, "it took everything"
