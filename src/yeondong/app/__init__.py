"""What a user declares, and the only place where drivers, flows and settings meet."""

from yeondong.app.application import Outbox, Yeondong

__all__ = ["Outbox", "Yeondong"]
