"""How a relay remembers what it has sent: by each row's status, or by a position."""

from yeondong.outbox.markings.position import PositionSource
from yeondong.outbox.markings.status import StatusSource

__all__ = ["PositionSource", "StatusSource"]
