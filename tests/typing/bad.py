"""Each statement must be rejected by the type checker."""

from datetime import timedelta

from tests.typing.shop import *
from yeondong import EventMixin, Park, Retry, Yeondong

app.publish(GrantPoints(1, 2))
app.publish(OrderPlaced)
app.publish(42)
app.publish(SendLetter(member_id="7"))
app.publish(OrderPlaced(1, 2), timeout=2)
app.send(OrderPlaced(1, 2))
app.send(OrderPaid(1))
app.sends(OrderPlaced(1, 2))
OrderPlaced(1)
OrderPlaced("one", 2)
OrderPlaced(1, 2).amount = 3
outbox.add()
outbox.add(None, "order 42")
outbox.add(None, OrderPlaced)
app.outbox(marking="last_id")
app.outbox(attempt=3)
app.outbox(group="search")
Yeondong()
Retry(5)
Park()
index_payment(OrderPlaced(1, 2))
write_letter("7")
class Misspelt(EventMixin, channel=5): ...
class Changing(OrderPlaced, frozen=False): ...
@app.subscribe(OrderPlaced, group="x")
def wrong(order: GrantPoints) -> None: ...
@app.subscribe(OrderPlaced)
def nogroup(order: OrderPlaced) -> None: ...
@app.subscribe(GrantPoints, group="x")
def no_event(command: GrantPoints) -> None: ...
@app.subscribe(OrderPlaced, group="x", since="yesterday")
def no_start(order: OrderPlaced) -> None: ...
@app.subscribe(OrderPlaced, group="x", unknown="ignore")
def no_choice(order: OrderPlaced) -> None: ...
@app.subscribe(OrderPlaced, group="x")
def no_payload() -> None: ...
@app.subscribe(OrderPlaced, group="x")
def no_outcome(order: OrderPlaced) -> bool: return True
@app.subscribe(OrderPlaced, group="x")
async def too_early(order: OrderPlaced) -> None: ...
@app.subscribe(OrderPlaced, group="x", attempts="3")
def no_number(order: OrderPlaced) -> None: ...
@app.subscribe(OrderPlaced, group="x", backoff=timedelta(seconds=1))
def no_backoff(order: OrderPlaced) -> None: ...
@app.subscribe(OrderPlaced, group="x", unavailable=TimeoutError)
def no_tuple(order: OrderPlaced) -> None: ...
@app.handle(OrderPlaced)
def no_command(order: OrderPlaced) -> None: ...
@app.handle(GrantPoints, on_failure="hold")
def typo(command: GrantPoints) -> None: ...
@app.handle(GrantPoints, group="x")
def grouped(command: GrantPoints) -> None: ...
@app.handle(GrantPoints)
def other(command: OrderPlaced) -> None: ...
@app.handle
def bare(command: GrantPoints) -> None: ...
