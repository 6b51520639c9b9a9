"""Which handler takes a message, and what its answer means."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, Protocol

from msgspec import Struct

from yeondong.core.codec import undecodable
from yeondong.core.delivery import DONE, Delivery, Done, Outcome, Park, Retry
from yeondong.core.store import Transaction

ERROR_LENGTH = 8_000
RETRY_AT_MOST = timedelta(days=3_650)


class Bound(Protocol):
    """A handler with its payload's type."""

    @property
    def name(self) -> str: ...
    @property
    def transactional(self) -> bool: ...
    @property
    def decode(self) -> Callable[[bytes], Any]: ...
    @property
    def direct(self) -> Callable[[Any], Outcome | None] | None: ...
    @property
    def invoke(self) -> Callable[[Any, Delivery, Transaction | None], Outcome | None]: ...


class Dispatch(Struct, frozen=True):
    """Which handler takes a message.

    ``passed_over`` are types that the app knows and this group does not want; ``unknown`` says what happens to types
    that it does not know at all. A message of a foreign program may name no type: it is taken for the one that the
    group handles, if that is one. ``unavailable`` are exceptions that mean an outage of what the handler calls.
    """

    handlers: Mapping[str, Bound]
    passed_over: Collection[str] = frozenset()
    park_unknown: bool = True
    unavailable: tuple[type[BaseException], ...] = ()

    def resolve(self, delivery: Delivery) -> tuple[Bound, Any] | Park | None:
        """Find the handler and decode for it: Park if that can't be done, None if nobody wants it."""
        message = delivery.message
        if delivery.flaw is not None:
            return Park(delivery.flaw)
        bound = self.handlers.get(message.type)
        if bound is None and not message.type and len(self.handlers) == 1:
            (bound,) = self.handlers.values()  # of a foreign program: it can be nothing else
        if bound is None:
            if message.type in self.passed_over or not self.park_unknown:
                return None
            known = ", ".join(sorted(self.handlers))
            if not message.type:
                return Park(f"it names no type (a foreign program sent it), and this group handles several: {known}")
            return Park(f"no handler for type {message.type!r}; this worker handles: {known}")
        try:
            return bound, bound.decode(message.data)  # type: ignore[arg-type]  # None raises too: a tombstone
        except Exception as error:  # noqa: BLE001 -- whatever a decoder raises is a flaw of this message
            return Park(writable(str(undecodable(message.type, message.data, error))))


def checked(returned: object, bound: Bound) -> tuple[Outcome, str | None]:
    """Take what a handler returned as an outcome; anything else is a fault of the handler, counted as an attempt."""
    match returned:
        case None | Done():
            return DONE, None
        case Retry(after=None):
            return Retry(), None
        case Retry(after=timedelta() as after) if after <= RETRY_AT_MOST:
            return Retry(max(after, timedelta())), None
        case Park(reason=str() as reason):
            return Park(writable(reason)), None
        case _:
            pass
    wanted = f"None, Done(), Retry(after a timedelta of at most {RETRY_AT_MOST.days} days) or Park(a text)"
    return Retry(), writable(f"handler {bound.name} returned {describe(returned)}; return {wanted}")


def describe(value: object) -> str:
    """Show a value, even if its own text raises."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 -- a user's object may fail to describe itself
        return f"a {type(value).__name__}"


def writable(text: str) -> str:
    """Escape what no database stores: lone surrogates, as undecodable file names have them, and NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def describe_error(error: BaseException) -> str:
    """One line on an exception, even if its own text raises."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- a user's exception may fail to describe itself
        text = "(its text could not be made)"
    return writable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def describe_failure(error: BaseException) -> str:
    """Write the error and the end of its traceback, bounded."""
    try:
        frames = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 -- as above
        frames = ""
    return f"{describe_error(error)}\n{writable(frames)[-ERROR_LENGTH:]}".rstrip()[:ERROR_LENGTH]
