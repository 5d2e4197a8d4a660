"""The ledger on real Kafka and PostgreSQL: a letter's whole life, and what brokers do to dead-letter topics."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from postroom.dlq import Caught, Filter, Ledger, await_settled, catch_up, count, each, get, make_plan, run_plan
from postroom.inbox import Context, Inbox, Received
from postroom.messaging.kafka import connect
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import schema
from postroom.outbox.database import open_store
from postroom.relay import Relay, RelaySettings
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

BAD, MENDED = "key-0/1", "key-1/1"


@pytest.fixture
def relay(ledger: Any, relay_settings: dict[str, Any]) -> Iterator[Relay]:
    """One of the ledger's database."""
    relay = Relay(open_store(ledger.url), ledger.kafka(), settings=RelaySettings(**relay_settings))
    relay.start()
    yield relay
    relay.stop()
    assert relay.join(30)


@pytest.mark.usefixtures("relay")
def test_a_replay_is_handled_or_fails_until_it_is_put_aside(ledger: Any, steps: Any, eventually: Any) -> None:
    """By a real inbox; another group of the topic takes no part in it."""
    bad = {BAD, MENDED}
    others: list[str] = []
    inbox: Inbox = ledger.inbox()
    mail = Inbox(f"{ledger.group}-mail")

    @inbox.handler(ledger.topic, attempts=1)
    def charge(_: Received, ctx: Context) -> None:
        if ctx.message_id in bad:
            raise ValueError("no stock")
        ledger.apply(ctx)

    @mail.handler(ledger.topic)
    def send(_: Received, ctx: Context) -> None:
        others.append(ctx.message_id)

    ledger.send(6, keys=3)
    ledger.start(inbox)
    ledger.start(mail)
    topic = f"{ledger.topic}.{ledger.group}.dlq"
    with closing(ledger.kafka().reader()) as reader, closing(Ledger(ledger.url)) as desk:

        def look() -> None:
            catch_up(reader, desk, [topic], max_replays=2)

        def deaths(message: str) -> list[str]:
            return [str(letter.state) for letter in each(desk, Filter(message_id=message), sort="arrival")]

        def reached(*states: str) -> bool:
            look()
            return deaths(BAD) == [*states]

        eventually(lambda: reached("dead") and deaths(MENDED) == ["dead"], "both died")
        for states in (["failed-again", "dead"], ["failed-again", "failed-again", "quarantined"]):
            existing = {ledger.topic}
            plan, _ = make_plan(desk, Filter(), existing=existing, actor="ada@host", told="all")
            assert plan is not None
            bad.discard(MENDED)
            run_plan(desk, plan.id, actor="ada@host")
            settled = await_settled(desk, plan.id, 60, look=look)
            assert settled.counts["replayed"] == 0
            eventually(lambda states=states: reached(*states), f"the bad one is {states}")
            assert deaths(MENDED) == ["confirmed"]
        assert make_plan(desk, Filter(), existing=existing, actor="x", told="all")[0] is None
        latest = get(desk, BAD)[0]
        assert (latest.rounds, latest.same_failures, latest.replays) == (2, 2, 2)
        assert ledger.query("SELECT outcome, replays FROM postroom.inbox WHERE message_id = %s AND consumer_group = %s",
                            BAD, ledger.group) == [("dead-lettered", 2)]  # fmt: skip
    expected = {key: [n for n in numbers if f"{key}/{n}" != BAD] for key, numbers in ledger.orders.items()}
    assert {key: sorted(numbers) for key, numbers in ledger.effects().items()} == expected
    skipped = [facts["message_id"] for facts in steps.of("not_for_group")]
    eventually(
        lambda: len(steps.of("not_for_group")) == 3, f"the other group passes by all three replays, not {skipped}"
    )
    assert sorted(others) == sorted(f"{key}/{n}" for key, numbers in ledger.orders.items() for n in numbers)


class Topic:
    """A dead-letter topic of one partition on the real broker."""

    def __init__(self, broker: Broker, name: str, ledger: Ledger) -> None:
        self.name, self.ledger = name, ledger
        self.kafka = connect(broker.options_for())
        self.admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers, **broker.client_config)
        self.reader = self.kafka.reader()

    def create(self, **config: str) -> None:
        with closing(self.kafka.topics()) as topics:
            assert topics.create(self.name, 1, 1, config)

    def put(self, *numbers: int) -> None:
        with_ids = [OutgoingRecord(self.name, b"k", b"%d" % n, [("ce_id", b"id-%d" % n)]) for n in numbers]
        publisher = self.kafka.publisher()
        publication = publisher.send(with_ids)
        assert publication.wait(30)
        assert publication.errors() == {}
        publisher.close(5)

    def bounds(self) -> tuple[int, int] | None:
        with closing(self.kafka.topics()) as topics:
            return self.reader.offsets(self.name)[0] if self.name in topics.partitions() else None

    def catch_up(self) -> Caught:
        return catch_up(self.reader, self.ledger, [self.name])

    def ids(self) -> list[str]:
        return [letter.message_id for letter in each(self.ledger, Filter(topic=self.name), sort="arrival")]

    def close(self) -> None:
        self.reader.close()
        self.admin.close()


@pytest.fixture
def dead_letters(
    postroom_real_kafka: Broker, postroom_postgres: Database, postroom_topic: Callable[[str], str]
) -> Iterator[Topic]:
    schema.upgrade(postroom_postgres.url)
    with (
        closing(Ledger(postroom_postgres.url)) as ledger,
        closing(Topic(postroom_real_kafka, f"{postroom_topic('orders')}.dlq", ledger)) as topic,
    ):
        yield topic


def test_a_topic_that_the_broker_made_anew_is_read_from_its_beginning(dead_letters: Topic, eventually: Any) -> None:
    topic = dead_letters
    topic.create()
    topic.put(1, 2, 3)
    assert topic.catch_up().read == 3
    topic.admin.delete_topics([topic.name])
    eventually(lambda: topic.bounds() is None, "it is gone")
    assert topic.catch_up().gone == [topic.name]
    topic.create()
    topic.put(4, 5, 6, 7)
    caught = topic.catch_up()
    assert (caught.renewed, caught.read) == ([f"{topic.name}/0"], 4)
    assert topic.catch_up().read == 0
    assert topic.ids() == [f"id-{n}" for n in range(1, 8)]
    assert count(topic.ledger, Filter()) == {"dead": 7}


def test_what_the_brokers_retention_took_is_counted(dead_letters: Topic) -> None:
    topic = dead_letters
    topic.create()
    topic.put(*range(5))
    assert topic.catch_up().read == 5
    topic.put(*range(5, 12))
    topic.admin.delete_records({TopicPartition(topic.name, 0): 8})
    assert topic.bounds() == (8, 12)
    caught = topic.catch_up()
    assert (caught.missed, caught.read, caught.renewed) == (3, 4, [])
    assert topic.ids() == [f"id-{n}" for n in (0, 1, 2, 3, 4, 8, 9, 10, 11)]


def test_a_reader_reads_a_topic_again_and_from_anywhere(dead_letters: Topic) -> None:
    """More than one poll takes at once: what the client holds of an earlier read must not be in the way."""
    dead_letters.create()
    dead_letters.put(*range(3_000))
    for window in (1_000, 3_000, 600, 3_000):
        start = {0: 3_000 - window}
        found = [record.offset for record in dead_letters.reader.read(dead_letters.name, start)]
        assert found == list(range(3_000 - window, 3_000))
