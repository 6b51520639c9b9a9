"""The database side: one small contract for each part, and the session that carries them.

Whoever writes a position, a mark or a held entry names its ``Fence``; the same statement or transaction checks the
epoch, so that a worker that was paused beyond its lease, or whose partition went to another, writes nothing. Times are
the database's own, so that hosts may disagree.
Every method may raise ``ConnectionLost`` (away, locked, full): nothing was written then, save where the text says
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from msgspec import Struct

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Message
from yeondong.core.source import Lag

# The relay's flow: its lease, its position and what it holds bear this name.
RELAY: Final = "outbox"


class Transaction(Protocol):
    """The store's transaction, with this message's inbox row in it. The engine commits it.

    ``execute`` takes SQL with ``:name`` parameters, the same on every store, or a SQLAlchemy statement; ``values`` is a
    mapping or any object with fields of these names, or a sequence of them (the statement then runs once for each).
    ``connection`` is the driver's own connection, for everything else.
    """

    connection: Any

    def execute(self, statement: Any, values: Any = None) -> Iterable[Any]:
        """Run one statement and return its rows. Raises ``StoreError`` once the transaction is over."""


class OpenTransaction(Transaction, Protocol):
    """A transaction as its owner sees it."""

    def current(self) -> bool:
        """Whether the transaction that was begun is still open: a handler may have ended it, or the server."""

    def commit(self) -> None:
        """Commit. After ``ConnectionLost`` it is unknown whether it took effect. ``StoreError`` if not ``current``."""

    def rollback(self) -> None:
        """Undo. Never raises."""


class Inbox(Protocol):
    """Remembers which messages a group has handled. One row is (group, message id)."""

    def claim(self, tx: Transaction, group: str, ids: Sequence[str]) -> set[str]:
        """Insert the ids, sorted, into the transaction and return the new ones: those that nobody claimed before."""

    def unclaim(self, tx: Transaction, group: str, ids: Sequence[str]) -> None:
        """Take back claims of this same transaction."""

    def sweep(self, older: timedelta, limit: int) -> int:
        """Delete up to ``limit`` rows older than this, never one whose id is still held; return how many."""


class Hold(Struct, frozen=True):
    """One message for ``Held``.

    With ``failed`` it waits for a person, and ``blocks`` says whether later messages of its key wait behind it.
    Otherwise it waits at least ``after_seconds``, then its turn within its key; ``delivery.attempt`` is the attempt to
    come.
    """

    delivery: Delivery
    after_seconds: float = 0.0
    failed: bool = False
    blocks: bool = True
    error: str | None = None


class HeldReceipt(Struct, frozen=True):
    """The receipt of a delivery that comes out of ``Held``."""

    id: int


class Held(Protocol):
    """What flows took over from their sources. Entries of one key keep the order in which they were put.

    ``fences`` are those of the flow's lease, or of the partitions that are written for, or none where everybody may
    write: if any of them is ours no longer, ``FenceLost`` is raised and nothing is written.

    ``copies`` says that the source may forget what was put. Without it the entry is the source's own row, which the
    source lends again when its time has come.
    """

    copies: bool

    def put(self, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
        """Write all in one transaction, durable before it returns; an id that is held already is left as it is."""

    def known(self, flow: str, ids: Collection[str]) -> set[str]:
        """Return which of these message ids the flow holds."""

    def keys(self, flow: str) -> Mapping[tuple[str, ...], int]:
        """Count, by ``order_key``, the entries that later messages must wait behind."""

    def due(self, flow: str, limit: int, partitions: Collection[str] | None = None) -> Sequence[Delivery]:
        """Return up to ``limit`` waiting entries whose turn it is, in order within each key, as deliveries.

        The turn of a key comes when its first entry (failed ones that do not block left aside) is waiting and due;
        those behind it follow, whatever their time. The receipt is a ``HeldReceipt``.

        With ``partitions`` only entries of these; what stands behind an entry of another partition waits for it.
        """

    def settle(self, flow: str, done: Sequence[Delivery], again: Sequence[Hold], fences: Sequence[Fence]) -> None:
        """Delete the done ones and write what became of the others, in one transaction. Twice is harmless."""

    def count(self, flow: str) -> int:
        """Count all entries, failed ones included."""

    def partitions(self, flow: str) -> Mapping[str, int]:
        """Count all entries, failed ones included, by the partition they came from."""


class Leases(Protocol):
    """Who may run an exclusive flow. Epochs only rise, also across a store that was made anew."""

    def take(self, name: str, owner: str, seconds: float) -> Fence | None:
        """Take a free or expired lease under a new epoch; None while another owner holds it."""

    def renew(self, fence: Fence, seconds: float) -> Fence | None:
        """Extend under the same epoch; None if another owner has taken it."""

    def release(self, fence: Fence) -> None:
        """Free it at once, if it is still ours."""


class Claim(Struct, frozen=True):
    """A partition that was claimed. ``unclean``: another worker had it before, and never released it."""

    fence: Fence
    unclean: bool = False


class Claims(Protocol):
    """Which worker may write for a partition, where a broker assigns partitions to the workers of a flow.

    The broker alone decides who reads. A worker claims what it was assigned, so that whoever had it before, and may not
    know yet that it lost it, writes nothing more.
    """

    def claim(self, flow: str, partitions: Collection[str], owner: str) -> Sequence[Claim]:
        """Let ``owner`` write for these and nobody else any more, under new epochs; all in one transaction."""

    def release(self, fences: Sequence[Fence]) -> None:
        """Note a clean end of those that are still ours. Nobody may write under them any more."""


class Positions(Protocol):
    """How far a flow has come, for sources that do not remember it themselves."""

    def load(self, name: str) -> str | None:
        """Return the position saved last."""

    def save(self, name: str, position: str, fence: Fence) -> None:
        """Save it. Raises ``FenceLost`` under an older epoch."""


class OutboxRows(Protocol):
    """The outbox table as a relay sees it that marks by status. A receipt is a row's id, an attempt ``fail_count`` + 1.

    Used by one thread, for one opening of the relay.
    """

    def waiting(self, limit: int, on_loan: Collection[int]) -> Sequence[Delivery]:
        """Return WAITING rows in id order, without those on loan and those whose key is blocked or not yet due.

        Never a row before an earlier one of its key that was committed before it, however late the commits came.
        """

    def mark(self, ids: Sequence[int], fence: Fence) -> None:
        """Set DONE what is WAITING. Raises ``FenceLost`` under an older epoch."""

    def hold(self, holds: Sequence[Hold], fence: Fence) -> None:
        """Keep failures and long waits on the rows themselves. Raises ``FenceLost`` under an older epoch."""

    def failed(self) -> int:
        """Count the rows that are FAILED: under marking by status, failures are the rows themselves."""

    def lag(self) -> Lag:
        """Count the WAITING rows."""

    def sweep(self, older: timedelta, limit: int) -> int:
        """Delete up to ``limit`` rows that were sent before this age; return how many."""

    def repeats(self, start: str) -> int:
        """Count what ``rewind`` would send again."""

    def rewind(self, start: str, fence: Fence) -> int:
        """Let rows that were sent go again: all (``start``), or those since a time in ISO 8601; return how many."""


class OutboxLog(Protocol):
    """The outbox table as a relay sees it that marks by position: rows in an order that no late commit gets ahead of.

    What is read after something was never to be read before it, so that one position tells all that was sent. What
    that position consists of is the store's own matter. Used by one thread, for one opening of the relay.
    """

    def resume(self) -> None:
        """Go behind the position saved last; without one, behind what a relay that marks by status has sent.

        Raises ``PositionLost`` if it cannot be this database's: rows would be passed over.
        """

    def read(self, limit: int) -> Sequence[Delivery]:
        """Return the rows that come next. Receipts are numbers that rise."""

    def save(self, receipt: int, fence: Fence) -> None:
        """Save that everything up to this receipt is settled. Raises ``FenceLost`` under an older epoch."""

    def lag(self) -> Lag:
        """Count the rows beyond the saved position."""

    def sweep(self, older: timedelta, limit: int) -> int:
        """Delete up to ``limit`` rows that the saved position has passed and that are older; return how many."""

    def repeats(self, start: str) -> int:
        """Count what ``rewind`` would send again."""

    def rewind(self, start: str, fence: Fence) -> int:
        """Save a position before all rows (``start``), or before those since a time in ISO 8601; return how many.

        It never moves forward, and makes a position that is lost one of this database.
        """


class Suspects(Protocol):
    """Attempts that were begun after an unclean end, so that a message that kills its process is known by it.

    Workers that share a flow name their ``partitions``; None means all.
    """

    def load(self, flow: str, partitions: Collection[str] | None = None) -> Mapping[str, int]:
        """Return attempts begun, by message id."""

    def begin(self, flow: str, partition: str, message_id: str, attempt: int) -> None:
        """Write, before it is run, that this attempt begins."""

    def clear(self, flow: str, partitions: Collection[str] | None = None) -> None:
        """Forget all: the flow is through with them."""


class Control(Struct, frozen=True):
    """What persons and failures decided about a flow; survives restarts.

    ``paused`` and ``stopped`` hold the reason, ``paused_at`` and ``stopped_at`` since when. ``replay`` is a request not
    yet carried out: ``start``, or a time in ISO 8601; ``replay_begun`` says that the source may have gone back already.
    ``generation`` counts replays; the inbox counts ids per generation.
    """

    paused: str | None = None
    stopped: str | None = None
    replay: str | None = None
    generation: int = 0
    paused_at: datetime | None = None
    stopped_at: datetime | None = None
    replay_begun: bool = False


class LongRun(Struct, frozen=True):
    """A message that has been with its handler for longer than is usual, at least ``seconds``."""

    message_id: str
    type: str
    key: str | None
    seconds: float


class FlowReport(Struct, frozen=True):
    """How one flow of one worker is; ``since`` when and ``reason`` why it is in this state.

    ``state``: standby, running, paused, stopped. Totals count from the worker's start; ``rate`` is handled per second.
    ``long_runs`` are the messages in hand for several heartbeats.
    """

    flow: str
    state: str
    since: datetime
    reason: str | None = None
    in_flight: int = 0
    retrying: int = 0
    handled: int = 0
    failed: int = 0
    passed_over: int = 0
    rate: float = 0.0
    long_runs: tuple[LongRun, ...] = ()


class WorkerReport(Struct, frozen=True):
    """A worker process that is alive, or was at ``seen_at`` by the database's clock.

    ``notice`` is what a person should know about its use of the store, such as a handler that keeps others from
    writing. ``silent_seconds`` is how long it may be silent, by its own settings, and still be alive.
    """

    worker: str
    app: str
    host: str
    pid: int
    started_at: datetime
    flows: Sequence[FlowReport] = ()
    notice: str | None = None
    silent_seconds: float = 10.0
    seen_at: datetime | None = None
    age_seconds: float = 0.0


class Flows(Protocol):
    """What is known about flows and workers, for persons, probes and the next worker."""

    def control(self, flow: str) -> Control:
        """Return what was decided about the flow."""

    def pause(self, flow: str, reason: str) -> None:
        """Ask every worker to pause the flow; each does so within a second or two."""

    def resume(self, flow: str) -> None:
        """End a pause and a stop."""

    def stop(self, flow: str, reason: str) -> None:
        """Stop the flow until a person resumes it."""

    def ask_replay(self, flow: str, start: str) -> None:
        """Ask the worker of the flow to replay: ``start``, or a time in ISO 8601 with an offset."""

    def begin_replay(self, flow: str) -> None:
        """Note, if a replay is asked for, that from now on the source may have gone back for it: ``replay_begun``."""

    def replayed(self, flow: str, start: str) -> int:
        """Note that the request for this start was carried out; return the generation that counts from now on.

        A later request stays. If no request is left, another worker has noted it: the generation stays as it is.
        """

    def withdraw_replay(self, flow: str, start: str) -> None:
        """Drop the request for this start, which cannot be carried out, unless it has begun. A later request stays."""

    def opened(self, flow: str, owner: str) -> bool:
        """Note that ``owner`` opened the flow; return whether the last owner's end was unclean."""

    def closed(self, flow: str, owner: str) -> None:
        """Note a clean end."""

    def beat(self, report: WorkerReport) -> None:
        """Write that the worker is alive and how its flows are."""

    def workers(self) -> Sequence[WorkerReport]:
        """Return the workers seen within the last day, youngest sign of life first."""

    def forget_worker(self, worker: str) -> None:
        """Remove a worker that ended cleanly."""


