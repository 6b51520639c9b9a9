"""Payloads as people read and change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from yeondong.app import Yeondong
from yeondong.core.codec import undecodable


def pretty(data: bytes | None) -> str:
    """Write data indented where it is JSON, as text where it is text."""
    if data is None:
        return "(none: a tombstone)"
    try:
        return msgspec.json.format(data.decode(), indent=2)
    except (ValueError, RecursionError):
        return data.decode(errors="backslashreplace")


def compact(data: bytes) -> bytes:
    """Take the indentation out of JSON; other data stays as it is."""
    try:
        return msgspec.json.format(data, indent=-1)
    except (ValueError, RecursionError):
        return data


def with_fields(data: bytes | None, changes: Sequence[str]) -> bytes:
    """Set fields of a JSON object: ``amount=3``, ``address.city=Seoul``. A value that is no JSON is a string.

    >>> with_fields(b'{"a": 1, "b": {"c": 2}}', ["b.c=x", "d=[true]"])
    b'{"a":1,"b":{"c":"x"},"d":[true]}'
    """
    try:
        payload: Any = msgspec.json.decode(data or b"{}")
    except ValueError as error:
        raise click.UsageError(f"--set needs data that is JSON, and this is not ({error}); use --data") from error
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise click.UsageError(f"--set {change!r} is no field=value")
        _set(payload, path, _parsed(text))
    return msgspec.json.encode(payload)


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except ValueError:
        return text


def _set(payload: Any, path: str, value: Any) -> None:
    *way, last = path.split(".")
    place = payload
    for name in way:
        place = place.get(name) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise click.UsageError(f"--set {path}: there is no object {'.'.join(way) or 'at the top'} in the data")
    place[last] = value


def decoding_flaw(app: Yeondong, flow: str, type: str, data: bytes) -> tuple[bool, str | None]:  # noqa: A002
    """Say whether the app knows the type, and if it does, why the data does not decode as it."""
    own = app.subscriptions.get(flow)
    subscriptions = [own] if own is not None else list(app.subscriptions.values())
    for subscription in subscriptions:
        bound = subscription.handlers.get(type)
        if bound is None:
            continue
        try:
            bound.decode(data)
        except bound.undecodable as error:
            return True, str(undecodable(type, data, error))
        return True, None
    return False, None
