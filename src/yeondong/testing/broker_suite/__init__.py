"""The conformance suite for brokers: every promise of ``yeondong.core.broker``, ``source`` and ``sink`` as a test.

A driver's test module subclasses ``BrokerSuite`` and gives the fixtures; ``Traits`` decide which tests apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from yeondong.core.broker import Broker
from yeondong.testing.broker_suite.assigned import AssignedSuite
from yeondong.testing.broker_suite.groups import GroupSuite
from yeondong.testing.broker_suite.processes import Factory as Factory
from yeondong.testing.broker_suite.processes import ProcessSuite
from yeondong.testing.broker_suite.scene import Scene as Scene
from yeondong.testing.broker_suite.sinks import SinkSuite
from yeondong.testing.broker_suite.sources import SourceSuite


class BrokerSuite(SourceSuite, AssignedSuite, SinkSuite, GroupSuite, ProcessSuite):
    """What every broker driver has to pass.

    A subclass gives the fixture ``broker``; a durable driver's also ``reopen`` and ``factory``::

        class TestKafka(BrokerSuite):
            @pytest.fixture
            def broker(self) -> Broker: ...          # prepared, and empty

            @pytest.fixture
            def reopen(self) -> Callable[[], Broker]: ...   # an independent object on the same data

            @pytest.fixture
            def factory(self) -> Factory: ...        # ("module:callable", "argument") for other processes
    """

    patience_seconds = 20.0
    """How long a test waits for a message that must come."""

    @pytest.fixture
    def broker(self) -> Broker:
        raise NotImplementedError("a driver's test gives the fixture broker: prepared, and empty")

    @pytest.fixture
    def reopen(self) -> Callable[[], Broker] | None:
        return None

    @pytest.fixture
    def factory(self, scene: Scene) -> Factory:
        scene.needs(scene.traits.durable, "nothing outlives the process")
        raise NotImplementedError("a durable driver's test gives the fixture factory")

    @pytest.fixture
    def bounded(self) -> Broker | None:
        """Give a broker that is full after some messages of 1,000 bytes, if the driver has such a bound."""
        return None

    @pytest.fixture
    def scene(self, broker: Broker, reopen: Callable[[], Broker] | None) -> Iterator[Scene]:
        scene = Scene(broker, reopen, patience_seconds=self.patience_seconds)
        yield scene
        scene.close()
        broker.close()
