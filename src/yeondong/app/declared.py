"""What decorators have filled in: values, checked where they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

from yeondong.core.backoff import Backoff
from yeondong.core.broker import Since
from yeondong.core.message import Kind
from yeondong.engine.plan import OnFailure
from yeondong.errors import DeclarationError
from yeondong.messaging.handlers import Bound

Marking: TypeAlias = Literal["status", "position"]
UnknownTypes: TypeAlias = Literal["park", "pass_over"]


class Policy(TypedDict, total=False):
    """The options of every flow, whatever its method. What is left out is a default: see the reference."""

    attempts: int
    backoff: Backoff
    on_failure: OnFailure
    lanes: int
    unavailable: tuple[type[Exception], ...]


@dataclass(slots=True)
class Subscription:
    """One group of one channel, with a handler for each type that it wants."""

    channel: str
    group: str
    policy: Policy
    since: Since
    unknown: UnknownTypes
    handlers: dict[str, Bound] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.channel}/{self.group}"


def checked_policy(policy: Mapping[str, Any], where: str) -> Policy:
    """Return the policy, or raise ``DeclarationError`` for an option that can't be."""
    known = Policy.__annotations__
    for name in policy:
        if name not in known:
            raise DeclarationError(f"{where}: no option {name!r}; known options: {', '.join(known)}")
    for name in ("attempts", "lanes"):
        value = policy.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DeclarationError(f"{where}: {name}={value!r}; give a whole number from 1")
    if policy.get("on_failure", "park") not in get_args(OnFailure):
        options = ", ".join(get_args(OnFailure))
        raise DeclarationError(f"{where}: on_failure={policy['on_failure']!r}; known: {options}")
    if not isinstance(policy.get("backoff", Backoff()), Backoff):
        raise DeclarationError(f"{where}: backoff={policy['backoff']!r}; give a Backoff(first=…, most=…)")
    unavailable = policy.get("unavailable", ())
    if not isinstance(unavailable, tuple) or not all(
        isinstance(e, type) and issubclass(e, Exception) for e in unavailable
    ):
        raise DeclarationError(f"{where}: unavailable={unavailable!r}; give a tuple of exception classes")
    return cast("Policy", dict(policy))


def checked_choice(value: str, choices: TypeAlias, name: str, where: str) -> None:
    """Raise ``DeclarationError`` for a value that is none of a Literal's."""
    if value not in get_args(choices):
        raise DeclarationError(f"{where}: {name}={value!r}; known: {', '.join(get_args(choices))}")
