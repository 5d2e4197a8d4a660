"""What operators tell the relays, under load: pause and resume, a rate, a batch size."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from postroom.messaging.kafka import connect
from postroom.outbox.database import open_store


@pytest.fixture
def both(workload: Any, steps: Any, relays: Callable[..., Any], eventually: Any) -> tuple[Any, Any]:
    """Two relays that share the log. Answers come late, so that something is in flight all the time."""
    seen = steps, type(steps)()
    kafka = connect(workload.broker.options_for(options={"linger_ms": 50}))
    for each in seen:
        relays(workload, kafka=kafka, observer=each)
    eventually(
        lambda: all(each.of("claimed") and len(each.of("claimed")[-1]["shards"]) == 8 for each in seen), "half each"
    )
    return seen


@pytest.fixture
def store(workload: Any) -> Any:
    store = open_store(workload.url)
    yield store
    store.close()


def total(seen: Any, step: str = "published") -> int:
    return sum(facts["count"] for each in seen for facts in each.of(step))


def test_a_pause_holds_everything_back_and_a_resume_loses_and_doubles_nothing(
    workload: Any, store: Any, both: Any, writing: Any, eventually: Any
) -> None:
    with writing(workload):
        eventually(lambda: total(both) > 200, "under load")
        assert store.pause(None, "maintenance", "operator")
        for each in both:
            each.await_step("held_back")
        arrived, written = len(workload.arrived()), workload.sent.total()
        eventually(lambda: workload.sent.total() > written + 300, "many more are written")
        assert len(workload.arrived()) == arrived
        assert store.resume(None, "operator")
        before = [total([each]) for each in both]
        eventually(lambda: all(total([each]) > count for each, count in zip(both, before, strict=True)), "both go on")
    eventually(lambda: workload.unsettled() == 0, "all is settled")

    assert workload.check(duplicates=0) == 0


def test_a_paused_topic_stands_still_while_others_go_on_and_goes_on_in_order(
    workload: Any, store: Any, both: Any, writing: Any, eventually: Any
) -> None:
    other = replace(workload, topic=f"{workload.topic}-other", sent=type(workload.sent)(), ids={})
    with writing(workload), writing(other):
        eventually(lambda: total(both) > 200, "under load")
        assert store.pause(workload.topic, "their consumer is broken", "operator")
        eventually(
            lambda: all(any(facts["parked"] for facts in each.of("settled")) for each in both), "it stands still"
        )
        arrived, written, others = len(workload.arrived()), workload.sent.total(), len(other.arrived())
        eventually(lambda: workload.sent.total() > written + 300, "many more are written")
        eventually(lambda: len(other.arrived()) > others + 300, "the other goes on")
        assert len(workload.arrived()) == arrived
        assert store.resume(workload.topic, "operator")
        eventually(lambda: len(workload.arrived()) > arrived + 300, "it goes on, under load")
    eventually(lambda: workload.unsettled() == 0 and not store.parked(), "all is settled")

    assert workload.check(duplicates=0) == 0
    assert other.check(duplicates=0) == 0


def test_a_rate_limits_all_relays_together_and_a_batch_size_each_batch(
    workload: Any, store: Any, both: Any, eventually: Any
) -> None:
    assert store.pause(None, "until they see the limit", "operator")
    for each in both:
        each.await_step("held_back")
    assert store.limit(200.0, 7, "operator")
    workload.publish(3_000, keys=100)
    assert store.resume(None, "operator")
    eventually(lambda: all(each.of("published") for each in both), "both go on")
    before, began = total(both), time.monotonic()
    eventually(lambda: total(both) >= before + 600, "three seconds' worth")
    rate = (total(both) - before) / (time.monotonic() - began)
    sizes = [facts["count"] for each in both for facts in each.of("read")]
    assert store.limit(None, None, "operator")
    eventually(lambda: workload.unsettled() == 0, "without a limit the rest is quick", 10)

    assert rate == pytest.approx(200, rel=0.25)
    assert max(sizes) <= 7
    assert workload.check(duplicates=0) == 0
