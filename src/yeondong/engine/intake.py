"""From the source to the lanes' backlogs: what comes in is checked against what is held already."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from yeondong.core.delivery import Delivery
from yeondong.engine.holding import Holding
from yeondong.engine.settling import Loans
from yeondong.engine.slots import Slots
from yeondong.engine.suspicion import Suspicion
from yeondong.engine.tenure import Tenure


class Intake:
    """Puts new loans into the backlogs, but for those that are in held since before a crash.

    Only what could have been in flight at the crash can be there: the first deliveries of each partition are looked up.
    What has arrived stays here until that look-up has worked, so that an outage of the store in between loses nothing,
    and until its partition is ours to handle (``tenure``).
    """

    def __init__(
        self,
        loans: Loans,
        slots: Slots,
        holding: Holding,
        suspicion: Suspicion,
        in_flight: int,
        tenure: Tenure | None = None,
    ) -> None:
        self._loans = loans
        self._slots = slots
        self._holding = holding
        self._suspicion = suspicion
        self._in_flight = in_flight
        self._tenure = tenure
        self._arrived: list[Delivery] = []
        self._lookups: dict[str, int] = {}
        self._keys_known = False

    def open(self) -> None:
        """Begin anew: all keys that wait in held are known."""
        self._lookups = {}
        self._keys_known = True

    def gain(self) -> None:
        """Learn which keys wait in held before anything of new partitions is taken in: others have written there."""
        self._holding.refresh()
        self._holding.look_at = 0.0
        self._keys_known = True

    def drop(self, partitions: Collection[str] | None) -> None:
        """Forget what has arrived of these partitions, or of all."""
        if partitions is None:
            self._arrived = []
            return
        self._arrived = [delivery for delivery in self._arrived if delivery.partition not in partitions]
        for partition in partitions:
            self._lookups.pop(partition, None)

    def due(self) -> None:
        """Take in what is due in held."""
        mine = None if self._tenure is None else self._tenure.fences
        due = self._holding.due(max(1, self._in_flight // 4), self._slots.in_hand, mine)
        self._suspicion.suspect(due)
        self._slots.admit(due)
        if due:
            self._slots.expect_held()

    def arrive(self, deliveries: Sequence[Delivery]) -> None:
        """Note new loans; ``take`` does the rest."""
        for partition in self._loans.lend(deliveries):
            self._lookups[partition] = self._in_flight
            self._keys_known = False
        self._arrived.extend(deliveries)

    def take(self) -> None:
        """Take in what has arrived."""
        if not self._arrived:
            return
        arrived: list[Delivery] = self._arrived
        later: list[Delivery] = []
        if self._tenure is not None and self._tenure.pending:
            mine = self._tenure.fences
            arrived = [delivery for delivery in self._arrived if delivery.partition in mine]
            later = [delivery for delivery in self._arrived if delivery.partition not in mine]
        if not self._keys_known:
            self._holding.refresh()
            self._keys_known = True
        if self._lookups:
            arrived = self._not_yet_held(arrived)
            self._arrived = [*arrived, *later]
        self._suspicion.suspect_again(arrived)
        self._slots.admit(arrived)
        self._arrived = later

    def _not_yet_held(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Settle what is held already, so that it makes no second record; return the rest."""
        first: dict[int, Delivery] = {}
        left = dict(self._lookups)
        for delivery in deliveries:
            if left.get(delivery.partition, 0) > 0:
                first[id(delivery)] = delivery
                left[delivery.partition] -= 1
        known = self._holding.known({d.message.id for d in first.values()})
        self._lookups = {partition: number for partition, number in left.items() if number > 0}
        self._suspicion.suspect(delivery for delivery in first.values() if delivery.message.id not in known)
        if not known:
            return deliveries
        held = {key for key, delivery in first.items() if delivery.message.id in known}
        self._loans.finish([delivery for key, delivery in first.items() if key in held])
        return [d for d in deliveries if id(d) not in held]
