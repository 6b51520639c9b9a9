"""Payloads to JSON and back: msgspec structs, dataclasses and pydantic models."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from yeondong.errors import DeclarationError, Undecodable

CONTENT_TYPE: Final = "application/json"

UNDECODABLE: Final[tuple[type[Exception], ...]] = (Exception,)
"""What a decoder raises for content: anything, since a check in the payload class itself may (an ``assert``).

Caught around a batch's calls, so that decoding stays one bound C call.
"""

UNENCODABLE: Final[tuple[type[Exception], ...]] = (ValueError, TypeError, ArithmeticError, RecursionError)
"""What an encoder raises for a value that has no JSON."""


class Codec:
    """JSON for payload classes. What it returns is made once for a class and used for all of its messages.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Moved:
    ...     steps: int
    >>> decode = Codec().decoder(Moved)
    >>> decode(Codec().encoder(Moved)(Moved(steps=3)))
    Moved(steps=3)
    """

    def encoder(self, cls: type) -> Callable[[Any], bytes]:
        """Return what encodes instances of this class; it raises one of ``UNENCODABLE`` for a value without JSON."""
        _require_payload_class(cls)
        return _pydantic_encoder(cls) if _is_pydantic(cls) else _ENCODER.encode

    def decoder(self, cls: type) -> Callable[[bytes], Any]:
        """Return what decodes into this class; it raises one of ``UNDECODABLE`` for content that does not fit.

        ``undecodable`` turns that error into a sentence. Raises ``DeclarationError`` for a class that nothing can fit.
        """
        _require_payload_class(cls)
        try:
            return _pydantic_decoder(cls) if _is_pydantic(cls) else msgspec.json.Decoder(cls).decode
        except (TypeError, NameError) as error:
            reason = str(error).splitlines()[0]
            raise DeclarationError(
                f"{cls.__qualname__} cannot be decoded: {reason}; change the annotation, or define what it names before"
            ) from error


def undecodable(name: str, data: bytes | None, error: BaseException) -> Undecodable:
    """Say why data did not decode as the type of this name, given what the decoder raised."""
    if data is None:
        return Undecodable(name, "the message has no data (it is a tombstone)")
    if isinstance(error, RecursionError):
        return Undecodable(name, "it is nested too deeply")
    return Undecodable(name, _sentence(error))


# An encoder keeps nothing between calls, so that all classes and threads can share one.
_ENCODER: Final = msgspec.json.Encoder()


def _sentence(error: BaseException) -> str:
    if "pydantic" in sys.modules and isinstance(error, sys.modules["pydantic"].ValidationError):
        # pydantic's own text repeats the input, which has no place in logs, and goes over several lines.
        found: Any = error
        flaws = found.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{flaw['msg']} - at `{'.'.join(['$', *map(str, flaw['loc'])])}`" for flaw in flaws)
    return str(error) or type(error).__name__


def _require_payload_class(cls: type) -> None:
    if issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls) or _is_pydantic(cls):
        return
    raise DeclarationError(
        f"{cls.__qualname__} is no msgspec struct, no dataclass and no pydantic model; "
        "make it one, or derive it from yeondong.Event or yeondong.Command"
    )


def _is_pydantic(cls: type) -> bool:
    """Tell pydantic's models and dataclasses. Where there is one, pydantic is imported already; we never import it."""
    return "pydantic" in sys.modules and hasattr(cls, "__pydantic_validator__")


def _pydantic_encoder(cls: type) -> Callable[[Any], bytes]:
    dump: Callable[..., bytes] = sys.modules["pydantic"].TypeAdapter(cls).dump_json
    # By alias, since that is what the model reads; without computed fields, which it may refuse to read.
    return lambda payload: dump(payload, by_alias=True, round_trip=True)


def _pydantic_decoder(cls: Any) -> Callable[[bytes], Any]:
    if hasattr(cls, "model_rebuild"):
        cls.model_rebuild()  # names that are still unknown are found now, not at the first message
    validate: Callable[[bytes], Any] = sys.modules["pydantic"].TypeAdapter(cls).validate_json
    return validate
