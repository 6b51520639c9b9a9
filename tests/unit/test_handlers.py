"""A handler gets what its annotations ask for, or is refused before the first message."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import pytest

from yeondong.core.delivery import Delivery, Done, Outcome, Park
from yeondong.core.message import Kind, Message
from yeondong.core.store import Transaction
from yeondong.errors import DeclarationError
from yeondong.messaging.handlers import bind
from yeondong.messaging.messages import Command, Event

if TYPE_CHECKING:
    from nowhere import Elsewhere  # type: ignore[import-not-found]


class OrderPlaced(Event, channel="orders", key="order_id"):
    order_id: int


class OrderShipped(OrderPlaced):
    by: str = ""


class GrantPoints(Command, channel="points"):
    points: int


class HasOrderId(Protocol):
    @property
    def order_id(self) -> int: ...


class Ledger:
    """A transaction that only is there."""

    connection: Any = None

    def execute(self, statement: Any, values: Any = None) -> Iterable[Any]:
        return [(statement, values)]


ORDER = OrderPlaced(42)
MESSAGE = Message("id-1", "OrderPlaced", Kind.EVENT, "orders", "42", b'{"order_id":42}')
DELIVERY = Delivery(MESSAGE, receipt=1, partition="0", attempt=3)
LEDGER = Ledger()


def called(function: Callable[..., Any], payload_class: type = OrderPlaced) -> Any:
    return bind(function, payload_class).invoke(ORDER, DELIVERY, LEDGER)


# --- what a handler may ask for


def test_a_handler_of_only_the_payload_is_called_directly() -> None:
    def index(order: OrderPlaced) -> Outcome | None:
        return Park(str(order.order_id))

    bound = bind(index, OrderPlaced)

    assert bound.direct is index
    assert not bound.transactional
    assert bound.type == "OrderPlaced"
    assert bound.name.endswith("test_a_handler_of_only_the_payload_is_called_directly.<locals>.index")
    assert bound.invoke(ORDER, DELIVERY, None) == Park("42")


def test_what_it_decodes_is_what_it_is_given() -> None:
    def index(order: OrderPlaced) -> None: ...

    bound = bind(index, OrderPlaced)

    assert bound.decode(b'{"order_id":42}') == ORDER
    with pytest.raises(bound.undecodable):
        bound.decode(b'{"order_id":"x"}')


def test_a_transaction_makes_it_transactional() -> None:
    def index(order: OrderPlaced, tx: Transaction) -> Any:
        return order, tx

    bound = bind(index, OrderPlaced)

    assert bound.transactional
    assert bound.direct is None
    assert called(index) == (ORDER, LEDGER)


def test_parameters_are_given_by_annotation_in_any_order() -> None:
    def index(order: OrderPlaced, delivery: Delivery, message: Message, tx: Transaction) -> Any:
        return order, delivery.attempt, message.id, tx

    assert called(index) == (ORDER, 3, "id-1", LEDGER)


def test_parameters_with_defaults_keep_them() -> None:
    def index(order: OrderPlaced, limit: int = 5, *, message: Message, tx: Transaction, loud: bool = False) -> Any:
        return order, limit, message.id, tx, loud

    assert called(index) == (ORDER, 5, "id-1", LEDGER, False)


def test_positional_only_parameters_are_given_too() -> None:
    def index(order: OrderPlaced, message: Message, /) -> Any:
        return order, message.id

    assert called(index) == (ORDER, "id-1")


def test_further_arguments_stay_empty() -> None:
    def index(order: OrderPlaced, *args: int, **kwargs: int) -> Any:
        return order, args, kwargs

    assert called(index) == (ORDER, (), {})


# --- what counts as taking the payload


def takes_itself(order: OrderPlaced) -> None: ...
def takes_a_supertype(order: Event) -> None: ...
def takes_anything(order: Any) -> None: ...
def takes_an_object(order: object) -> None: ...
def takes_a_union(order: OrderPlaced | GrantPoints) -> None: ...
def takes_annotated(order: Annotated[OrderPlaced, "validated"]) -> None: ...
def takes_a_protocol(order: HasOrderId) -> None: ...
def takes_it_among_others(*orders: OrderPlaced) -> None: ...
def returns_what_only_the_checker_knows(order: OrderPlaced) -> Elsewhere: ...


@pytest.mark.parametrize(
    "function",
    [
        takes_itself,
        takes_a_supertype,
        takes_anything,
        takes_an_object,
        takes_a_union,
        takes_annotated,
        takes_a_protocol,
        takes_it_among_others,
        returns_what_only_the_checker_knows,
    ],
)
@pytest.mark.parametrize("payload_class", [OrderPlaced, OrderShipped])
def test_a_first_parameter_that_holds_the_payload_is_accepted(
    function: Callable[..., Any], payload_class: type
) -> None:
    bind(function, payload_class)


def test_a_payload_class_inside_a_function_is_found_by_its_name() -> None:
    class Local(Event, channel="x"):
        id: int

    def follow(local: Local) -> None: ...

    assert bind(follow, Local).type == "Local"


# --- functions of other sorts


class Indexer:
    def __call__(self, order: OrderPlaced, tx: Transaction) -> Any:
        return self, order, tx

    def index(self, order: OrderPlaced, tx: Transaction) -> Any:
        return self, order, tx


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return "logged", function(*args, **kwargs)

    return wrapper


def test_methods_objects_partials_and_decorated_functions_are_handlers() -> None:
    indexer = Indexer()

    def index(order: OrderPlaced, tx: Transaction, limit: int) -> Any:
        return order, tx, limit

    assert called(indexer.index) == (indexer, ORDER, LEDGER)
    assert called(indexer) == (indexer, ORDER, LEDGER)
    assert called(functools.partial(index, limit=3)) == (ORDER, LEDGER, 3)
    assert called(logged(indexer.index)) == ("logged", (indexer, ORDER, LEDGER))


# --- what is refused


def takes_points(command: GrantPoints) -> None: ...
def takes_a_list(orders: list[OrderPlaced]) -> None: ...
def takes_the_subtype(order: OrderShipped) -> None: ...
def says_nothing(order) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001
def takes_nothing() -> None: ...
def takes_by_name(*, order: OrderPlaced) -> None: ...
def asks_for_a_number(order: OrderPlaced, number: int) -> None: ...
def asks_for_something(order: OrderPlaced, something) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001
def asks_for_a_transaction_maybe(order: OrderPlaced, tx: Transaction | None) -> None: ...
def names_what_only_the_checker_knows(order: OrderPlaced, tx: Elsewhere) -> None: ...
async def waits(order: OrderPlaced) -> None: ...
def yields(order: OrderPlaced) -> Iterator[int]:
    yield 1


async def waits_and_yields(order: OrderPlaced) -> AsyncIterator[int]:
    yield 1


class Waiting:
    async def __call__(self, order: OrderPlaced) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (takes_points, r"handlers?\.takes_points takes GrantPoints and is given OrderPlaced; change the annotation of"),
        (takes_a_list, r"takes_a_list takes list\[.*OrderPlaced\] and is given OrderPlaced"),
        (takes_the_subtype, "takes OrderShipped and is given OrderPlaced"),
        (says_nothing, "does not say what it takes; annotate its first parameter: order: OrderPlaced"),
        (takes_nothing, r"takes no payload; give it a first parameter: def takes_nothing\(payload: OrderPlaced\)"),
        (takes_by_name, "takes no payload; give it a first parameter"),
        (asks_for_a_number, "nothing gives its parameter 'number'; annotate it with Transaction, Message or Delivery"),
        (asks_for_something, "nothing gives its parameter 'something'"),
        (asks_for_a_transaction_maybe, "nothing gives its parameter 'tx'"),
        (names_what_only_the_checker_knows, "'Elsewhere' of 'tx' cannot be resolved: .*outside of `if TYPE_CHECKING:`"),
        (waits, "is a coroutine function; handlers are plain functions so far"),
        (yields, "is a generator: calling it would run nothing"),
        (waits_and_yields, "is an asynchronous generator"),
        (Waiting(), "is a coroutine function"),
        (logged(waits), "is a coroutine function"),
        (functools.partial(waits), "is a coroutine function"),
        (Indexer, "cannot be a handler; a handler is a function"),
        (42, "42 cannot be a handler; a handler is a function"),
    ],
)
def test_a_function_that_could_not_be_called_is_refused(function: Any, sentence: str) -> None:
    with pytest.raises(DeclarationError, match=sentence):
        bind(function, OrderPlaced)


def test_what_is_no_payload_class_has_no_handler() -> None:
    with pytest.raises(DeclarationError, match="is no payload class"):
        bind(takes_anything, Done)
