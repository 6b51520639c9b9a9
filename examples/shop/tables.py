"""The shop's own tables, beside yeondong's in the same database, whichever that is.

As a program it makes them, with the members and the products of a demo:

    python -m examples.shop.tables --members 30 --stock 450
"""

from __future__ import annotations

import argparse

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Integer, MetaData, Table, Text
from sqlalchemy.schema import CreateTable

from examples.shop.app import app
from examples.shop.customers import PRODUCTS, SOLD_OUT, UNTITLED

metadata = MetaData()

members = Table(
    "members",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("orders", Integer, nullable=False),
)
products = Table(
    "products",
    metadata,
    Column("id", Text, primary_key=True),
    Column("title", Text),
    Column("stock", Integer, nullable=False),
)
orders = Table(
    "orders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("member_id", ForeignKey("members.id"), nullable=False),
    Column("nth", Integer, nullable=False),  # of this member's orders
    Column("product_id", ForeignKey("products.id"), nullable=False),
    Column("amount", Integer, nullable=False),
)

# The order of a search index's row is never unique on purpose: what keeps a repeated message out is the inbox, and the
# checker counts whether it did.
search_index = Table(
    "search_index",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("member_id", Integer, nullable=False),
    Column("title", Text, nullable=False),
)
sales = Table(
    "sales",
    metadata,
    Column("member_id", Integer, primary_key=True, autoincrement=False),
    Column("orders", Integer, nullable=False),
    Column("amount", Integer, nullable=False),
)


def main() -> None:
    """Make the tables, all or none, and fill in who may buy and what there is."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop.tables", description=__doc__)
    parser.add_argument("--members", type=int, required=True, help="how many members there are")
    parser.add_argument("--stock", type=int, required=True, help="how many there are of each product")
    asked = parser.parse_args()
    stock = {**dict.fromkeys((*PRODUCTS, UNTITLED), asked.stock), SOLD_OUT: 0}
    app.store.prepare()
    with app.transaction() as tx:
        for table in metadata.sorted_tables:
            tx.execute(CreateTable(table))
        tx.execute(members.insert(), [{"id": number, "orders": 0} for number in range(1, asked.members + 1)])
        tx.execute(products.insert(), [
            {"id": id, "title": None if id == UNTITLED else id.replace("-", " ").capitalize(), "stock": left}
            for id, left in stock.items()
        ])  # fmt: skip


if __name__ == "__main__":
    main()
