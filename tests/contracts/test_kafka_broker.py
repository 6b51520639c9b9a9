"""Kafka against the suite that every broker passes, on a real cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.contracts.kafka_brokers import CHANNELS, broker_at, new_prefix, remove
from tests.servers.shared import required
from yeondong.core.broker import Broker
from yeondong.testing.broker_suite import BrokerSuite, Factory


class TestKafka(BrokerSuite):
    sends_whole = False

    @pytest.fixture
    def place(self) -> Iterator[str]:
        place = f"{required('kafka')} {new_prefix()}"
        yield place
        remove(place)

    @pytest.fixture
    def broker(self, place: str) -> Broker:
        broker = broker_at(place)
        broker.create(CHANNELS)
        return broker

    @pytest.fixture
    def reopen(self, place: str) -> Callable[[], Broker]:
        return lambda: broker_at(place)

    @pytest.fixture
    def factory(self, place: str) -> Factory:
        return "tests.contracts.kafka_brokers:broker_at", place
