"""Finding the app that a command is about."""

from __future__ import annotations

import importlib
import shlex
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from yeondong.app import Yeondong
from yeondong.core.store import Session
from yeondong.errors import AppNotFound, SchemaMissing, YeondongError

ATTRIBUTE = "app"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An app, and how it was spelled: hints repeat it as it was typed."""

    app: Yeondong
    spelled: str

    def command(self, name: str, *words: str) -> str:
        """Write a command about this app, ready to be pasted."""
        return " ".join(("yeondong", name, self.spelled, *map(shlex.quote, words)))


def choose(spelled: str) -> Chosen:
    """Import the app named ``module:attribute`` or ``module``. Raises ``AppNotFound``."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name, colon, path = spelled.partition(":")
    is_name = all(part.isidentifier() for part in name.split("."))
    if not is_name or (colon and not path) or (name.endswith(".py") and Path(name).exists()):
        raise AppNotFound(f"{spelled!r} names no app; write module:attribute, as in {_meant(name)}:{path or ATTRIBUTE}")
    module = _import(name, folder)
    return Chosen(_attribute(module, path or ATTRIBUTE), spelled)


def open_session(chosen: Chosen) -> Session:
    """Return a session for looking and deciding, which must not make a new store where there is none.

    An empty store made in the wrong folder would call everything well.
    """
    address = chosen.app.store.address
    if not is_there(address):
        raise SchemaMissing(
            f"there is no store at {address} yet: nothing of {chosen.app.name!r} has run here; start it "
            f"({chosen.command('run')}), or go to its folder"
        )
    return chosen.app.store.connect()


def is_there(address: str) -> bool:
    """Whether the file of a store or broker is there; an address that is no path is taken to be."""
    path = Path(address)
    return not path.is_absolute() or path.exists()


def _meant(name: str) -> str:
    """Guess the module that a file name stands for."""
    return name.removesuffix(".py").strip("./").replace("/", ".").replace("-", "_") or "shop"


def _import(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AppNotFound(
                f"no module named {error.name!r}; looked in {folder} and where packages are installed: "
                "go to the folder that holds it, or install it"
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> AppNotFound:
    cause = str(error) if isinstance(error, YeondongError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return AppNotFound(f"{name} does not import: {cause}{_where(error)}")


def _where(error: BaseException) -> str:
    """Name the user's own line: the innermost one that is neither ours nor Python's import machinery."""
    if isinstance(error, SyntaxError):
        return ""  # its text has the place
    ours = str(Path(__file__).parent.parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen ")) and "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _attribute(module: ModuleType, path: str) -> Yeondong:
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise AppNotFound(f"{module.__name__} has no {path!r}; {_apps_in(module)}")
        found = getattr(found, name)
    if not isinstance(found, Yeondong):
        raise AppNotFound(
            f"{module.__name__}:{path} is no Yeondong app but a {type(found).__name__}; {_apps_in(module)}"
        )
    return found


def _apps_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Yeondong))
    if not names:
        return f"it has no Yeondong app at all: is {module.__file__} the module you mean?"
    return f"Yeondong apps there: {', '.join(f'{module.__name__}:{name}' for name in names)}"
