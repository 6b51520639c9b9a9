"""Typed payloads: how an application declares its events and commands, and how one becomes a message."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeGuard, dataclass_transform
from uuid import UUID

import msgspec

from yeondong.core.codec import UNENCODABLE, Codec
from yeondong.core.message import NO_HEADERS, Kind, Message
from yeondong.errors import DeclarationError, MessageRefused
from yeondong.messaging.annotations import resolved, union_members
from yeondong.messaging.timezones import naive_datetime, timed_fields

_DECLARATION: Final = "__yeondong_declaration__"
_SPEC: Final = "__yeondong_spec__"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the class keywords say."""

    type: str
    channel: str
    key_field: str | None


@dataclass(frozen=True, slots=True)
class PayloadSpec:
    """All that is known about a payload class. ``timed_fields`` may hold a datetime, directly or deep inside."""

    type: str
    kind: Kind
    channel: str
    key_field: str | None
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    timed_fields: tuple[str, ...]


class Payload(msgspec.StructMeta):
    """The metaclass of ``Event`` and ``Command``: a struct's, which takes our class keywords too.

    The declaration is kept beside the fields, so that a payload may have fields named ``channel``, ``key`` or ``type``.
    """

    def __new__(
        mcs,
        name: str,
        bases: tuple[Any, ...],
        space: dict[str, Any],
        *,
        channel: str | None = None,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - the class keyword that users write
        **options: Any,
    ) -> Any:
        if not options.setdefault("frozen", True):
            raise DeclarationError(f"payload {name}: a message does not change; leave out frozen=False")
        try:
            made = super().__new__(mcs, name, bases, space, **options)
        except TypeError as error:
            raise DeclarationError(f"payload {name}: {error}") from error
        if not all(base is msgspec.Struct for base in bases):
            _declare(made, channel, key, type)
        return made


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=Payload, frozen=True):
    """A fact. Any number of groups receive it, each with its own progress.

    Class keywords: ``channel``; ``key``, the field whose value keeps the order; ``type``, the name on the wire (the
    class's own name if left out). A subclass takes over ``channel`` and ``key``.

    >>> class OrderPlaced(Event, channel="orders", key="order_id"):
    ...     order_id: int
    >>> spec_of(OrderPlaced).channel
    'orders'
    """


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, metaclass=Payload, frozen=True):
    """A request to the one receiver that handles it. Class keywords as for ``Event``."""


class _Mixin:
    __slots__ = ()

    def __init_subclass__(
        cls,
        *,
        channel: str | None = None,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - the class keyword that users write
        **options: Any,
    ) -> None:
        try:
            super().__init_subclass__(**options)
        except TypeError as error:
            raise DeclarationError(
                f"payload {cls.__qualname__} has no class keyword {', '.join(options)}; known: channel, key, type"
            ) from error
        if cls.__bases__ == (_Mixin,):
            return
        # A dataclass with slots is made a second time, without the keywords: what was declared stays.
        if _DECLARATION not in cls.__dict__:
            _declare(cls, channel, key, type)


class EventMixin(_Mixin):
    """An event that is a dataclass or a pydantic model. It comes first: ``class X(EventMixin, BaseModel, channel=…)``.

    >>> @dataclass(frozen=True)
    ... class OrderPlaced(EventMixin, channel="orders", key="order_id"):
    ...     order_id: int
    >>> spec_of(OrderPlaced).key_field
    'order_id'
    """

    __slots__ = ()


class CommandMixin(_Mixin):
    """A command that is a dataclass or a pydantic model."""

    __slots__ = ()


AnyEvent: TypeAlias = Event | EventMixin
AnyCommand: TypeAlias = Command | CommandMixin


def spec_of(cls: type, kind: Kind | None = None) -> PayloadSpec:
    """Return what is known about a payload class, of the given kind where one is given; made once for a class.

    Raises ``DeclarationError`` for what is no payload class, one of the other kind, and one that no content can fit.
    """
    spec = _known_spec(cls)
    if spec is None:
        spec = _make_spec(cls)
        setattr(cls, _SPEC, spec)
    if kind is not None and spec.kind is not kind:
        raise DeclarationError(f"{cls.__qualname__} is {_NAMED[spec.kind]}, not {_NAMED[kind]}; {_USE[spec.kind]}")
    return spec


def to_message(
    payload: Any, *, origin: str, new_id: Callable[[], str], now: Callable[[], datetime], kind: Kind | None = None
) -> Message:
    """Make the message that carries this payload, of the given kind where one is given.

    Raises ``MessageRefused`` for what can never be sent: no payload, the other kind, a key that is no str, int or UUID,
    a datetime without a time zone, a value without JSON; an id or a key that not every system can store.
    """
    cls = type(payload)
    spec = _known_spec(cls)
    if spec is None or (kind is not None and spec.kind is not kind):
        spec = _spec_to_send(payload, kind)
    try:
        encoded = spec.encode(payload)
        naive = naive_datetime(payload, spec.timed_fields) if spec.timed_fields else None
    except UNENCODABLE as error:
        reason = "it is nested too deeply, or contains itself" if isinstance(error, RecursionError) else error
        raise MessageRefused(f"{spec.type} cannot be encoded as JSON: {reason}") from error
    if naive is not None:
        raise MessageRefused(
            f"{spec.type}.{naive[0]} is {naive[1]!r}, which has no time zone: receivers could not tell when that is; "
            "give it one, e.g. datetime.now(UTC)"
        )
    key: Any = None
    if spec.key_field is not None:
        key = getattr(payload, spec.key_field)
        if type(key) is not str:
            key = _key_text(key, spec)
    id: Any = new_id()
    if not isinstance(id, str) or not _storable(id):
        raise MessageRefused(f"the id {id!r} that new_id gave is {_unstorable(id)}")
    if key is not None and not _storable(key):
        raise MessageRefused(f"{spec.type}.{spec.key_field} is {key!r}, which is no key: it is {_unstorable(key)}")
    return Message(id, spec.type, spec.kind, spec.channel, key, encoded, NO_HEADERS, origin, now())


