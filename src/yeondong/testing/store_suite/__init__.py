"""The conformance suite for stores: every promise of ``yeondong.core.store`` as a test.

A driver's test module subclasses ``StoreSuite`` and gives the fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from yeondong.core.store import Store
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.testing.store_suite.failures import FailureSuite
from yeondong.testing.store_suite.flows import FlowSuite
from yeondong.testing.store_suite.held import HeldSuite
from yeondong.testing.store_suite.inbox import InboxSuite
from yeondong.testing.store_suite.leases import LeaseSuite
from yeondong.testing.store_suite.outbox import OutboxLogSuite, OutboxSuite
from yeondong.testing.store_suite.partitions import PartitionSuite
from yeondong.testing.store_suite.processes import Factory as Factory
from yeondong.testing.store_suite.processes import ProcessSuite
from yeondong.testing.store_suite.scene import Scene as Scene
from yeondong.testing.store_suite.transactions import TransactionSuite


class StoreSuite(
    TransactionSuite,
    InboxSuite,
    HeldSuite,
    LeaseSuite,
    PartitionSuite,
    OutboxSuite,
    OutboxLogSuite,
    FailureSuite,
    FlowSuite,
    ProcessSuite,
):
    """What every store driver has to pass.

    A subclass gives three fixtures, and ``traits`` where the driver promises less::

        class TestPostgresql(StoreSuite):
            @pytest.fixture
            def store(self) -> Store: ...            # prepared, and empty

            @pytest.fixture
            def rival(self, store: Store) -> Store: ...    # an independent object on the same database

            @pytest.fixture
            def factory(self) -> Factory: ...        # ("module:callable", "argument") for other processes
    """

    traits = Traits(durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.LEASED)
    """``one_writer`` says that a second transaction waits until the first has ended."""

    patience_seconds = 20.0
    """How long a test waits for what must happen."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("a driver's test gives the fixture store: prepared, and empty")

    @pytest.fixture
    def rival(self, store: Store) -> Store:
        raise NotImplementedError("a driver's test gives the fixture rival: another object on the same database")

    @pytest.fixture
    def factory(self) -> Factory:
        raise NotImplementedError("a driver's test gives the fixture factory: how other processes open the store")

    @pytest.fixture
    def scene(self, store: Store, rival: Store) -> Iterator[Scene]:
        scene = Scene(store, rival, self.traits, patience_seconds=self.patience_seconds)
        yield scene
        scene.close()
