"""yeondong: asynchronous integration between backend systems, that loses nothing and says so when it can't promise."""

from yeondong.app import Outbox, Yeondong
from yeondong.core.backoff import Backoff
from yeondong.core.delivery import Delivery, Done, Outcome, Park, Retry
from yeondong.core.message import Kind, Message
from yeondong.core.store import Transaction
from yeondong.errors import (
    ConnectionLost,
    DeclarationError,
    MessageRefused,
    PublishTimedOut,
    TransactionError,
    Unavailable,
    YeondongError,
)
from yeondong.messaging.messages import Command, CommandMixin, Event, EventMixin

__all__ = [
    "Backoff",
    "Command",
    "CommandMixin",
    "ConnectionLost",
    "DeclarationError",
    "Delivery",
    "Done",
    "Event",
    "EventMixin",
    "Kind",
    "Message",
    "MessageRefused",
    "Outbox",
    "Outcome",
    "Park",
    "PublishTimedOut",
    "Retry",
    "Transaction",
    "TransactionError",
    "Unavailable",
    "Yeondong",
    "YeondongError",
]
