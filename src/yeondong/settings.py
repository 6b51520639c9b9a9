"""Settings: what a deployment may change, with every default of the product on this one page.

The environment comes first (``YEONDONG_LEASE_SECONDS``), then ``yeondong.toml`` in the current folder or the file that
``YEONDONG_CONFIG`` names (``lease_seconds = 5``), then what the code gave, then the default. Read when asked for, never
at import.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from yeondong.errors import SettingsError

PREFIX: Final = "YEONDONG_"
CONFIG: Final = "YEONDONG_CONFIG"
CONFIG_FILE: Final = "yeondong.toml"

Count: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=10_000_000)]
Days: TypeAlias = Annotated[float, Meta(gt=0, le=100_000)]
Security: TypeAlias = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings and their defaults. What an option of a decorator says for one flow comes before these.

    >>> Settings(lease_seconds=2).in_flight
    1000
    """

    store: str | None = None
    """URL of the database that flows keep their things in. None: the file ``NAME.db`` of the app, in this folder."""

    store_schema: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    """PostgreSQL: the schema of the store's tables. None: the first of the role's search_path that exists."""

    store_connections: Annotated[int, Meta(ge=3, le=100_000)] | None = None
    """PostgreSQL: the most connections of one process. None: as many as its flows and lanes can use at once."""

    broker: str | None = None
    """URL of what carries messages between apps. None: a log in the store's own file, where the store is SQLite."""

    attempts: Count = 10
    """How often a message is tried before it becomes a failure. Outages don't count."""

    backoff_first_seconds: Seconds = 1.0
    """Wait after the first attempt; it doubles with each further one, a quarter more or less by chance."""

    backoff_most_seconds: Seconds = 300.0
    """The longest wait between two attempts."""

    lanes: Count = 4
    """Handlers of one flow that run side by side. Messages of one key always run one after the other."""

    relay_lanes: Count = 1
    """Lanes of the outbox's relay. One keeps a broker busy; each has a connection of its own."""

    relay_in_flight: Count = 2_000
    """``in_flight`` for the relay: while one half is being sent, the other is fetched and marked."""

    relay_in_worker: bool = True
    """Whether ``yeondong run`` sends the outbox too. If not, start ``yeondong relay``."""

    in_flight: Count = 1_000
    """Messages that one flow has borrowed from its source at any time. At this bound it borrows no more."""

    in_flight_bytes: Count = 64 * 1024 * 1024
    """The same bound in bytes of data, whichever comes first."""

    memory_wait_seconds: Seconds = 30.0
    """How long a retry may wait in memory. A longer wait is written into the store, with what comes behind it."""

    held: Count = 10_000
    """Messages that one flow may keep in the store: waiting for a retry, behind one, or failed. When full, it stops."""

    lease_seconds: Seconds = 10.0
    """How long a lease lasts without renewal: another worker takes a killed one's flows over after this time."""

    heartbeat_seconds: Seconds = 2.0
    """How often a worker writes that it is alive and how its flows are."""

    grace_seconds: Annotated[float, Meta(ge=0, le=10_000_000)] = 30.0
    """How long a stopping worker lets running handlers finish; what is unfinished then is given back."""

    publish_timeout_seconds: Seconds = 10.0
    """How long ``publish`` and ``send`` try while the broker is away."""

    max_message_bytes: Count = 1024 * 1024
    """The largest data of one message. A larger one is refused where it is made."""

    outbox_retention_days: Days = 3.0
    """How long sent rows stay in the outbox, for people who look for them."""

    outbox_warning_rows: Count = 100_000
    """From this many rows waiting in the outbox, ``yeondong status`` warns. The table itself has no bound."""

    inbox_retention_days: Days = 14.0
    """How long a handled message's id is remembered. A repeat that comes later is handled again."""

    janitor_seconds: Seconds = 60.0
    """How often what is older than its retention is deleted, a batch at a time, by one worker."""

    broker_retention_days: Days = 7.0
    """How long the SQLite broker keeps messages, read ones too, so that they can be replayed."""

    broker_retention_bytes: Count = 1024 * 1024 * 1024
    """The most that the SQLite broker keeps; the oldest messages that all groups have read go first."""

    broker_may_drop: tuple[str, ...] = ()
    """Groups whose unread messages are dropped at that bound, and counted. Without any, sending waits for readers."""

    store_notify: bool = False
    """PostgreSQL: whether relays are told of commits by NOTIFY, in a millisecond or two, instead of looking."""

    store_poll_seconds: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """PostgreSQL: how often an idle relay looks for messages. Soon after there was one it looks more often."""

    kafka_security: Security = "plaintext"
    """How Kafka is spoken to: ``ssl`` checks the broker's certificate and host name, ``sasl_…`` logs in."""

    kafka_mechanism: Mechanism = "SCRAM-SHA-512"
    """How to log in, with ``sasl_plaintext`` and ``sasl_ssl``. Others: by ``kafka_options``."""

    kafka_username: str | None = None
    """The user who logs in."""

    kafka_password: str | None = None
    """The password of that user. Shown nowhere."""

    kafka_ca: str | None = None
    """File with the certificates of those who may vouch for a broker, in PEM. None: those that the system trusts."""

    kafka_certificate: str | None = None
    """File with a certificate of our own, in PEM, where the brokers ask for one."""

    kafka_key: str | None = None
    """File with the key of that certificate, in PEM."""

    kafka_key_password: str | None = None
    """The password of that key. Shown nowhere."""

    kafka_prefix: str = ""
    """What the names of all topics and consumer groups begin with, where several deployments share a cluster."""

    kafka_partitions: Count = 6
    """Partitions of a topic that ``yeondong db create`` makes: at most so many workers share one group's messages."""

    kafka_replication: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    """Copies of such a topic. None: as many as the brokers make by themselves."""

    kafka_message_bytes: Annotated[int, Meta(ge=32_768, le=1_000_000_000)] = 1_000_000
    """The largest message with key and headers. Each topic's ``max.message.bytes`` must be at least this."""

    kafka_options: tuple[str, ...] = ()
    """Further options of librdkafka, each ``name=value``."""

    def __post_init__(self) -> None:
        login = self.kafka_username is not None and self.kafka_password is not None
        if self.kafka_security.startswith("sasl") and not login and not any(map(_names_login, self.kafka_options)):
            raise ValueError(
                f"kafka_security is {self.kafka_security!r}, and kafka_username or kafka_password is missing"
            )
        if self.kafka_username is not None and not self.kafka_security.startswith("sasl"):
            raise ValueError(
                f"kafka_username is set, and kafka_security {self.kafka_security!r} does not log in; "
                "set it to sasl_ssl (or to sasl_plaintext, where the network is safe)"
            )
        if self.broker_may_drop and self.broker is not None and self.broker.partition(":")[0] == "memory":
            raise ValueError(
                f"broker_may_drop names {', '.join(self.broker_may_drop)}, and the broker memory: drops nothing, it "
                "makes senders wait; leave broker_may_drop out, or name another broker"
            )
        if self.backoff_most_seconds < self.backoff_first_seconds:
            raise ValueError(
                f"backoff_most_seconds ({self.backoff_most_seconds}) is less than backoff_first_seconds "
                f"({self.backoff_first_seconds})"
            )

    def warnings(self) -> Sequence[str]:
        """Say what can be run and is probably not meant."""
        found = []
        if self.inbox_retention_days < self.broker_retention_days:
            found.append(
                f"inbox_retention_days ({self.inbox_retention_days:g}) is shorter than broker_retention_days "
                f"({self.broker_retention_days:g}): a message that the broker repeats late would be handled twice"
            )
        if self.lease_seconds < self.heartbeat_seconds:
            found.append(
                f"lease_seconds ({self.lease_seconds:g}) is shorter than heartbeat_seconds "
                f"({self.heartbeat_seconds:g}): a worker is replaced before it looks dead"
            )
        return found


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, and where its value comes from. Passwords in ``value`` are masked."""

    name: str
    value: Any
    source: str


def load_settings(
    code: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Settings:
    """Read the settings; ``code`` holds what the code gives.

    Raises ``SettingsError``, which says where the wrong one is and what is known.

    >>> load_settings({"lanes": 2}, environ={"YEONDONG_LANES": "8"}, folder=Path("/nowhere")).lanes
    8
    """
    return _settings(_read(code, environ, folder))


def list_settings(
    code: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Sequence[Setting]:
    """Read the settings as ``load_settings`` does, and tell for each which source won."""
    found = _read(code, environ, folder)
    settings = _settings(found)
    return [
        Setting(name, _shown(name, getattr(settings, name)), found[name][1] if name in found else "default")
        for name in NAMES
    ]


def mask(url: str) -> str:
    """Hide the password in a URL.

    >>> mask("postgresql://shop:secret@db/orders?sslmode=require")
    'postgresql://shop:***@db/orders?sslmode=require'
    """
    # Up to the last @: a password may hold one that nobody escaped, and hiding too much is better than too little.
    masked = re.sub(r"(://[^:@/?#]*:|^[^:@/?#]*:(?!//)).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)((?:password|passwd|pwd|secret|token)=)[^&\s]*", r"\1***", masked)


NAMES: Final = tuple(field.name for field in fields(Settings))
SECRETS: Final = frozenset({"kafka_password", "kafka_key_password"})
_TYPES: Final = get_type_hints(Settings, include_extras=True)

_Found: TypeAlias = Mapping[str, tuple[Any, str]]


def _read(code: Mapping[str, Any] | None, environ: Mapping[str, str] | None, folder: Path | None) -> _Found:
    """Give, by name, the value that wins and where it stands."""
    environ = os.environ if environ is None else environ
    from_code = {name: value for name, value in (code or {}).items() if value is not None}
    return {
        **_checked(from_code, "the code", strict=True),
        **_from_file(environ, Path.cwd() if folder is None else folder),
        **_from_environment(environ),
    }


def _from_file(environ: Mapping[str, str], folder: Path) -> _Found:
    named = environ.get(CONFIG)
    path = folder / (named or CONFIG_FILE)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        if named:
            raise SettingsError(f"{CONFIG} names {named!r}, and there is no such file") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    try:
        return _checked(tomllib.loads(text), str(path), strict=True)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> _Found:
    given = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and key != CONFIG and value
    }
    found: dict[str, tuple[Any, str]] = {}
    for name, value in given.items():
        variable = PREFIX + name.upper()
        if name in NAMES:
            split = [part.strip() for part in value.split(",")] if get_origin(_TYPES[name]) is tuple else value
            found |= _checked({name: split}, variable, strict=False)
        elif difflib.get_close_matches(name, NAMES, n=1, cutoff=0.8):
            raise _unknown(name, variable)
        # Others pass: Kubernetes, for one, sets YEONDONG_SERVICE_HOST beside a service of that name.
    return found


def _checked(values: Mapping[str, Any], source: str, *, strict: bool) -> _Found:
    return {name: (_converted(name, value, source, strict=strict), source) for name, value in values.items()}


def _converted(name: str, value: Any, source: str, *, strict: bool) -> Any:
    if name not in NAMES:
        raise _unknown(name, source)
    try:
        return msgspec.convert(value, _TYPES[name], strict=strict)
    except msgspec.ValidationError as error:
        shown = _shown(name, value)
        raise SettingsError(f"{name} = {shown!r} in {source} cannot be used: {error}") from error


def _unknown(name: str, source: str) -> SettingsError:
    close = difflib.get_close_matches(name, NAMES, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return SettingsError(f"no setting named {name!r} (in {source}){meant} Known settings: {', '.join(NAMES)}")


def _settings(found: _Found) -> Settings:
    try:
        return Settings(**{name: value for name, (value, _) in found.items()})
    except ValueError as error:
        raise SettingsError(f"{error} (set in {', '.join(_sources(found))})") from error


def _sources(found: _Found) -> Iterable[str]:
    return sorted({source for _, source in found.values()})


def _shown(name: str, value: Any) -> Any:
    if name in SECRETS and value is not None:
        return "***"
    if isinstance(value, tuple | list):
        return type(value)(_shown(name, each) for each in value)
    return mask(value) if isinstance(value, str) else value


def _names_login(option: str) -> bool:
    """Whether an option says how to log in otherwise than with a name and a password."""
    return option.startswith(("sasl.mechanism", "sasl.oauthbearer.", "sasl.kerberos."))
