"""What annotations mean, once names, aliases and unions are taken apart."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NewType, TypeVar, Union, get_args, get_origin, get_type_hints


def resolved(annotation: Any, module: str, names: Mapping[str, Any]) -> Any:
    """Evaluate an annotation as it is written in a module, where ``names`` are known too. Raises ``NameError``."""
    holder = type("Holder", (), {"__annotations__": {"it": annotation}})
    known = getattr(sys.modules.get(module), "__dict__", {})
    return get_type_hints(holder, known, dict(names))["it"]


def union_members(annotation: Any) -> Iterator[Any]:
    """Give the types that a value may have; what can be anything is ``Any``."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from union_members(member)
    elif origin is Annotated:
        yield from union_members(get_args(annotation)[0])
    elif isinstance(annotation, NewType):
        yield from union_members(annotation.__supertype__)
    elif isinstance(annotation, TypeVar):
        for bound in annotation.__constraints__ or (annotation.__bound__ or Any,):
            yield from union_members(bound)
    elif hasattr(annotation, "__value__"):  # `type X = …`, from Python 3.12 on
        yield from union_members(annotation.__value__)
    else:
        yield annotation