class Failure(Struct, frozen=True):
    """A held entry that waits for a person. ``behind`` counts the messages of its key that wait behind it."""

    id: str
    flow: str
    message: Message
    attempts: int
    error: str
    failed_at: datetime
    blocks: bool
    behind: int = 0
    edited: bool = False


class FailureFilter(Struct, frozen=True):
    """Which failures are meant; what is None is not asked for. ``error`` is a part of the error's text."""

    ids: Sequence[str] | None = None
    flow: str | None = None
    type: str | None = None
    key: str | None = None
    error: str | None = None
    before: datetime | None = None


class Failures(Protocol):
    """Failures of all flows, and what persons do about them. Each action writes who, when and what."""

    def find(self, which: FailureFilter, limit: int) -> Sequence[Failure]:
        """Return matching failures, oldest first."""

    def count(self, which: FailureFilter) -> int:
        """Count matching failures."""

    def retry(self, ids: Sequence[str], by: str) -> int:
        """Let them be tried again, from the first attempt, before what waits behind them; return how many did."""

    def discard(self, ids: Sequence[str], by: str) -> int:
        """Give them up; what waits behind them goes on; return how many were."""

    def edit(self, id: str, data: bytes, by: str) -> bool:
        """Replace the data of one failure; the original is kept with the action. False if it is no longer a failure."""

    def actions(self, id: str) -> Sequence[Mapping[str, Any]]:
        """Return what was done about one: ``at``, ``by``, ``action``, ``original`` (bytes or None)."""


