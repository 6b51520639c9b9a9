"""The app: what a user declares, and what can be done with it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

from yeondong.app.declared import Marking, Policy, Subscription, UnknownTypes, checked_choice, checked_policy
from yeondong.app.drivers import open_broker, open_store
from yeondong.app.publishing import Publisher
from yeondong.core.broker import Broker, Receiver, Since
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.delivery import Outcome
from yeondong.core.ids import new_id
from yeondong.core.message import Kind, Message
from yeondong.core.sink import Sink
from yeondong.core.store import Session, Store, Transaction
from yeondong.engine.plan import OnFailure
from yeondong.errors import DeclarationError, MessageRefused, ReceiverError, UnknownChannel
from yeondong.messaging.handlers import bind
from yeondong.messaging.messages import AnyCommand, AnyEvent, spec_of, to_message
from yeondong.settings import Setting, Settings, list_settings, load_settings

P = ParamSpec("P")
E = TypeVar("E", bound=AnyEvent)
C = TypeVar("C", bound=AnyCommand)
Result = Outcome | None


class _Opened:
    """What one process has opened for an app, each once, and the lock under which it does so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.store: Store | None = None
        self.broker: Broker | None = None
        self.publisher: Publisher | None = None


class Outbox:
    """Messages that share the fate of a change: stored with the caller's commit, or never.

    Made by ``Yeondong.outbox``. A relay (``yeondong run``, ``yeondong relay``) sends them afterwards, in order per key.
    """

    def __init__(self, app: Yeondong, marking: Marking, policy: Policy, on_failure_in: Mapping[str, OnFailure]) -> None:
        self._app = app
        self.marking: Marking = marking
        self.policy = policy
        self.on_failure_in = on_failure_in

    def add(self, tx: Any, *messages: AnyEvent | AnyCommand) -> None:
        """Store messages in the caller's transaction.

        ``tx`` is a connection or cursor of sqlite3 or psycopg, a SQLAlchemy connection or session over these, or a
        handler's ``Transaction``.
        Write what the key names before you add: then messages of one key keep the order of the changes.

        Raises ``TransactionError`` (autocommit outside a transaction, another database, closed), ``MessageRefused``
        (too large, key of the wrong type, naive datetime) and ``UnknownChannel``; the transaction is as it was then.
        """
        self._app.store.add(tx, self._app.messages(messages))

    async def add_async(self, tx: Any, *messages: AnyEvent | AnyCommand) -> None:
        """As ``add``, in a transaction of an asynchronous driver.

        ``tx`` is a psycopg ``AsyncConnection`` or ``AsyncCursor``.
        """
        await self._app.store.add_async(tx, self._app.messages(messages))


