"""Records that no Postroom wrote: whoever may write to a topic can make them. They cost their own key, nothing else."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from postroom.inbox import Context, Inbox
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Event


class Known(Event, topic="hostile", key="key", type="n"):
    key: str
    number: int


class _NoText(str):
    """A header name that goes over the wire as bytes which are no UTF-8."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"\xff\xfe\x00"


def record(topic: str, name: str, value: bytes | None = None, headers: Any = ()) -> OutgoingRecord:
    payload = json.dumps({"key": name, "number": 1}).encode() if value is None else value
    return OutgoingRecord(topic, name.encode(), payload, [("ce_id", name.encode()), ("ce_type", b"n"), *headers])


HANDLED: dict[str, dict[str, Any]] = {
    "many-headers": {"headers": [(f"h{n}", b"x") for n in range(10_000)]},
    "one-name": {"headers": [("same", b"x")] * 10_000},
    "large-header": {"headers": [("h", b"x" * 900_000)]},
    "long-name": {"headers": [("n" * 30_000, b"x")]},
    "no-text": {"headers": [("binary", bytes(range(256))), ("correlation_id", b"\xff\x00"), ("traceparent", b"\x00")]},
    "empty-name": {"headers": [("", b"x")]},
    "zero": {"headers": [("a\x00b", b"\x00")]},
}
REFUSED: dict[str, dict[str, Any]] = {
    "deep": {"value": b"[" * 500_000},
    "deep-object": {"value": b'{"a":' * 100_000},
    "large-number": {"value": b'{"key": "k", "number": ' + b"9" * 100_000 + b"}"},
    "infinite": {"value": b'{"key": "k", "number": Infinity}'},
    "no-json": {"value": b"\x80\x04\x95pickle"},
    "lone-surrogate": {"value": b'{"key": "\\ud800", "number": 1, "x": "\\u0000"}'},
    "long-id": {"value": b"{}", "headers": [("ce_specversion", b"1.0"), ("ce_id", b"i" * 100_000)]},
    "many-headers-refused": {"value": b"{}", "headers": [(f"h{n}", b"x") for n in range(10_000)]},
}


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
def test_a_hostile_record_costs_its_own_key_and_nothing_else(
    ledger: Any, eventually: Callable[..., None], client: str
) -> None:
    ledger.create(1)
    inbox: Inbox = ledger.inbox()
    seen: list[str] = []

    @inbox.handler(ledger.topic, Known, attempts=1)
    def handle(event: Known, ctx: Context) -> None:
        seen.append(event.key)
        ctx.publish(Known(key=event.key, number=2))

    for name, given in {**HANDLED, **REFUSED}.items():
        ledger.put(record(ledger.topic, name, **given))
    handled = [*HANDLED, "good"]
    if client == "kafka-python":  # confluent-kafka 2.16 ends the process at such a name (SECURITY.md)
        ledger.put(record(ledger.topic, "bad-name", headers=[(_NoText("x"), b"x")]))
        handled.append("bad-name")
    ledger.put(record(ledger.topic, "good"))
    ledger.start(inbox, kafka=ledger.kafka(client))
    eventually(lambda: "good" in seen, f"the last message is handled; {seen}")
    eventually(lambda: ledger.closed() == len(handled) + len(REFUSED), "each is closed")

    assert sorted(seen) == sorted(handled)
    assert ledger.outcomes() == {"handled": len(handled), "dead-lettered": len(REFUSED)}
    letters = ledger.query("SELECT key, jsonb_array_length(headers) FROM postroom.outbox WHERE topic LIKE '%%.dlq'")
    assert {bytes(key).decode() for key, _ in letters} == set(REFUSED), "exactly one dead letter each"
    assert dict(letters)[b"many-headers-refused"] > 10_000, "with all that it came with"


def test_of_a_name_that_is_no_text_what_can_be_read_is_left(ledger: Any) -> None:
    ledger.put(record(ledger.topic, "k", headers=[("before", b"1"), (_NoText("x"), b"2"), ("after", b"3")]))
    with closing(ledger.kafka().reader()) as reader:
        [found] = reader.read(ledger.topic)
    assert list(found.headers)[2:] == [("before", b"1"), ("??\x00", b"2"), ("after", b"3")]
    assert json.loads(found.value) == {"key": "k", "number": 1}
