"""A durable log in an SQLite file, shared by several processes."""

from yeondong.messaging.brokers.sqlite.broker import SqliteBroker as SqliteBroker
from yeondong.messaging.brokers.sqlite.retention import Retention as Retention
from yeondong.messaging.brokers.sqlite.tables import broker_tables as broker_tables
