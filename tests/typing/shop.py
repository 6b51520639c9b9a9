"""The methods that exist so far, as a user writes them. Must type-check; `bad.py` builds on it and must not."""

from dataclasses import dataclass
from datetime import timedelta
from sqlite3 import Connection

from pydantic import BaseModel

from yeondong import (
    Backoff,
    Command,
    CommandMixin,
    Delivery,
    Done,
    Event,
    EventMixin,
    Message,
    Outcome,
    Park,
    Retry,
    Transaction,
    Unavailable,
    Yeondong,
)

app = Yeondong("shop")  # one SQLite file, until YEONDONG_STORE and YEONDONG_BROKER say otherwise
elsewhere = Yeondong("shop", store="sqlite:////var/lib/shop/shop.db", broker="memory:")


class OrderPlaced(Event, channel="orders", key="order_id"):
    order_id: int
    amount: int


class GrantPoints(Command, channel="points", key="member_id"):
    member_id: int
    points: int


class AuditWritten(Event, channel="audit", type="audit.v1"):
    text: str = ""


@dataclass(frozen=True)
class OrderPaid(EventMixin, channel="orders", key="order_id"):
    order_id: int


class SendLetter(CommandMixin, BaseModel, channel="letters", key="member_id"):
    member_id: str


# messaging


@app.subscribe(OrderPlaced, group="search")  # an event: any number of groups
def index_order(order: OrderPlaced, tx: Transaction) -> None:
    tx.execute("insert into search (id, amount) values (:order_id, :amount)", order)  # inbox row and effect together


@app.subscribe(
    OrderPlaced,
    group="statistics",
    since="now",
    unknown="pass_over",
    attempts=3,
    lanes=2,
    backoff=Backoff(most=timedelta(minutes=1)),
    on_failure="park",
    unavailable=(TimeoutError,),
)
def count_order(order: OrderPlaced, tx: Transaction, delivery: Delivery) -> Outcome:
    if order.amount < 0:
        return Park(f"amount {order.amount}")
    if delivery.attempt == 1 and not tx.execute("select 1 from statistics"):
        return Retry(after=timedelta(seconds=5))
    return Done()


@app.subscribe(OrderPaid, group="search")
def index_payment(paid: OrderPaid) -> None:
    if paid.order_id < 0:
        raise Unavailable("the index is being rebuilt")


@app.handle(GrantPoints, on_failure="hold_key")  # a command: exactly one
def grant(command: GrantPoints, message: Message) -> None:
    if not message.id or not command.points:
        raise ValueError(command)


@app.handle(SendLetter)
def write_letter(letter: SendLetter) -> None: ...


app.sends(AuditWritten)
app.sends(GrantPoints, SendLetter, external=True)


def place() -> None:
    app.publish(OrderPlaced(42, 39_000), OrderPaid(42), timeout=timedelta(seconds=2))  # returns once the broker has it
    app.send(GrantPoints(7, 390), SendLetter(member_id="7"))


# outbox

outbox = app.outbox(marking="status", on_failure="hold_key", attempts=5)


def place_safely(connection: Connection) -> None:
    outbox.add(connection, OrderPlaced(order_id=42, amount=39_000), GrantPoints(7, 390))  # with your commit, or never
    with app.transaction() as tx:
        tx.execute("insert into orders (id) values (:id)", {"id": 42})
        outbox.add(tx, OrderPaid(42))
