"""The page of all defaults says what the code does."""

import importlib
import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from tests.pages import read_page
from yeondong import Backoff, Yeondong
from yeondong.app.declared import Policy
from yeondong.settings import Settings

PAGE = read_page("docs/reference/defaults.md")
FREE = ("self", "event", "command", "messages", "events", "commands", "policy")


def rows(columns: int) -> list[list[str]]:
    return [[cell.strip("`") for cell in row] for row in PAGE.rows() if len(row) == columns and row[0].startswith("`")]


def value(text: str) -> Any:
    return None if text == "none" else tomllib.loads(f"value = {text}")["value"]


def is_path(name: str) -> bool:
    return "." in name


def test_each_setting_stands_on_the_page_once_with_its_default() -> None:
    listed = [(name, value(default)) for name, default, _ in rows(3) if not is_path(name)]
    fields = {name: list(each) if isinstance(each, tuple) else each for name, each in asdict(Settings()).items()}

    assert dict(listed) == fields
    assert len(listed) == len(fields)
    assert [type(each) for _, each in listed] == [type(fields[name]) for name, _ in listed]


def test_constants_are_what_the_page_says() -> None:
    listed = {name: value(default) for name, default, _ in rows(3) if is_path(name)}

    assert listed
    assert listed == {name: constant(name) for name in listed}


def constant(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("method", ["subscribe", "handle", "outbox", "sends", "publish", "send"])
def test_each_option_stands_on_the_page_with_its_default(method: str) -> None:
    listed = {option: default for option, of, default, _ in rows(4) if f"`{method}`" in f"`{of}`"}

    declared = options(getattr(Yeondong, method))

    assert listed.keys() == declared.keys()
    assert {name: value(listed[name]) for name, default in declared.items() if default is not None} == {
        name: default for name, default in declared.items() if default is not None
    }


def options(method: Callable[..., Any]) -> Mapping[str, Any]:
    """Return a method's options with their defaults, None where there is none or a setting says it."""
    parameters = inspect.signature(method).parameters
    named = {name: p.default for name, p in parameters.items() if name not in FREE}
    named = {name: None if default is inspect.Parameter.empty else default for name, default in named.items()}
    return {**(dict.fromkeys(Policy.__annotations__) if "policy" in parameters else {}), **named}


def test_a_backoff_without_arguments_is_the_setting_s() -> None:
    settings = Settings()

    assert Backoff() == Backoff(
        timedelta(seconds=settings.backoff_first_seconds), timedelta(seconds=settings.backoff_most_seconds)
    )
    assert "`first` 1 s and `most` 5 min" in PAGE.text
    assert Backoff() == Backoff(timedelta(seconds=1), timedelta(minutes=5))
