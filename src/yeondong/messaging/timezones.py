"""Finds datetimes without a time zone: in JSON nobody could tell any more which moment they mean.

Types are looked at once for a class, so that messages without datetimes pay nothing; values only where a type allows
one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Final, Literal, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from yeondong.messaging.annotations import union_members

_WITHOUT: Final = (
    str, bytes, bytearray, memoryview, int, float, Decimal, UUID, Enum, dt.timedelta, dt.time, type(None),
    msgspec.UnsetType,
)  # fmt: skip


def timed_fields(cls: type) -> tuple[str, ...]:
    """Name the fields of a payload class that may hold a datetime, directly or deep inside."""
    try:
        annotations = _annotations(cls)
    except NameError:
        return field_names(cls)
    return tuple(name for name in field_names(cls) if _may_hold(annotations.get(name, Any), {cls}))


def naive_datetime(value: Any, fields: Collection[str]) -> tuple[str, dt.datetime] | None:
    """Return the path and the value of the first naive datetime in these fields."""
    for name in fields:
        found = _find(getattr(value, name))
        if found is not None:
            return name + found[0], found[1]
    return None


def field_names(cls: type) -> tuple[str, ...]:
    """Name the fields of a struct, dataclass or pydantic model; none for any other class."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    return tuple(_model_fields(cls) or ())


def _model_fields(cls: Any) -> Mapping[str, Any] | None:
    """Return a pydantic model's fields; None for any other class. pydantic is never imported for it."""
    if "pydantic" in sys.modules and issubclass(cls, sys.modules["pydantic"].BaseModel):
        fields: Mapping[str, Any] = cls.model_fields
        return fields
    return None


def _annotations(cls: type) -> Mapping[str, Any]:
    fields = _model_fields(cls)
    if fields is not None:
        return {name: field.annotation for name, field in fields.items()}
    return get_type_hints(cls)


def _may_hold(annotation: Any, seen: set[type]) -> bool:
    return any(_member_may_hold(member, seen) for member in union_members(annotation))


def _member_may_hold(member: Any, seen: set[type]) -> bool:
    origin, arguments = get_origin(member), get_args(member)
    if origin in (Literal, ClassVar):
        return False
    if any(_may_hold(argument, seen) for argument in arguments if argument is not ...):
        return True
    cls = origin or member
    if not isinstance(cls, type):
        return True
    if issubclass(cls, _WITHOUT) or cls in seen:
        return False
    if cls.__module__ in ("builtins", "collections", "collections.abc", "typing"):
        # A container that does not say what is in it may hold anything; one that does was answered above.
        return not arguments
    seen.add(cls)
    return _fields_may_hold(cls, seen)


def _fields_may_hold(cls: type, seen: set[type]) -> bool:
    try:
        annotations = _annotations(cls)
    except NameError:
        return True
    # A class without fields is opaque: a datetime, a subclass of one, or something that its own encoding takes apart.
    return not annotations or any(_may_hold(annotation, seen) for annotation in annotations.values())


def _find(value: Any) -> tuple[str, dt.datetime] | None:
    if isinstance(value, dt.datetime):
        return ("", value) if value.utcoffset() is None else None
    for part, step in _parts(value):
        found = _find(part)
        if found is not None:
            return step + found[0], found[1]
    return None


def _parts(value: Any) -> Iterator[tuple[Any, str]]:
    """Give what is inside a value, each with the step that leads there."""
    if isinstance(value, _WITHOUT):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key, f"[{key!r}]"
            yield item, f"[{key!r}]"
    elif isinstance(value, Collection):
        for index, item in enumerate(value):
            yield item, f"[{index}]"
    else:
        for name in field_names(type(value)):
            yield getattr(value, name), f".{name}"
