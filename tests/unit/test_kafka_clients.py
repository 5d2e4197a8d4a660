"""Choosing a Kafka client, and what of it needs no broker."""

import random
import sys
from typing import Any

import pytest
from kafka.partitioner import murmur2 as kafka_pythons_murmur2

from postroom.cli.settings import load
from postroom.messaging.confluent.client import ConfluentKafka
from postroom.messaging.confluent.publication import SentRecords
from postroom.messaging.errors import ConfigurationError, Interrupted
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.kafkapython.client import KafkaPython
from postroom.messaging.partitioner import murmur2, positive_hash


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, signed: int) -> None:
    """From Kafka's own tests (org.apache.kafka.common.utils.UtilsTest)."""
    assert murmur2(key) == signed % 2**32
    assert positive_hash(key) == signed & 0x7FFFFFFF


def test_murmur2_is_right_at_every_length() -> None:
    source = random.Random(7)
    for length in range(70):
        key = source.randbytes(length)
        assert murmur2(key) == kafka_pythons_murmur2(key) % 2**32


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kafka-python", KafkaPython), ("confluent-kafka", ConfluentKafka), ("confluent", ConfluentKafka)],
)
def test_a_client_is_chosen_by_name(name: str, kind: type) -> None:
    assert isinstance(connect(KafkaOptions("127.0.0.1:1", name)), kind)


def test_a_client_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [
        name for name in sys.modules if name.startswith(("confluent_kafka", "postroom.messaging.confluent"))
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'postroom\[confluent\]'"):
        connect(KafkaOptions("127.0.0.1:1", "confluent"))


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
def test_an_option_of_the_library_wins_over_the_setting(client: str) -> None:
    name = {"kafka-python": "compression_type", "confluent-kafka": "compression.type"}[client]
    kafka: Any = connect(KafkaOptions("127.0.0.1:1", client, {name: "gzip"}, "none"))

    assert kafka._options[name] == "gzip"


def test_names_with_dots_survive_the_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """TOML and ``--set`` make tables of them."""
    path = tmp_path_factory.mktemp("settings") / "postroom.toml"
    path.write_text(
        'kafka_client = "confluent"\nkafka_compression = "lz4"\n[kafka_options]\nlinger.ms = 5\nsasl.password = "a"\n'
    )
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", '{"sasl.password": "b"}')
    loaded = load({"kafka_options": {"batch": {"size": "9"}}}, str(path))

    assert loaded.settings.kafka_options == {"linger.ms": 5, "sasl.password": "b", "batch.size": "9"}
    assert (loaded.settings.kafka_client, loaded.settings.kafka_compression) == ("confluent", "lz4")
    assert loaded.origin("kafka_options", "sasl.password") == "POSTROOM_KAFKA_OPTIONS"


class Gone:
    """A producer that was closed before it heard everything."""

    closed = True
    outstanding = 0

    def poll(self, timeout: float) -> None:
        """Nothing comes any more."""


def test_what_a_closed_producer_never_heard_of_is_not_told_as_acknowledged() -> None:
    gone: Any = Gone()
    publication = SentRecords(gone, 2)
    answers = publication.answers()
    publication.stopped(2, None)

    assert publication.wait(0)
    assert {index: type(error) for index, error in publication.errors().items()} == {0: Interrupted, 1: Interrupted}
    del answers
    assert publication.errors() == {}
