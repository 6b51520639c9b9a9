"""Everything yeondong raises. Each error says what is wrong, with the value, and then what to do."""

from __future__ import annotations

from collections.abc import Iterable


class YeondongError(Exception):
    """The root of all errors that yeondong raises."""


# --- what a developer declared cannot work ----------------------------------------------------------------------------


class DeclarationError(YeondongError):
    """A decorator, a payload class or an option cannot work, whatever the systems do."""


class SettingsError(YeondongError):
    """A setting from the environment, ``yeondong.toml`` or the code cannot be used."""


class UnknownEndpoint(SettingsError):
    """A store or broker URL has a scheme that no driver serves."""

    def __init__(self, url: str, scheme: str, known: Iterable[str], what: str) -> None:
        super().__init__(f"no {what} serves {url!r} (scheme {scheme!r}); known schemes: {', '.join(sorted(known))}")
        self.url = url
        self.scheme = scheme


class AppNotFound(YeondongError):
    """The command line was given an app that does not import, or is no app."""


class UnknownName(YeondongError):
    """Something was asked for by a name that does not exist."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f"no {what} named {name!r}; known: {names}")
        self.name = name


class ReceiverError(YeondongError):
    """A command has a second receiver, or none."""


# --- one message cannot go --------------------------------------------------------------------------------------------


class MessageRefused(YeondongError):
    """A message can never be sent as it is: too large, a key of the wrong type, a naive datetime."""


class UnknownChannel(MessageRefused):
    """A message names a channel that the app does not know."""


class PublishTimedOut(YeondongError):
    """The broker did not take the messages within the time-out; whether it has them is unknown."""


class Undecodable(YeondongError):
    """A message's data does not fit its type: its content is broken, or writer and reader disagree about the type."""

    def __init__(self, type: str, reason: str) -> None:  # noqa: A002 - a message's type is called so everywhere
        super().__init__(f"the data does not decode as {type}: {reason}")
        self.type = type
        self.reason = reason


# --- the caller's transaction -----------------------------------------------------------------------------------------


class TransactionError(YeondongError):
    """What was passed as a transaction cannot carry an outbox message."""


class NotInTransaction(TransactionError):
    """An autocommit connection outside a transaction: the message would not share the fate of the change."""


class ForeignConnection(TransactionError):
    """A connection of another driver, or to another database than the app's store."""


class ClosedConnection(TransactionError):
    """The connection is closed."""


# --- systems ----------------------------------------------------------------------------------------------------------


class ConnectionLost(YeondongError):
    """A system is away, locked or full. Passing: the flow pauses and goes on by itself; no attempt is counted."""

    def __init__(self, system: str, address: str, reason: str) -> None:
        super().__init__(f"{system} at {address} is not available: {reason}")
        self.system = system
        self.address = address
        self.reason = reason


class Unavailable(YeondongError):
    """Raised by a handler: what it calls is away. The flow pauses and tries again; no attempt is counted."""


class FenceLost(YeondongError):
    """Another worker took the lease over, or the partition: nothing was written, and what is in memory is forgotten."""

    def __init__(self, name: str, epoch: int, partition: str | None = None) -> None:
        what = f"the lease {name!r}" if partition is None else f"partition {partition!r} of {name!r}"
        super().__init__(f"{what} is no longer held under epoch {epoch}; another worker took it over")
        self.name = name
        self.epoch = epoch
        self.partition = partition


class StoreError(YeondongError):
    """The store cannot be used as it is, and waiting will not mend it."""


class NotADatabase(StoreError):
    """The file exists and is no database."""


class ReadOnlyStore(StoreError):
    """The store can be read and not written."""


class PositionLost(StoreError):
    """How far a flow has come cannot be told in this database: to go on would pass messages over. The flow stops."""


class SchemaMissing(StoreError):
    """The database lacks yeondong's tables, or the broker its topics."""


class SchemaMismatch(StoreError):
    """The tables belong to an older or newer yeondong."""
