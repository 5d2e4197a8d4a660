"""Which dead letters are found, planned and refused; each is replayed once. On SQLite, with topics in memory."""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.dlq import (
    Filter,
    Ledger,
    Place,
    fetch,
    find_topics,
    make_plan,
    newest,
    oldest,
    read,
    run_plan,
)
from postroom.messaging.errors import SchemaMissing, UnknownTopic, UsageError
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import schema

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
DLQ = "orders.billing.dlq"


@dataclass
class Records:
    """See ``ports.TopicReader``: topics in memory, two partitions each."""

    topics: dict[str, list[ReceivedRecord]] = field(default_factory=dict)
    read_records: int = 0

    def add(self, n: int, topic: str = DLQ, partition: int = 0, at: int | None = None, **told: Any) -> Place:
        kept = self.topics.setdefault(topic, [])
        offset = sum(record.partition.number == partition for record in kept)
        headers = {
            "ce_id": f"id-{n}",
            "ce_type": "shop.order.placed",
            "postroom_dlq_exception": "builtins.ValueError",
            "postroom_dlq_replay_count": "0",
            "__dlq.errors.topic": "orders",
            "__dlq.errors.group": "billing",
            "__dlq.errors.message": "no stock",
        } | told
        pairs = [(name, str(value).encode()) for name, value in headers.items() if value is not None]
        moment = START + timedelta(minutes=n if at is None else at)
        kept.append(ReceivedRecord(Partition(topic, partition), offset, b"k%d" % (n % 2), b"{}", pairs, moment))
        return Place(topic, partition, offset)

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        if topic not in self.topics:
            raise UnknownTopic(topic)
        return {
            number: (0, sum(record.partition.number == number for record in self.topics[topic])) for number in (0, 1)
        }

    def read(self, topic: str, start: Mapping[int, int] | None = None) -> Iterator[ReceivedRecord]:
        self.offsets(topic)
        for record in self.topics[topic]:
            if record.offset >= (start or {}).get(record.partition.number, 0):
                self.read_records += 1
                yield record

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/shop.db"
    schema.upgrade(url)
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def outbox(url: str) -> list[tuple[str, str]]:
    """Id of the row and topic, in the order of the log."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        return connection.execute("SELECT headers, topic FROM postroom_outbox ORDER BY position").fetchall()
    finally:
        connection.close()


def replay(records: Records, ledger: Ledger, **options: Any) -> Any:
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"}, **options)
    return run_plan(plan, records, ledger, actor="ada@host", batch=3)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), True),
        (Filter(topic="orders", group="billing", type="shop.order.placed", key=b"k0", message_id="id-4"), True),
        (Filter(type="shop.*", group="bill*", error="VALUEerror"), True),
        (Filter(error="NO stock"), True),
        (Filter(since=START + timedelta(minutes=4), until=START + timedelta(minutes=5)), True),
        (Filter(topic="order"), False),
        (Filter(group="bill"), False),
        (Filter(type="shop"), False),
        (Filter(key=b"k1"), False),
        (Filter(message_id="id-40"), False),
        (Filter(error="TimeoutError"), False),
        (Filter(since=START + timedelta(minutes=4, seconds=1)), False),
        (Filter(until=START + timedelta(minutes=4)), False),
    ],
)
def test_a_filter_takes_what_it_says(records: Records, wanted: Filter, found: bool) -> None:
    records.add(4)
    assert [letter.message_id for letter in read(records, [DLQ], wanted)] == (["id-4"] if found else [])


def test_a_letter_without_an_original_topic_is_shown_for_any(records: Records) -> None:
    untold: dict[str, Any] = {"__dlq.errors.topic": None}
    records.add(1, **untold)
    assert len(list(read(records, [DLQ], Filter(topic="orders")))) == 1


def test_dead_letter_topics_are_found_by_suffix_by_original_or_by_name() -> None:
    existing = ["orders", "orders.billing.dlq", "orders.mail.dlq", "orders.DLT", "payments.billing.dlq", "empty"]
    assert find_topics(existing) == ["orders.billing.dlq", "orders.mail.dlq", "payments.billing.dlq"]
    assert find_topics(existing, topic="orders") == ["orders.billing.dlq", "orders.mail.dlq"]
    assert find_topics(existing, topic="orders.mail.dlq") == ["orders.mail.dlq"]
    assert find_topics(existing, named=["orders.DLT"]) == ["orders.DLT"]
    assert find_topics(existing, topic="empty") == []
    with pytest.raises(UnknownTopic, match="nosuch"):
        find_topics(existing, topic="nosuch")
    with pytest.raises(UnknownTopic, match="nosuch"):
        find_topics(existing, named=["nosuch"])


def test_the_newest_come_first_without_reading_all(records: Records) -> None:
    for n in range(3_000):
        records.add(n, partition=n % 2)
    found = newest(records, [DLQ], Filter(), limit=5)
    assert [letter.message_id for letter in found] == [f"id-{n}" for n in range(2_999, 2_994, -1)]
    assert records.read_records < 1_000


def test_the_newest_are_right_where_a_partition_is_long_quiet_or_sparse(records: Records) -> None:
    for n in range(600):
        records.add(n, partition=0, at=2 * n + n % 3)  # a little out of order
    for n in range(600, 1_000):
        records.add(n, partition=1, at=n if n < 995 else 1_190 + n)  # long quiet, then a burst
    expected = sorted(records.topics[DLQ], key=lambda record: record.timestamp)[-7:]
    found = newest(records, [DLQ], Filter(), limit=7)
    assert [letter.timestamp for letter in found] == [record.timestamp for record in reversed(expected)]
    rare = newest(records, [DLQ], Filter(message_id="id-3"), limit=7)
    assert [letter.message_id for letter in rare] == ["id-3"]


def test_the_oldest_come_first_over_all_partitions(records: Records) -> None:
    for n in range(10):
        records.add(n, partition=n % 2)
    assert [letter.message_id for letter in oldest(records, [DLQ], Filter(), 3)] == ["id-0", "id-1", "id-2"]


def test_a_letter_is_fetched_by_its_place(records: Records) -> None:
    places = [records.add(n, partition=n % 2) for n in range(6)]
    assert [fetch(records, place).message_id for place in places] == [f"id-{n}" for n in range(6)]
    for nowhere in (Place(DLQ, 0, 99), Place(DLQ, 9, 0)):
        with pytest.raises(UsageError, match="no dead letter at"):
            fetch(records, nowhere)


def test_a_replay_run_twice_replays_once_and_writes_it_down(records: Records, ledger: Ledger, url: str) -> None:
    places = [records.add(n, partition=n % 2) for n in range(8)]
    first = replay(records, ledger)
    second = replay(records, ledger)
    assert (first.replayed, first.already) == (8, 0)
    assert (second.replayed, second.already) == (0, 0)
    assert len(outbox(url)) == 8
    actions = ledger.last_actions(places)
    assert {(action.action, action.actor) for action in actions.values()} == {("replay", "ada@host")}
    assert set(actions) == set(places)


def test_a_partition_is_replayed_in_its_order(records: Records, ledger: Ledger, url: str) -> None:
    for n in range(10):
        records.add(n, partition=n % 2, at=-n)
    replay(records, ledger)
    ids = [headers.split('"id-')[1][0] for headers, _ in outbox(url)]
    assert [n for n in ids if int(n) % 2 == 0] == ["0", "2", "4", "6", "8"]
    assert [n for n in ids if int(n) % 2 == 1] == ["1", "3", "5", "7", "9"]


def test_what_somebody_else_replays_meanwhile_is_left_out(records: Records, ledger: Ledger, url: str) -> None:
    for n in range(6):
        records.add(n)
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"})
    assert replay(records, ledger, limit=4).replayed == 4
    done = run_plan(plan, records, ledger, actor="eve@host")
    assert (done.replayed, done.already) == (2, 4)
    assert len(outbox(url)) == 6


def test_again_replays_again_but_two_at_once_only_once(records: Records, ledger: Ledger, url: str) -> None:
    records.add(1)
    replay(records, ledger)
    plans = [make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"}, again=True) for _ in ("ada", "eve")]
    outcomes = [run_plan(plan, records, ledger, actor="x") for plan in plans]
    assert [(done.replayed, done.already) for done in outcomes] == [(1, 0), (0, 1)]
    assert len(outbox(url)) == 2


def test_a_limit_takes_the_oldest_and_of_a_partition_the_first(records: Records, ledger: Ledger) -> None:
    records.add(1, partition=0, at=50)
    records.add(2, partition=0, at=10)  # its clock was behind; it must not overtake the one before it
    records.add(3, partition=1, at=20)
    records.add(4, partition=1, at=60)
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"}, limit=2)
    assert [each.message_id for each in plan.replay] == ["id-3", "id-1"]


def test_what_arrives_after_the_plan_is_not_in_it(records: Records, ledger: Ledger, url: str) -> None:
    records.add(1)
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"})
    records.add(2)
    assert run_plan(plan, records, ledger, actor="x").replayed == 1
    assert len(outbox(url)) == 1


def test_what_retention_took_meanwhile_is_told(records: Records, ledger: Ledger) -> None:
    gone = records.add(1)
    records.add(2)
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"})
    del records.topics[DLQ][0]
    done = run_plan(plan, records, ledger, actor="x")
    assert (done.replayed, done.gone) == (1, [gone])


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"__dlq.errors.topic": None}, "unknown"),
        ({"__dlq.errors.topic": "no topic!"}, "unusable"),
        ({"__dlq.errors.topic": DLQ}, "itself"),
        ({"__dlq.errors.topic": "deleted"}, "'deleted' does not exist"),
        ({"postroom_dlq_replay_count": 3}, "replayed 3 times"),
        ({"postroom_dlq_replay_count": None, "postroom_replay_count": 3}, "replayed 3 times"),
    ],
)
def test_what_cannot_go_back_is_refused_with_a_reason_and_never_sent(
    records: Records, ledger: Ledger, url: str, told: Mapping[str, Any], reason: str
) -> None:
    records.add(1, **told)
    records.add(2)
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders", DLQ})
    assert [each.message_id for each in plan.refused] == ["id-1"]
    assert reason in (plan.refused[0].reason or "")
    run_plan(plan, records, ledger, actor="x")
    assert [topic for _, topic in outbox(url)] == ["orders"]


def test_a_share_groups_letter_without_a_copy_is_refused(records: Records, ledger: Ledger) -> None:
    headers = [("__dlq.errors.topic", b"orders"), ("__dlq.errors.group", b"billing")]
    records.topics[DLQ] = [ReceivedRecord(Partition(DLQ, 0), 0, None, None, headers, START)]
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"})
    assert "no copy" in (plan.refused[0].reason or "")


def test_a_batch_that_fails_leaves_neither_message_nor_action(records: Records, ledger: Ledger, url: str) -> None:
    places = [records.add(n) for n in range(6)]
    plan = make_plan(read(records, [DLQ], Filter()), ledger, existing={"orders"})
    seen: list[str] = []

    def fail(step: str, /, **_: Any) -> None:
        seen.append(step)
        if seen.count("replaying") == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_plan(plan, records, ledger, actor="x", batch=2, observer=fail)
    assert len(outbox(url)) == len(ledger.last_actions(places)) == 2
    assert replay(records, ledger).replayed == 4
    assert len(outbox(url)) == 6


def test_without_tables_it_says_so(records: Records, tmp_path: Path) -> None:
    records.add(1)
    ledger = Ledger(f"sqlite:///{tmp_path}/empty.db")
    try:
        with pytest.raises(SchemaMissing, match="postroom init"):
            replay(records, ledger)
        with pytest.raises(SchemaMissing, match="postroom init"):
            ledger.check()
    finally:
        ledger.close()
