"""What carries messages between applications, or between the parts of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from yeondong.core.message import Kind
from yeondong.core.sink import Sink
from yeondong.core.source import Source
from yeondong.core.traits import Traits
from yeondong.errors import ReceiverError

Since: TypeAlias = Literal["start", "now"]


class Receiver(Struct, frozen=True):
    """One message type that one group of one app receives."""

    type: str
    kind: Kind
    channel: str
    group: str
    app: str


class GroupLag(Struct, frozen=True):
    """How far one group of a channel has come.

    ``dropped`` counts what a full log dropped before it was settled: what was in hand just then is handled all the
    same.
    """

    channel: str
    group: str
    waiting: int
    since: datetime | None
    dropped: int = 0


def refuse_second_receivers(others: Sequence[Receiver], receivers: Sequence[Receiver]) -> None:
    """Raise ``ReceiverError`` if a group belongs to another app, or a command has a receiver already; for drivers.

    ``others`` are the receivers of all other apps. Commands of one type in two channels are two commands.
    """
    owners = {(other.channel, other.group): other.app for other in others}
    for receiver in receivers:
        owner = owners.get((receiver.channel, receiver.group), receiver.app)
        if owner != receiver.app:
            raise ReceiverError(
                f"group {receiver.group!r} of channel {receiver.channel!r} belongs to app {owner!r}: in app "
                f"{receiver.app!r} it would take messages away from it; name another group "
                "(or forget this one if that app is gone)"
            )
    first = {(other.channel, other.type): other for other in others if other.kind is Kind.COMMAND}
    for receiver in receivers:
        if receiver.kind is not Kind.COMMAND:
            continue
        other = first.setdefault((receiver.channel, receiver.type), receiver)
        if (other.app, other.group) != (receiver.app, receiver.group):
            raise ReceiverError(
                f"command {receiver.type!r} of channel {receiver.channel!r} has a receiver already: group "
                f"{other.group!r} of app {other.app!r}, so group {receiver.group!r} of app {receiver.app!r} cannot "
                "receive it too; remove one of the two "
                "(forget the group if its app is gone), or make it an event"
            )


class Broker(Protocol):
    """Makes sinks and sources, and knows who receives what. Its methods may be called from any thread."""

    traits: Traits
    address: str

    def prepare(self, channels: Collection[str] = ()) -> None:
        """Connect once and check that these channels can be used. Raises ``ConnectionLost`` or ``StoreError``.

        What a new or empty system lacks is made. Tables are not added unasked to a database of others, which has none
        of yeondong's, nor topics to a broker of others: ``SchemaMissing`` then.
        """

    def statements(self) -> Sequence[str]:
        """Return the statements that create the broker's tables, in order; none where it has none. Asks nobody."""

    def create(self, channels: Collection[str] = ()) -> Sequence[str]:
        """Create what is missing, also for these channels, and return the names; nothing that is there is changed."""

    def check(self, channels: Collection[str] = ()) -> Sequence[str]:
        """Compare what is there with what this version and these channels need; return a sentence per difference."""

    def sink(self) -> Sink:
        """Return a new sink for all channels; each lane has its own."""

    def source(self, channel: str, group: str) -> Source:
        """Return a new source of one group's messages.

        While the group is not registered, or was forgotten, the source raises ``ConnectionLost``, which says so.
        """

    def register(self, app: str, receivers: Sequence[Receiver], since: Callable[[str, str], Since]) -> None:
        """Replace what this app receives and make its groups; ``since(channel, group)`` says where a new one starts.

        Groups that are there keep their progress, also those that the app no longer names. Raises ``ReceiverError`` and
        registers nothing if a command would have a second receiver.
        """

    def receivers(self) -> Sequence[Receiver]:
        """Return everything that is registered; nothing before anybody has prepared the broker, as ``groups`` does."""

    def groups(self) -> Sequence[GroupLag]:
        """Return all groups with their progress."""

    def forget(self, channel: str, group: str) -> bool:
        """Remove a group, its progress and its receivers; False if there is none.

        Raises ``ConnectionLost`` while anybody has it open, if the broker assigns partitions: it would let him go on.
        """

    def rewind(self, channel: str, group: str, start: str) -> int:
        """Set a group back to the start, or to a time in ISO 8601, never forward; return how many messages will repeat.

        Where a broker has offsets, ``PARTITION:OFFSET`` sets back that partition alone. Nobody may have the group open
        meanwhile: a broker that assigns partitions raises ``ConnectionLost`` then. Raises ``UnknownName``, and
        ``DeclarationError`` for what is none of these, a time without an offset, or a broker without ``Traits.replay``.
        """

    def repeats(self, channel: str, group: str, start: str) -> int:
        """Count what ``rewind`` would repeat, and change nothing. Raises as ``rewind`` does.

        0 before anybody has prepared the broker.
        """

    def sweep(self) -> int:
        """Delete what the retention no longer keeps; return how many messages."""

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` soon after anybody sends; return a function that ends it.

        Never called by a broker whose readers wait at the broker itself (ASSIGNED).
        """

    def close(self) -> None:
        """Disconnect. Never raises; twice is harmless."""
