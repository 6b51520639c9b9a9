"""Topics of Apache Kafka, through librdkafka."""

from yeondong.messaging.brokers.kafka.broker import KafkaBroker as KafkaBroker
from yeondong.messaging.brokers.kafka.client import Cluster as Cluster
