"""The shop: one order service whose parts move together.

An order and its messages are written in one transaction. A relay sends them on; the search index, the statistics and
the partner that keeps the members' points follow, each at its own pace:

    yeondong run examples.shop.app:app

Nothing here says on which database or broker: one SQLite file, or PostgreSQL and Kafka.
"""

import http.client
import os
from datetime import timedelta
from http import HTTPStatus

import msgspec

from yeondong import Backoff, Command, Event, Message, Transaction, Unavailable, Yeondong

app = Yeondong("shop")  # one SQLite file, shop.db, until YEONDONG_STORE and YEONDONG_BROKER say otherwise
outbox = app.outbox()


class OrderPlaced(Event, channel="orders", key="member_id"):
    order_id: str
    member_id: int
    product_id: str
    amount: int  # won


class GrantPoints(Command, channel="points", key="member_id"):
    order_id: str
    member_id: int
    points: int


class SoldOut(Exception):
    """The product is gone, so the order was not placed."""


def place_order(order_id: str, member_id: int, product_id: str, amount: int) -> None:
    """Write an order and its messages in one transaction: all of it, or nothing. Raises ``SoldOut``."""
    placed = OrderPlaced(order_id, member_id, product_id, amount)
    with app.transaction() as tx:
        # What the key names is changed first: then a member's messages have the order of the member's orders.
        tx.execute("update members set orders = orders + 1 where id = :member_id", placed)
        tx.execute(
            "insert into orders (id, member_id, nth, product_id, amount) values"
            " (:order_id, :member_id, (select orders from members where id = :member_id), :product_id, :amount)",
            placed,
        )
        outbox.add(tx, placed, GrantPoints(order_id, member_id, points=amount // 100))
        taken = tx.execute(
            "update products set stock = stock - 1 where id = :product_id and stock > 0 returning stock", placed
        )
        if not list(taken):
            raise SoldOut(product_id)  # and with the order its messages are gone too


# A product without a title can't be found, and its order can't be indexed: that is for a person to repair, after three
# attempts. Meanwhile this member's later orders wait, and everybody else's go on.
@app.subscribe(OrderPlaced, group="search", attempts=3, backoff=Backoff(first=timedelta(milliseconds=200)))
def index_order(order: OrderPlaced, tx: Transaction) -> None:
    """Make an order findable. The row and the note that this message was handled are one transaction."""
    tx.execute(
        "insert into search_index (order_id, member_id, title)"
        " values (:order_id, :member_id, (select title from products where id = :product_id))",
        order,
    )


@app.subscribe(OrderPlaced, group="statistics")
def count_sale(order: OrderPlaced, tx: Transaction) -> None:
    """Add an order to its member's sum. Adding twice would be wrong, and a repeated message is not handled twice."""
    tx.execute(
        "insert into sales (member_id, orders, amount) values (:member_id, 1, :amount)"
        " on conflict (member_id) do update set orders = sales.orders + 1, amount = sales.amount + excluded.amount",
        order,
    )


@app.handle(GrantPoints, unavailable=(ConnectionError, TimeoutError))
def grant_points(command: GrantPoints, message: Message) -> None:
    """Call the partner. No transaction reaches it, so it gets the message's id, by which it knows a repeat."""
    partner = http.client.HTTPConnection(os.environ["SHOP_PARTNER"], timeout=5)
    try:
        partner.request("POST", "/points", msgspec.json.encode(command), {"Idempotency-Key": message.id})
        status = partner.getresponse().status
    finally:
        partner.close()
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise Unavailable("the partner is away")
    if status != HTTPStatus.OK:
        raise RuntimeError(f"the partner refused {command} with status {status}")
