"""Several relays on one log: each shard has one owner, and nothing is published twice when it changes."""

from typing import Any

import pytest

from postroom.messaging.errors import DatabaseUnavailable
from postroom.messaging.kafka import connect
from postroom.outbox.postgres_reader import PostgresReader

#: Answers come late, so that something is in flight all the time.
LATE = {"linger_ms": 30}


def shards(steps: Any) -> list[int]:
    return steps.of("claimed")[-1]["shards"] if steps.of("claimed") else []


def test_relays_share_the_shards_as_they_come_and_go_under_load_and_publish_nothing_twice(
    workload: Any, steps: Any, relays: Any, writing: Any, eventually: Any
) -> None:
    kafka = connect(workload.broker.options_for(options=LATE))
    seen = [steps, type(steps)(), type(steps)()]

    def sizes(*those: Any) -> list[int]:
        return sorted(len(shards(each)) for each in those)

    with writing(workload):
        first = relays(workload, kafka=kafka, owner="first")
        eventually(lambda: sizes(seen[0]) == [16], "the first has all")
        second = relays(workload, kafka=kafka, observer=seen[1], owner="second")
        eventually(lambda: sizes(*seen[:2]) == [8, 8], "half each")
        relays(workload, kafka=kafka, observer=seen[2], owner="third")
        eventually(lambda: sizes(*seen) == [5, 5, 6], "a third each")
        for each in seen[:2]:
            history = [len(facts["shards"]) for facts in each.of("claimed")]
            assert history == sorted(history, reverse=True), "it took back what it had handed over"
        first.stop()
        assert first.join(30)
        eventually(lambda: sizes(*seen[1:]) == [8, 8], "those left share again")
        second.stop()
        assert second.join(30)
        eventually(lambda: sizes(seen[2]) == [16], "the last has all")
    eventually(lambda: workload.unsettled() == 0, "all is settled")

    assert not any(each.of("fenced") for each in seen)
    assert workload.check(duplicates=0) == 0


def test_what_kafka_has_is_settled_before_its_shards_are_handed_over(
    workload: Any, steps: Any, relays: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database cuts the connection while another relay joins, which must not publish again what Kafka has."""
    settle, claim = PostgresReader.settle, PostgresReader.claim
    broken: list[Any] = []
    joined: list[Any] = []

    def settle_or_break(self: PostgresReader, batches: Any, refusals: Any = ()) -> None:
        if self._owner == "first" and not joined:
            broken.append(batches)
            raise DatabaseUnavailable("cut")
        settle(self, batches, refusals)

    def claim_and_tell(self: PostgresReader, report: Any = None) -> Any:
        claimed = claim(self, report)
        if self._owner == "second":
            joined.append(claimed)
        return claimed

    monkeypatch.setattr(PostgresReader, "settle", settle_or_break)
    monkeypatch.setattr(PostgresReader, "claim", claim_and_tell)
    workload.publish(200)
    relays(workload, owner="first")
    eventually(lambda: bool(broken), "the first cannot settle")
    second = type(steps)()
    relays(workload, observer=second, owner="second")
    eventually(lambda: (len(shards(steps)), len(shards(second))) == (8, 8), "half each")
    eventually(lambda: workload.unsettled() == 0, "all is settled")

    workload.check(duplicates=0)
