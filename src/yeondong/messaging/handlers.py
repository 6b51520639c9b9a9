"""Handlers: what a function asks for by its annotations, found out once, before the first message."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Final, TypeAlias

from yeondong.core.codec import UNDECODABLE
from yeondong.core.delivery import Delivery, Outcome
from yeondong.core.message import Message
from yeondong.core.store import Transaction
from yeondong.errors import DeclarationError
from yeondong.messaging.annotations import resolved, union_members
from yeondong.messaging.messages import spec_of

Errors: TypeAlias = tuple[type[Exception], ...]
Invoke: TypeAlias = Callable[[Any, Delivery, Transaction | None], Outcome | None]


@dataclass(frozen=True, slots=True)
class Bound:
    """A handler, ready for the messages of one type.

    ``invoke`` takes the decoded payload, its delivery, and the transaction if ``transactional``. Where the function
    takes only the payload it is ``direct`` too, for callers who count each call. ``decode`` raises one of
    ``undecodable`` for content that does not fit; ``core.codec.undecodable`` makes the sentence.
    """

    name: str
    type: str
    decode: Callable[[bytes], Any]
    transactional: bool
    invoke: Invoke
    direct: Callable[[Any], Outcome | None] | None = None
    undecodable: Errors = UNDECODABLE


def bind(function: Callable[..., Any], payload_class: type) -> Bound:
    """Match a function with the payload class that it is given.

    The first parameter is the payload; further ones are given by annotation: ``Transaction``, ``Message``,
    ``Delivery``. Raises ``DeclarationError`` for every function that could not be called, so that no message finds out.
    """
    _require_plain_function(function)
    name = _name(function)
    spec = spec_of(payload_class)
    first, *others = _parameters(function, name, payload_class)
    _require_takes(first, payload_class, name)
    asked = [parameter for parameter in others if _is_given(parameter, name)]
    annotations = {parameter.annotation for parameter in asked}
    return Bound(
        name=name,
        type=spec.type,
        decode=spec.decode,
        transactional=Transaction in annotations,
        invoke=_invoke(function, others, asked),
        direct=None if asked else function,
    )


_GIVEN: Final[Mapping[Any, Callable[[Delivery, Transaction | None], Any]]] = {
    Transaction: lambda _delivery, tx: tx,
    Message: lambda delivery, _tx: delivery.message,
    Delivery: lambda delivery, _tx: delivery,
}


def _name(function: Any) -> str:
    inner = _innermost(function)
    return f"{inner.__module__}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"


def _innermost(function: Any) -> Any:
    """Return the function as it was written: without partials and decorators, of an object its ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not isinstance(function, type) and callable(function):
        function = type(function).__call__
    return inspect.unwrap(function)


def _require_plain_function(function: Any) -> None:
    if not callable(function) or isinstance(function, type):
        raise DeclarationError(f"{function!r} cannot be a handler; a handler is a function")
    for wrong, what in (
        (inspect.iscoroutinefunction, "a coroutine function"),
        (inspect.isasyncgenfunction, "an asynchronous generator"),
        (inspect.isgeneratorfunction, "a generator: calling it would run nothing"),
    ):
        if wrong(function) or wrong(_innermost(function)):
            raise DeclarationError(f"handler {_name(function)} is {what}; handlers are plain functions so far")


def _parameters(function: Callable[..., Any], name: str, payload_class: type) -> list[Parameter]:
    """Return the parameters with their annotations resolved, the payload's first."""
    inner = _innermost(function)
    parameters = [
        parameter.replace(annotation=_resolved(parameter, inner, name, payload_class))
        for parameter in inspect.signature(function).parameters.values()
    ]
    if not parameters or parameters[0].kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD):
        raise DeclarationError(
            f"handler {name} takes no payload; give it a first parameter: def {inner.__name__}(payload: "
            f"{payload_class.__name__})"
        )
    return parameters


def _resolved(parameter: Parameter, inner: Any, name: str, payload_class: type) -> Any:
    if parameter.annotation is Parameter.empty:
        return Parameter.empty
    try:
        return resolved(parameter.annotation, inner.__module__, {})
    except NameError:
        pass
    try:
        # A payload class inside a function, as tests have it, is no name of the module.
        return resolved(parameter.annotation, inner.__module__, {payload_class.__name__: payload_class})
    except NameError as error:
        raise DeclarationError(
            f"handler {name}: the annotation {parameter.annotation!r} of {parameter.name!r} cannot be resolved: "
            f"{error}; import the name in the handler's module, outside of `if TYPE_CHECKING:`"
        ) from error


def _require_takes(parameter: Parameter, payload_class: type, name: str) -> None:
    if parameter.annotation is Parameter.empty:
        raise DeclarationError(
            f"handler {name} does not say what it takes; annotate its first parameter: "
            f"{parameter.name}: {payload_class.__name__}"
        )
    if not any(_takes(member, payload_class) for member in union_members(parameter.annotation)):
        annotation = parameter.annotation
        taken = annotation.__qualname__ if isinstance(annotation, type) else annotation
        raise DeclarationError(
            f"handler {name} takes {taken} and is given {payload_class.__qualname__}; change the annotation of "
            f"{parameter.name!r}, or the type that it is declared for"
        )


def _takes(annotation: Any, payload_class: type) -> bool:
    if annotation is Any:
        return True
    try:
        return issubclass(payload_class, typing.get_origin(annotation) or annotation)
    except TypeError:
        # A protocol tells only the type checker what fits it; anything else that is no class fits nothing.
        return getattr(annotation, "_is_protocol", False)


def _is_given(parameter: Parameter, name: str) -> bool:
    if any(parameter.annotation is annotation for annotation in _GIVEN):
        return True
    if parameter.default is not Parameter.empty or parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
        return False
    raise DeclarationError(
        f"handler {name}: nothing gives its parameter {parameter.name!r}; annotate it with Transaction, Message or "
        "Delivery, or give it a default"
    )


def _invoke(function: Callable[..., Any], others: list[Parameter], asked: list[Parameter]) -> Invoke:
    """Return the cheapest call that gives the function what it asks for."""
    if not asked:
        return lambda payload, _delivery, _tx: function(payload)
    gives = [_GIVEN[parameter.annotation] for parameter in asked]
    if asked != others[: len(asked)] or any(parameter.kind is Parameter.KEYWORD_ONLY for parameter in asked):
        named = list(zip([parameter.name for parameter in asked], gives, strict=True))
        return lambda payload, delivery, tx: function(payload, **{name: give(delivery, tx) for name, give in named})
    if [parameter.annotation for parameter in asked] == [Transaction]:
        return lambda payload, _delivery, tx: function(payload, tx)
    return lambda payload, delivery, tx: function(payload, *[give(delivery, tx) for give in gives])
