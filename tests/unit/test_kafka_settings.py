"""Where a Kafka cluster is and how it is spoken to: from URL and settings, with nothing secret shown."""

from __future__ import annotations

import pytest

from yeondong.app.drivers import open_broker
from yeondong.errors import SettingsError
from yeondong.messaging.brokers.kafka import Cluster
from yeondong.settings import Settings, list_settings, load_settings

SQLITE = "sqlite:///shop.db"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("kafka://kafka", "kafka:9092"),
        ("kafka://kafka:9093/", "kafka:9093"),
        ("kafka://one,two:9093,[::1]", "one:9092,two:9093,[::1]:9092"),
        ("kafka://[::1]:9094", "[::1]:9094"),
    ],
)
def test_a_url_names_hosts_and_ports(url: str, address: str) -> None:
    assert Cluster.at(url).address == address


@pytest.mark.parametrize(
    "url", ["kafka:", "kafka://", "kafka:kafka:9092", "kafka://a:b", "kafka://a:0", "kafka://a:99999", "kafka://a,"]
)
def test_a_url_that_names_none_says_how_to_write_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"write .*\w:9092"):
        Cluster.at(url)


def test_a_password_does_not_belong_into_the_url_and_is_not_shown() -> None:
    with pytest.raises(SettingsError, match="settings that begin with kafka_") as refused:
        Cluster.at("kafka://shop:secret@kafka:9092")

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("acks=1", "acks in kafka_options cannot be set: the promises"),
        ("enable.idempotence=false", "enable.idempotence in kafka_options cannot be set"),
        ("bootstrap.servers=other:9092", "has a place of its own: the broker's URL"),
        ("sasl.password=secret", "sasl.password in kafka_options has a place of its own: kafka_password"),
        ("compression.type", "'compression.type' in kafka_options is no option; write name=value"),
    ],
)
def test_options_that_promises_rest_on_are_refused(option: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as refused:
        Cluster.at("kafka://kafka", options=[option])

    assert "secret" not in str(refused.value)


def test_an_option_that_librdkafka_does_not_know_is_an_error_of_the_settings() -> None:
    with pytest.raises(SettingsError, match=r'127\.0\.0\.1:1: No such configuration property: "no.such"'):
        Cluster.at("kafka://127.0.0.1:1", options=["no.such=1"]).producer({})


def test_settings_reach_the_client() -> None:
    settings = load_settings(
        environ={
            "YEONDONG_BROKER": "kafka://kafka-1,kafka-2",
            "YEONDONG_KAFKA_SECURITY": "sasl_ssl",
            "YEONDONG_KAFKA_MECHANISM": "PLAIN",
            "YEONDONG_KAFKA_USERNAME": "shop",
            "YEONDONG_KAFKA_PASSWORD": "secret",
            "YEONDONG_KAFKA_OPTIONS": "compression.type=lz4, client.id=shop",
            "YEONDONG_KAFKA_PREFIX": "staging.",
            "YEONDONG_KAFKA_MESSAGE_BYTES": "2000000",
        }
    )
    broker = open_broker(settings, SQLITE)

    assert broker.address == "kafka-1:9092,kafka-2:9092"
    assert broker.traits.max_bytes == 2_000_000 - 16_384
    cluster: Cluster = broker._cluster  # type: ignore[attr-defined]
    assert (cluster.topic("orders"), cluster.group("orders", "search")) == ("staging.orders", "staging.orders/search")
    assert "secret" not in repr(cluster)
    assert cluster.options == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "shop",
        "sasl.password": "secret",
        "compression.type": "lz4",
        "client.id": "shop",
    }


def test_what_is_secret_is_listed_masked() -> None:
    environ = {
        "YEONDONG_KAFKA_SECURITY": "sasl_ssl",
        "YEONDONG_KAFKA_USERNAME": "shop",
        "YEONDONG_KAFKA_PASSWORD": "pass-1",
        "YEONDONG_KAFKA_KEY_PASSWORD": "pass-2",
        "YEONDONG_KAFKA_OPTIONS": "sasl.oauthbearer.client.secret=pass-3,client.id=shop",
    }
    listed = {setting.name: setting.value for setting in list_settings(environ=environ)}

    assert {listed["kafka_password"], listed["kafka_key_password"]} == {"***"}
    assert listed["kafka_options"] == ("sasl.oauthbearer.client.secret=***", "client.id=shop")
    assert listed["kafka_username"] == "shop"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"KAFKA_SECURITY": "sasl_ssl"}, "kafka_security is 'sasl_ssl', and kafka_username or kafka_password is"),
        ({"KAFKA_USERNAME": "shop"}, "kafka_username is set, and kafka_security 'plaintext' does not log in"),
        ({"KAFKA_SECURITY": "tls"}, "kafka_security = 'tls' in YEONDONG_KAFKA_SECURITY cannot be used"),
        ({"KAFKA_MESSAGE_BYTES": "1000"}, "kafka_message_bytes = '1000' in .* cannot be used"),
    ],
)
def test_settings_that_do_not_fit_say_so(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_settings(environ={f"YEONDONG_{name}": value for name, value in environ.items()})


def test_another_way_to_log_in_needs_no_password() -> None:
    settings = Settings(kafka_security="sasl_ssl", kafka_options=("sasl.mechanisms=OAUTHBEARER",))

    assert settings.kafka_options == ("sasl.mechanisms=OAUTHBEARER",)