class Yeondong:
    """One application: its flows, where they keep things, and what it sends.

    ``store`` and ``broker`` are the defaults in code; the environment and ``yeondong.toml`` come first. Without any of
    them everything is kept in one SQLite file, ``NAME.db`` in the current folder. Nothing is opened before it is used.

    >>> app = Yeondong("shop")
    >>> app.name
    'shop'
    """

    def __init__(
        self,
        name: str,
        store: str | None = None,
        broker: str | None = None,
        *,
        clock: Clock | None = None,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        if not name or not name.isprintable() or "/" in name or name != name.strip():
            raise DeclarationError(f"{name!r} is no name for an app: use letters, digits, - and _")
        self.name = name
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._in_code = {"store": store, "broker": broker}
        self._new_id = new_id
        self.subscriptions: dict[str, Subscription] = {}
        self.relay: Outbox | None = None
        self._known: dict[str, set[str]] = {}
        self._sent: dict[tuple[str, str], bool] = {}
        self._settings: Settings | None = None
        self._opened_by: dict[int, _Opened] = {}

    # --- declaring ----------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        event: type[E],
        *,
        group: str,
        since: Since = "start",
        unknown: UnknownTypes = "park",
        **policy: Unpack[Policy],
    ) -> Callable[[Callable[Concatenate[E, P], Result]], Callable[Concatenate[E, P], Result]]:
        """Receive an event in a group of its own progress. The decorated function stays an ordinary function.

        ``since`` says where a new group starts: with everything that the broker still has (the default), or ``now``.
        Types of the channel that this app does not know are parked, or passed over with ``unknown="pass_over"``.
        """

        def decorate(function: Callable[Concatenate[E, P], Result]) -> Callable[Concatenate[E, P], Result]:
            self._add(event, Kind.EVENT, group, function, since, unknown, policy)
            return function

        return decorate

    def handle(
        self, command: type[C], *, unknown: UnknownTypes = "park", **policy: Unpack[Policy]
    ) -> Callable[[Callable[Concatenate[C, P], Result]], Callable[Concatenate[C, P], Result]]:
        """Be the one receiver of a command. A second one, in any app, is an error at start."""

        def decorate(function: Callable[Concatenate[C, P], Result]) -> Callable[Concatenate[C, P], Result]:
            self._add(command, Kind.COMMAND, self.name, function, "start", unknown, policy)
            return function

        return decorate

    def sends(self, *messages: type[AnyEvent | AnyCommand], external: bool = False) -> None:
        """Declare what this app sends and does not receive itself.

        A command that nobody receives is an error at start, unless its receiver is ``external``: no yeondong app.
        """
        for message in messages:
            spec = spec_of(message)
            self._known.setdefault(spec.channel, set()).add(spec.type)
            if spec.kind is Kind.COMMAND:
                self._sent[spec.channel, spec.type] = external

    def outbox(
        self,
        *,
        marking: Marking = "status",
        on_failure_in: Mapping[str, OnFailure] | None = None,
        **policy: Unpack[Policy],
    ) -> Outbox:
        """Declare the app's outbox. ``marking``: sent rows are known by their status, or by the last id sent.

        ``on_failure`` says what happens to a message that can't be sent, ``on_failure_in`` says it for single channels:
        ``{"points": "stop"}`` stops the whole relay, which keeps the order of everything.
        """
        if self.relay is not None:
            raise DeclarationError(f"app {self.name!r} has an outbox already; a second flow named 'outbox' cannot be")
        checked_choice(marking, Marking, "marking", "outbox")
        if "unavailable" in policy:
            raise DeclarationError(
                "outbox: unavailable is an option of handlers; a relay knows when its broker is away"
            )
        for channel, on_failure in (on_failure_in or {}).items():
            checked_choice(on_failure, OnFailure, f"on_failure_in[{channel!r}]", "outbox")
        self.relay = Outbox(self, marking, checked_policy(policy, "outbox"), dict(on_failure_in or {}))
        return self.relay

    def _add(
        self,
        payload: type[Any],
        kind: Kind,
        group: str,
        function: Callable[..., Any],
        since: Since,
        unknown: UnknownTypes,
        policy: Policy,
    ) -> None:
        spec = spec_of(payload, kind)
        where = f"{spec.channel}/{group}"
        if not group or not group.isprintable() or "/" in group:
            raise DeclarationError(f"{group!r} is no name for a group: use letters, digits, - and _")
        checked_choice(since, Since, "since", where)
        checked_choice(unknown, UnknownTypes, "unknown", where)
        options = checked_policy(policy, where)
        bound = bind(function, payload)
        subscription = self.subscriptions.get(where)
        if subscription is None:
            subscription = Subscription(spec.channel, group, options, since, unknown)
        if spec.type in subscription.handlers:
            raise DeclarationError(
                f"{where} handles {spec.type} already, with {subscription.handlers[spec.type].name}; "
                "two flows of one name cannot be: name another group"
            )
        if (subscription.policy, subscription.since, subscription.unknown) != (options, since, unknown):
            raise DeclarationError(f"{where} is one flow with one policy: give all its handlers the same options")
        subscription.handlers[spec.type] = bound
        subscription.kinds[spec.type] = kind
        self.subscriptions[where] = subscription
        self._known.setdefault(spec.channel, set()).add(spec.type)

    # --- using --------------------------------------------------------------------------------------------------------

    def publish(self, *events: AnyEvent, timeout: timedelta | None = None) -> None:
        """Send events to the broker at once, and return when it has them safely.

        While the broker is away it tries again, for ``timeout`` in all (default: ``publish_timeout_seconds``, 10 s);
        then ``PublishTimedOut``. Inside a transaction use an outbox instead: what is published is not undone by a
        rollback.
        """
        self._send(events, Kind.EVENT, timeout)

    def send(self, *commands: AnyCommand, timeout: timedelta | None = None) -> None:
        """Send commands to the broker at once; as ``publish``."""
        self._send(commands, Kind.COMMAND, timeout)

    def _send(self, payloads: Sequence[Any], kind: Kind, timeout: timedelta | None) -> None:
        messages = self.messages(payloads, kind)
        seconds = timeout.total_seconds() if timeout is not None else self.settings.publish_timeout_seconds
        broker = self.broker
        opened = self._opened()
        with opened.lock:
            if opened.publisher is None:
                opened.publisher = Publisher(partial(_ready_sink, broker, self.channels()), self.clock)
        opened.publisher.send(messages, seconds)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction of the store: committed at the end, undone by an exception."""
        session: Session = self.store.connect()
        try:
            tx = session.begin("app.transaction")
            try:
                yield tx
            except BaseException:
                tx.rollback()
                raise
            tx.commit()
        finally:
            session.close()

    def messages(self, payloads: Sequence[Any], kind: Kind | None = None) -> list[Message]:
        """Make messages of payloads, and refuse what can never be sent."""
        made = [
            to_message(p, origin=f"/{self.name}", new_id=self._new_id, now=self.clock.now, kind=kind) for p in payloads
        ]
        most, why = self._most_bytes()
        for message in made:
            if message.channel not in self._known:
                known = ", ".join(sorted(self._known)) or "none"
                raise UnknownChannel(
                    f"no channel named {message.channel!r} in app {self.name!r}; known channels: {known}; "
                    f"declare it with app.sends({message.type})"
                )
            if message.data is not None and len(message.data) > most:
                raise MessageRefused(
                    f"{message.type} has {message.size()} bytes of data and at most {most} are allowed "
                    f"({why}); store what is large elsewhere and send where it is"
                )
        return made

    def _most_bytes(self) -> tuple[int, str]:
        """Return the largest data of a message, and who says so.

        What the broker can never take must not be committed into an outbox: it would fail there for ever.
        """
        most = self.settings.max_message_bytes
        takes = self.broker.traits.max_bytes
        if takes is not None and takes < most:
            return takes, "the most that the broker takes, whatever max_message_bytes says"
        return most, "max_message_bytes"

    # --- where things are ---------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings, read at their first use."""
        if self._settings is None:
            self._settings = load_settings({k: v for k, v in self._in_code.items() if v is not None})
        return self._settings

    def explain_settings(self) -> Sequence[Setting]:
        """Return each setting with its value, passwords masked, and where it was set."""
        return list_settings({k: v for k, v in self._in_code.items() if v is not None})

    @property
    def store_url(self) -> str:
        """The store's URL."""
        return self.settings.store if self.settings.store is not None else f"sqlite:///{self.name}.db"

    @property
    def store(self) -> Store:
        """The store, opened at its first use; anew in a forked process."""
        opened = self._opened()
        with opened.lock:
            if opened.store is None:
                opened.store = open_store(self.settings, self.store_url)
            return opened.store

    @property
    def broker(self) -> Broker:
        """The broker, opened at its first use; anew in a forked process."""
        opened = self._opened()
        with opened.lock:
            if opened.broker is None:
                opened.broker = open_broker(self.settings, self.store_url)
            return opened.broker

    def _opened(self) -> _Opened:
        """Return what this process has opened.

        By process, lock and all: what was inherited over a fork, a lock that nobody releases any more too, is left
        alone. ``setdefault`` lets one of several threads win.
        """
        pid = os.getpid()
        opened = self._opened_by.get(pid)
        return opened if opened is not None else self._opened_by.setdefault(pid, _Opened())

    # --- receivers ----------------------------------------------------------------------------------------------------

    def channels(self) -> list[str]:
        """Return the channels of all that this app sends or receives."""
        return sorted(self._known)

    def receivers(self) -> list[Receiver]:
        """Return what this app receives."""
        return [
            Receiver(wire_type, subscription.kinds[wire_type], subscription.channel, subscription.group, self.name)
            for subscription in self.subscriptions.values()
            for wire_type in subscription.handlers
        ]

    def passed_over(self, subscription: Subscription) -> frozenset[str]:
        """Return the types of a channel that this app knows and this group does not want."""
        return frozenset(self._known.get(subscription.channel, ())) - subscription.handlers.keys()

    def register(self) -> None:
        """Tell the broker what this app receives, and check that what it sends has a receiver.

        Raises ``ReceiverError`` for a command with a second receiver, or with none.
        """
        since = {(s.channel, s.group): s.since for s in self.subscriptions.values()}
        self.broker.register(self.name, self.receivers(), lambda channel, group: since[channel, group])
        self.check_sent(self.broker.receivers())

    def check_sent(self, receivers: Sequence[Receiver]) -> None:
        """Raise ``ReceiverError`` if a command that this app sends has none of these receivers."""
        received = {(receiver.channel, receiver.type) for receiver in receivers if receiver.kind is Kind.COMMAND}
        for (channel, command), external in self._sent.items():
            if not external and (channel, command) not in received:
                raise ReceiverError(
                    f"command {command} of channel {channel!r} has no receiver: start the app that handles it first, "
                    f"or declare app.sends({command}, external=True)"
                )


def _ready_sink(broker: Broker, channels: Collection[str]) -> Sink:
    """Return a sink of a broker that has its tables: who publishes may be the first of all to use it."""
    broker.prepare(channels)
    return broker.sink()
