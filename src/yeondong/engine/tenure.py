"""Which partitions a worker may handle where a broker assigns them to the workers of a flow."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from yeondong.core.clock import Clock
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import AssignedSource
from yeondong.core.store import Claim, Claims, Held
from yeondong.errors import FenceLost

NOBODY: frozenset[str] = frozenset()


class Tenure:
    """What the broker assigned, we claimed in the store, and the broker confirmed after that: ``fences``, by partition.

    The order is what makes it safe. Another worker claims only what it was assigned after us, so its claim comes after
    the broker's confirmation of ours, and fences us off. A worker that claims what it has lost already, because it
    stood still, is not confirmed; it writes nothing, and whom it fenced off claims anew.

    Held entries of partitions that exist no more, in a channel that was made anew with fewer, go to whoever has the
    first partition: it adopts them.
    """

    def __init__(self, flow: str, owner: str, source: AssignedSource, claims: Claims, held: Held, clock: Clock) -> None:
        self.fences: dict[str, Fence] = {}
        self.confirm = source.confirm
        self._flow = flow
        self._owner = owner
        self._source = source
        self._claims = claims
        self._held = held
        self._clock = clock
        self._claimed: dict[str, Claim] = {}
        self._adopted = NOBODY
        self._adopted_with: str | None = None
        self._seen: frozenset[str] | None = None
        self._heard_at = float("-inf")
        self.in_doubt = False

    # --- the broker's signs of life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """The source was opened: it knows of no partitions yet."""
        self.drop_all()
        self._heard_at = self._clock.elapsed()
        self.in_doubt = False

    def received(self) -> bool:
        """Note that the source has followed its broker; return whether its word is enough.

        After too long a silence it is not: the source may not know yet what it lost. The broker has to ``confirm`` it.
        """
        now = self._clock.elapsed()
        if now - self._heard_at > self._source.session_seconds:
            self.in_doubt = True
        self._heard_at = now
        return not self.in_doubt

    def dispel_doubt(self) -> None:
        """The broker has confirmed that we are still in its group."""
        self.in_doubt = False

    def until(self) -> float:
        """Until when, in ``Clock.elapsed`` seconds, no other worker can have been given our partitions unnoticed."""
        return float("-inf") if self.in_doubt else self._heard_at + self._source.session_seconds

    # --- gaining ------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether something was assigned that we may not handle yet."""
        return bool(self._claimed) or self._source.partitions is not self._seen

    def claim(self) -> bool:
        """Claim what was assigned. True if there is anything that the broker has to confirm."""
        assigned = self._source.partitions
        if assigned is self._seen:
            return bool(self._claimed)
        for partition in self._adopted & assigned:  # it is there again
            del self.fences[partition]
        self._adopted -= assigned
        orphaned = self._orphaned(assigned)
        wanted = (assigned | orphaned) - self.fences.keys() - self._claimed.keys()
        if wanted:
            for claim in self._claims.claim(self._flow, wanted, self._owner):
                self._claimed[claim.fence.partition or ""] = claim
        self._adopted |= orphaned
        self._seen = assigned
        return bool(self._claimed)

    def _orphaned(self, assigned: frozenset[str]) -> frozenset[str]:
        """Return the partitions of held entries that exist no more, if they are for us to adopt."""
        existing = self._source.existing
        first = min(existing, default=None)
        if first is None or first not in assigned:
            return NOBODY
        self._adopted_with = first
        return frozenset(self._held.partitions(self._flow)) - existing

    @property
    def claimed(self) -> Iterable[Claim]:
        """The claims that are not yet begun."""
        return self._claimed.values()

    def begin(self) -> None:
        """Handle from now on what was claimed and confirmed."""
        self.fences.update({partition: claim.fence for partition, claim in self._claimed.items()})
        self._claimed = {}

    # --- having -------------------------------------------------------------------------------------------------------

    def fences_of(self, deliveries: Iterable[Delivery]) -> list[Fence]:
        """Return the fences of what is written for these. Raises ``FenceLost`` where there is none."""
        found: dict[str, Fence] = {}
        for delivery in deliveries:
            fence = self.fences.get(delivery.partition)
            if fence is None:
                raise FenceLost(self._flow, 0, delivery.partition)
            found[delivery.partition] = fence
        return list(found.values())

    # --- losing -------------------------------------------------------------------------------------------------------

    def with_adopted(self, partitions: frozenset[str]) -> frozenset[str]:
        """Return what goes when these are lost."""
        return partitions | self._adopted if self._adopted_with in partitions else partitions

    def drop(self, partitions: Collection[str]) -> list[Fence]:
        """Forget these; return the claims that are left to be released."""
        self._seen = None
        gone = [fence for partition in partitions if (fence := self.fences.pop(partition, None)) is not None]
        gone += [claim.fence for partition in partitions if (claim := self._claimed.pop(partition, None)) is not None]
        self._adopted -= frozenset(partitions)
        return gone

    def drop_all(self) -> list[Fence]:
        """Forget everything; nothing may be begun until it is opened anew."""
        self.in_doubt = True
        return self.drop([*self.fences, *self._claimed])
