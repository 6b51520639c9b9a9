"""Customers: a process that places orders, and writes down what the shop told it.

It places one order for each line that it reads from standard input. What it writes is independent of everything in the
shop: one line in the ledger before an order is tried, one after.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from examples.shop.ledger import Ledger

SOLD_OUT = "last-year's-calendar"
UNTITLED = "mystery-box"
PRODUCTS = ("walnut-cake", "green-tea", "rice-bowl", "ginseng-candy")
UNTITLED_AT = 0.15


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer wants."""

    order_id: str
    member_id: int
    product_id: str
    amount: int


def wishes(customer: int, orders: int, members: int, seed: int) -> Iterator[Order]:
    """Give orders, of which ``orders`` can be placed; every tenth one is for a product that is sold out.

    The first customer's orders have one of a product whose title is missing.
    """
    chance = random.Random(f"{seed}/{customer}")
    placed = tried = 0
    untitled_at = int(orders * UNTITLED_AT) if customer == 1 else -1
    while placed < orders:
        tried += 1
        product = chance.choice(PRODUCTS)
        if tried % 10 == 5:
            product = SOLD_OUT
        elif placed == untitled_at:
            product, untitled_at = UNTITLED, -1
        placed += product != SOLD_OUT
        amount = chance.randrange(1, 100) * 1_000
        yield Order(f"{customer}-{tried:04}", chance.randrange(members) + 1, product, amount)


def main() -> None:
    """Place orders in the shop of the current folder."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop.customers", description=__doc__)
    parser.add_argument("--shop", default="examples.shop.app", help="module with place_order and SoldOut")
    parser.add_argument("--customer", type=int, required=True, help="number of this customer, from 1")
    parser.add_argument("--orders", type=int, required=True, help="how many orders to place, rolled back ones aside")
    parser.add_argument("--members", type=int, required=True, help="how many members share the orders")
    parser.add_argument("--seed", type=int, required=True)
    asked = parser.parse_args()
    shop = import_module(asked.shop)
    ledger = Ledger(Path("ledger.jsonl"), by=f"customer-{asked.customer}")
    for order in wishes(asked.customer, asked.orders, asked.members, asked.seed):
        if not sys.stdin.readline():
            break
        ledger.write("tries", order=order.order_id)
        try:
            shop.place_order(**asdict(order))
        except shop.SoldOut:
            ledger.write("rolled back", order=order.order_id)
        except Exception as error:  # noqa: BLE001 - whatever it was, whether the order was placed is not known
            ledger.write("unknown", order=order.order_id, error=repr(error))
        else:
            ledger.write("placed", order=order.order_id)


if __name__ == "__main__":
    main()
