"""Where a demo takes place: which database, which broker, and what it makes there.

``YEONDONG_STORE`` and ``YEONDONG_BROKER`` name the servers, as for every app. What is there already is left alone: the
demo makes a schema and topics of its own, and removes them afterwards. On SQLite it has files of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from examples.shop.evidence import Database, Evidence, Log
from examples.shop.ledger import Trail
from examples.shop.on_sqlite import BrokerOnSqlite, StoreOnSqlite


class Nowhere(Exception):
    """The demo can't take place there."""


class StorePlace(Protocol):
    """Where shop and store keep their tables."""

    scheme: str
    environment: Mapping[str, str]
    told: str

    def make(self) -> None:
        """Make the place."""

    def connect(self) -> Database:
        """Connect, beside the shop."""

    def remove(self) -> None:
        """Remove what ``make`` has made, with all that is in it."""


class BrokerPlace(Protocol):
    """Where messages are. A worker that is gone is noticed after ``session_seconds`` at the earliest."""

    scheme: str
    session_seconds: float
    environment: Mapping[str, str]
    told: str

    def make(self) -> None:
        """Make the place."""

    def connect(self) -> Log:
        """Connect, beside the groups."""

    def remove(self) -> None:
        """Remove what ``make`` has made, with all that is in it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database and a broker."""

    store: StorePlace
    broker: BrokerPlace

    @property
    def several(self) -> bool:
        """Whether several relays and workers share the work there."""
        return (self.store.scheme, self.broker.scheme) == ("postgresql", "kafka")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the shop's processes are told."""
        return {**self.store.environment, **self.broker.environment}

    @property
    def told(self) -> str:
        """What it is, for people."""
        return " and ".join(dict.fromkeys((self.store.told, self.broker.told)))

    def evidence(self, ledger: Path) -> Evidence:
        """Look at it from outside."""
        return Evidence(self.store.connect(), self.broker.connect(), Trail(ledger))

    @contextmanager
    def made(self, *, keep: bool) -> Iterator[None]:
        """Make it, and remove it at the end unless it is to be kept."""
        self.store.make()
        try:
            self.broker.make()
            try:
                yield
            finally:
                if not keep:
                    self.broker.remove()
        finally:
            if not keep:
                self.store.remove()


def place_of(environ: Mapping[str, str], folder: Path) -> Place:
    """Return the place that the environment names. Raises ``Nowhere``."""
    store, broker = environ.get("YEONDONG_STORE", ""), environ.get("YEONDONG_BROKER", "")
    return Place(_store(store, folder), _broker(broker, store, environ, folder))


def _store(url: str, folder: Path) -> StorePlace:
    match _scheme(url):
        case "" | "sqlite":
            return StoreOnSqlite(folder)
        case "postgresql" | "postgres":
            return cast("StorePlace", _loaded("examples.shop.on_postgresql", "postgresql").StoreOnPostgresql(url))
        case scheme:
            raise Nowhere(f"the demo runs on no store {scheme!r} (YEONDONG_STORE); known: sqlite, postgresql")


def _broker(url: str, store: str, environ: Mapping[str, str], folder: Path) -> BrokerPlace:
    match _scheme(url):
        case "kafka":
            return cast("BrokerPlace", _loaded("examples.shop.on_kafka", "kafka").BrokerOnKafka(url, environ))
        case "" if _scheme(store).startswith("postgres"):
            raise Nowhere(
                "YEONDONG_STORE names PostgreSQL, which carries no messages: name a broker too, for example "
                "YEONDONG_BROKER=kafka://127.0.0.1:9092"
            )
        case "" | "sqlite":
            return BrokerOnSqlite(folder, apart=bool(url))
        case scheme:
            raise Nowhere(f"the demo runs on no broker {scheme!r} (YEONDONG_BROKER); known: sqlite, kafka")


def _loaded(module: str, extra: str) -> Any:
    """Import what needs a server's client. Raises ``Nowhere``, which says how to get one that is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise Nowhere(f"{error.name} is not installed; in a checkout: pip install '.[{extra}]'") from error


def _scheme(url: str) -> str:
    return url.partition(":")[0]