class Session(Protocol):
    """One thread's connection to the store. After ``ConnectionLost`` its next use connects anew.

    ``system`` and ``address`` are what its ``ConnectionLost`` names.
    """

    system: str
    address: str
    inbox: Inbox
    held: Held
    leases: Leases
    claims: Claims
    positions: Positions
    outbox: OutboxRows
    outbox_log: OutboxLog
    suspects: Suspects
    flows: Flows
    failures: Failures

    def begin(self, holder: str, *, together: bool = False) -> OpenTransaction:
        """Begin a transaction that may write. ``holder`` names who does, for messages about long ones.

        ``together``: several messages share it, and each runs alone if anything fails. A store may then tell the error
        of a statement later than at the statement, at the latest when it commits.
        """

    def lost(self, error: BaseException, tx: OpenTransaction | None = None) -> str | None:
        """Say which outage an error of the driver means; None if it is an error of the statement.

        ``tx`` is the transaction in which a handler raised it, open or rolled back: what a handler met elsewhere, with
        the same driver, is no outage of the store.
        """

    def close(self) -> None:
        """Disconnect. Never raises; twice is harmless."""


class Store(Protocol):
    """A database that keeps what flows need."""

    address: str
    poll_seconds: float | None

    def prepare(self) -> str | None:
        """Check that the database and its tables can be used; an embedded file is made. Say what was made.

        Raises ``StoreError`` (``NotADatabase``, ``ReadOnlyStore``, ``SchemaMissing``, ``SchemaMismatch``) and changes
        nothing then.
        """

    def connect(self, *, apart: bool = False) -> Session:
        """Return a session for one thread. Cheap: it connects at its first use.

        ``apart`` gives it a connection that nobody else uses, for what must never wait until others are done.
        """

    def expect(self, threads: int) -> None:
        """Be ready for so many threads that use it at once, sessions that stand apart left out.

        Raises ``StoreError`` if the database can never serve that many, ``ConnectionLost``.
        """

    def add(self, tx: Any, messages: Sequence[Message]) -> None:
        """Insert into the outbox, in the caller's own transaction. Raises ``TransactionError``."""

    async def add_async(self, tx: Any, messages: Sequence[Message]) -> None:
        """As ``add``, in a transaction of an asynchronous driver."""

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` soon after anybody commits, as far as the store learns of it; return a function that ends it.

        Where it does not learn of every commit, ``poll_seconds`` says how often to look besides, at the least.
        """

    def notice(self) -> str | None:
        """Say what a person should know about this process's use of the store just now or a moment ago."""

    def statements(self) -> Sequence[str]:
        """Return the statements that create the tables, in order."""

    def create(self) -> Sequence[str]:
        """Create what is missing and return the names; nothing that is there is changed."""

    def check(self) -> Sequence[str]:
        """Compare the tables with what this version needs and return a sentence for each difference."""

    def cautions(self) -> Sequence[str]:
        """Say what a person should know about the database software that this process uses."""

    def remarks(self) -> Sequence[str]:
        """Return a sentence for each thing that people may miss in the database and that hinders no flow."""