def _storable(text: str) -> bool:
    # Some systems cut a text at NUL, where two ids would become one; others refuse it.
    return "\0" not in text and (text.isascii() or _is_unicode(text))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unstorable(text: Any) -> str:
    if not isinstance(text, str):
        return f"no str, but a {type(text).__name__}"
    return "a text with NUL" if "\0" in text else "no valid Unicode: it has half a surrogate pair"


_KEY_TYPES: Final = (str, int, UUID)
_NAMED: Final = {Kind.EVENT: "an event", Kind.COMMAND: "a command"}
_USE: Final = {
    Kind.EVENT: "events are published and subscribed to",
    Kind.COMMAND: "commands are sent, and handled by one receiver",
}


def _declare(cls: type, channel: str | None, key: str | None, wire_type: str | None) -> None:
    name = cls.__qualname__
    inherited: Declaration | None = getattr(cls, _DECLARATION, None)
    if inherited is not None:
        channel = inherited.channel if channel is None else channel
        key = inherited.key_field if key is None else key
    if not _is_name(channel):
        wrong = "it has no channel" if channel is None else f"{channel!r} is no channel name"
        raise DeclarationError(
            f'payload {name}: {wrong}; say where its messages go: class {cls.__name__}(…, channel="orders")'
        )
    if wire_type is not None and not _is_name(wire_type):
        raise DeclarationError(f"payload {name}: type={wire_type!r} is no name; leave it out for {cls.__name__!r}")
    if key is not None:
        _require_key_field(cls, key)
    setattr(cls, _DECLARATION, Declaration(wire_type or cls.__name__, channel, key))


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value) and value.isprintable() and value == value.strip()


def _require_key_field(cls: type, key: str) -> None:
    annotations = _field_annotations(cls)
    if key not in annotations:
        fields = ", ".join(annotations) or "none"
        raise DeclarationError(f"payload {cls.__qualname__}: the key {key!r} is no field of it; its fields: {fields}")
    owner, annotation = annotations[key]
    try:
        members = union_members(resolved(annotation, owner.__module__, vars(owner)))
    except NameError:
        return  # declared later in its module; each value is checked when it is sent
    if not any(map(_may_be_key, members)):
        raise DeclarationError(
            f"payload {cls.__qualname__}: the key field {key!r} is declared as {annotation!r}, which cannot be a key; "
            "keys are str, int or UUID"
        )


def _field_annotations(cls: type) -> dict[str, tuple[type, Any]]:
    """Give, by field, the class that declares it and the annotation as it is written there."""
    return {
        name: (owner, annotation)
        for owner in reversed(cls.__mro__)
        for name, annotation in inspect.get_annotations(owner).items()
        if not name.startswith("__")
    }


def _may_be_key(annotation: Any) -> bool:
    if annotation in (Any, object):
        return True
    return isinstance(annotation, type) and issubclass(annotation, _KEY_TYPES) and not issubclass(annotation, bool)


def _known_spec(cls: Any) -> PayloadSpec | None:
    return vars(cls).get(_SPEC) if isinstance(cls, type) else None


def _make_spec(cls: Any) -> PayloadSpec:
    declaration: Declaration | None = getattr(cls, _DECLARATION, None) if isinstance(cls, type) else None
    if declaration is None:
        raise DeclarationError(f"{cls!r} is no payload class; derive it from yeondong.Event or yeondong.Command")
    codec = Codec()
    return PayloadSpec(
        type=declaration.type,
        kind=Kind.EVENT if issubclass(cls, Event | EventMixin) else Kind.COMMAND,
        channel=declaration.channel,
        key_field=declaration.key_field,
        encode=codec.encoder(cls),
        decode=codec.decoder(cls),
        timed_fields=timed_fields(cls),
    )


def _spec_to_send(payload: Any, kind: Kind | None) -> PayloadSpec:
    if isinstance(payload, type):
        raise MessageRefused(f"{payload.__qualname__} is a class; pass an instance of it: {payload.__qualname__}(…)")
    try:
        return spec_of(type(payload), kind)
    except DeclarationError as error:
        raise MessageRefused(f"{payload!r} cannot be sent: {error}") from error


def _key_text(value: object, spec: PayloadSpec) -> str:
    # Enums and other subclasses count by the value that they stand for, whatever their own text is.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    if isinstance(value, UUID):
        return str(value)
    raise MessageRefused(
        f"{spec.type}.{spec.key_field} is {value!r}, a {type(value).__name__}: a key is a str, an int or a UUID"
    )
