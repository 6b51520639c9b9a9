"""Which driver serves which URL. The only place that imports while it runs: a driver is loaded when it is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

from yeondong.core.broker import Broker
from yeondong.core.store import Store
from yeondong.errors import SettingsError, UnknownEndpoint
from yeondong.settings import Settings, mask


def open_store(settings: Settings, default_url: str) -> Store:
    """Return the store that the settings name; without one, the embedded default file."""
    url = settings.store if settings.store is not None else default_url
    store: Store = _driver(url, _STORES, "store")(url, settings)
    return store


def open_broker(settings: Settings, store_url: str) -> Broker:
    """Return the broker that the settings name; without one, the log in the store's own SQLite file."""
    url = settings.broker
    if url is None:
        if scheme_of(store_url) != "sqlite":
            raise SettingsError(
                f"store {mask(store_url)!r} carries no broker; set YEONDONG_BROKER (schemes: {', '.join(_BROKERS)})"
            )
        url = store_url
    broker: Broker = _driver(url, _BROKERS, "broker")(url, settings)
    return broker


def sqlite_path(url: str) -> str:
    """Return the file that an SQLite URL names: ``sqlite:///shop.db`` relative, ``sqlite:////var/shop.db`` absolute."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise SettingsError(f"{mask(url)!r} names no file; write sqlite:///shop.db, or sqlite:////var/lib/shop.db")
    return path


def scheme_of(url: str) -> str:
    """Return the scheme of a URL."""
    return url.partition(":")[0]


def _driver(url: str, drivers: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    scheme = scheme_of(url)
    try:
        return drivers[scheme]
    except KeyError:
        raise UnknownEndpoint(mask(url), mask(scheme), drivers, what) from None


def _loaded(module: str, extra: str, package: str) -> Any:
    """Import a driver. Raises ``SettingsError``, which names the extra that brings its package if that is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise SettingsError(
            f"{extra} needs the package {package}, which is not installed: pip install 'yeondong[{extra}]'"
        ) from error


def _sqlite_store(url: str, settings: Settings) -> Any:
    return import_module("yeondong.stores.sqlite").SqliteStore(sqlite_path(url), make=settings.store is None)


def _postgresql_store(url: str, settings: Settings) -> Any:
    driver = _loaded("yeondong.stores.postgresql", "postgresql", "psycopg")
    return driver.PostgresqlStore(
        url,
        schema=settings.store_schema,
        connections=settings.store_connections,
        notify=settings.store_notify,
        poll_seconds=settings.store_poll_seconds,
    )


def _sqlite_broker(url: str, settings: Settings) -> Any:
    driver = import_module("yeondong.messaging.brokers.sqlite")
    retention = driver.Retention(
        age=timedelta(days=settings.broker_retention_days),
        max_bytes=settings.broker_retention_bytes,
        may_drop=frozenset(settings.broker_may_drop),
    )
    make = settings.broker is None and settings.store is None
    return driver.SqliteBroker(sqlite_path(url), make=make, retention=retention)


def _memory_broker(_url: str, settings: Settings) -> Any:
    driver = import_module("yeondong.messaging.brokers.memory")
    return driver.MemoryBroker(max_bytes=settings.broker_retention_bytes)


def _kafka_broker(url: str, settings: Settings) -> Any:
    driver = _loaded("yeondong.messaging.brokers.kafka", "kafka", "confluent_kafka")
    cluster = driver.Cluster.at(
        url,
        prefix=settings.kafka_prefix,
        security={
            "security.protocol": settings.kafka_security,
            "sasl.mechanisms": settings.kafka_mechanism if settings.kafka_username is not None else None,
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password,
            "ssl.ca.location": settings.kafka_ca,
            "ssl.certificate.location": settings.kafka_certificate,
            "ssl.key.location": settings.kafka_key,
            "ssl.key.password": settings.kafka_key_password,
        },
        options=settings.kafka_options,
    )
    return driver.KafkaBroker(
        cluster,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication,
        message_bytes=settings.kafka_message_bytes,
        lease_seconds=settings.lease_seconds,
    )


_STORES: Mapping[str, Callable[..., Any]] = {
    "sqlite": _sqlite_store,
    "postgresql": _postgresql_store,
    "postgres": _postgresql_store,
}
_BROKERS: Mapping[str, Callable[..., Any]] = {
    "sqlite": _sqlite_broker,
    "memory": _memory_broker,
    "kafka": _kafka_broker,
}
