"""Spans: what they tell, how a trace goes on, and that nothing of it is there where nobody asked."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from postroom.dlq.letter import DeadLetter
from postroom.messaging.correlation import inheriting
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.errors import Interrupted
from postroom.messaging.headers import first, load
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord
from postroom.messaging.tracing import MAX_LINKS, Consumed, processing, sending
from postroom.outbox import Message, Outbox

OUTBOX = Outbox(source="/test")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "4711-hunter2"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What was traced."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(span_limits=SpanLimits(max_links=1_000))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def headers(**own: str) -> dict[str, str]:
    """The headers of a message as its row has them."""
    message = Message(topic="orders", key=SECRET, payload=SECRET.encode(), type="t", headers=own)
    return {name: value.decode() for name, value in load(OUTBOX.entry(message).headers)[0]}


def consumed(offset: int = 7, **told: str) -> Consumed:
    pairs = [(name, value.encode()) for name, value in told.items()]
    record = ReceivedRecord(Partition("orders", 3), offset, SECRET.encode(), SECRET.encode(), pairs, NOW)
    return Consumed(record, f"id-{offset}", "story", 2)


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def number(span: ReadableSpan) -> str:
    return trace.format_trace_id(context_of(span).trace_id)


def test_publishing_is_a_span_under_the_current_one_and_its_context_goes_along(spans: InMemorySpanExporter) -> None:
    with trace.get_tracer("app").start_as_current_span("request") as request:
        found = headers()
    create, _ = spans.get_finished_spans()
    assert (create.name, create.kind) == ("create orders", SpanKind.PRODUCER)
    assert create.parent == request.get_span_context()
    _, trace_id, span_id, _ = found["traceparent"].split("-")
    assert trace_id == number(create)
    assert span_id == trace.format_span_id(context_of(create).span_id)
    told = dict(create.attributes or {})
    assert told["messaging.system"] == "kafka"
    assert told["messaging.operation.type"] == "create"
    assert told["messaging.destination.name"] == "orders"
    assert len(str(told["messaging.message.id"])) == 36


def test_a_context_that_the_application_gives_itself_is_left_alone(spans: InMemorySpanExporter) -> None:
    assert headers(traceparent=REMOTE)["traceparent"] == REMOTE
    assert spans.get_finished_spans() == ()


def test_without_a_provider_there_is_no_header_and_what_is_inherited_goes_on() -> None:
    assert "traceparent" not in headers()
    with inheriting({"traceparent": REMOTE}):
        assert headers()["traceparent"] == REMOTE


def test_opentelemetry_is_not_imported_before_somebody_else_does() -> None:
    script = (
        "import sys, postroom.outbox as o, postroom.inbox, postroom.relay, postroom.cli.root\n"
        "o.Outbox(source='/x').entry(o.Message(topic='t', key='k', payload=b'', type='t'))\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_handler_runs_in_a_span_of_the_messages_trace_and_what_it_publishes_goes_on(
    spans: InMemorySpanExporter,
) -> None:
    with processing("billing", "charge", [consumed(traceparent=REMOTE)]), inheriting({"traceparent": REMOTE}):
        found = headers()
    create, process = spans.get_finished_spans()
    assert (process.name, process.kind) == ("process orders", SpanKind.CONSUMER)
    assert process.parent is not None
    assert trace.format_span_id(process.parent.span_id) == "b7ad6b7169203331"
    assert create.parent == process.get_span_context()
    assert found["traceparent"].split("-")[1] == number(process) == "0af7651916cd43dd8448eb211c80319c"
    assert dict(process.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "orders",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "messaging.consumer.group.name": "billing",
        "messaging.message.id": "id-7",
        "messaging.message.conversation_id": "story",
        "messaging.message.body.size": len(SECRET),
        "postroom.handler": "charge",
        "postroom.attempt": 2,
    }


def test_a_batch_has_a_span_with_links_and_each_message_published_for_goes_on_in_its_own_trace(
    spans: InMemorySpanExporter,
) -> None:
    messages = [consumed(offset, traceparent=REMOTE) for offset in range(MAX_LINKS + 5)]
    with processing("billing", "charge", messages), inheriting({"traceparent": REMOTE}):
        headers()
    create, process = spans.get_finished_spans()
    assert (process.parent, len(process.links)) == (None, MAX_LINKS)
    assert dict(process.attributes or {})["messaging.batch.message_count"] == MAX_LINKS + 5
    assert number(create) == "0af7651916cd43dd8448eb211c80319c" != number(process)
    assert [link.context for link in create.links] == [process.get_span_context()]


def test_a_failure_tells_its_class_and_nothing_that_it_quotes(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match=SECRET), processing("billing", "charge", [consumed()]):
        raise ValueError(f"card {SECRET} was refused")
    [process] = spans.get_finished_spans()
    assert process.status.status_code is StatusCode.ERROR
    assert dict(process.attributes or {})["error.type"] == "ValueError"
    assert SECRET not in process.to_json()


def test_the_relays_batch_has_one_span_with_links_to_what_it_sends(spans: InMemorySpanExporter) -> None:
    def record(topic: str) -> OutgoingRecord:
        return OutgoingRecord(topic, SECRET.encode(), SECRET.encode(), [("traceparent", REMOTE.encode())])

    sending([record("orders")] * (MAX_LINKS + 1))(None)
    sending([record("orders"), record("payments")])(Interrupted(SECRET))
    one, several = spans.get_finished_spans()
    assert (one.name, one.kind, len(one.links), one.parent) == ("send orders", SpanKind.CLIENT, MAX_LINKS, None)
    assert dict(one.attributes or {})["messaging.batch.message_count"] == MAX_LINKS + 1
    assert (several.name, several.status.status_code) == ("send", StatusCode.ERROR)
    assert dict(several.attributes or {})["error.type"] == "postroom.messaging.errors.Interrupted"
    assert SECRET not in one.to_json() + several.to_json()


@pytest.mark.parametrize("broken", ["", "00-0-0-0", "x" * 300, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_header_that_is_no_context_begins_a_new_trace(spans: InMemorySpanExporter, broken: str) -> None:
    with processing("billing", "charge", [consumed(traceparent=broken)]), inheriting({"traceparent": broken}):
        found = headers()
    sending([OutgoingRecord("orders", None, b"", [("traceparent", broken.encode())])])(None)
    create, process, send = spans.get_finished_spans()
    assert (process.parent, send.links) == (None, ())
    assert found["traceparent"].split("-")[1] == number(create) == number(process)


def test_dead_letters_and_their_replays_keep_the_trace() -> None:
    record = consumed(traceparent=REMOTE, tracestate="a=b", ce_id="1", ce_type="t").record
    failure = Failure(ValueError("x"), "charge", 3, NOW, NOW)
    dead: list[tuple[str, bytes]] = dead_letter_headers(record, "billing", failure)
    letter = DeadLetter.of(record._replace(partition=Partition("orders.billing.dlq", 0), headers=dead))
    replayed: Any = load(letter.replayed("billing").headers)[0]
    for pairs in (dead, replayed):
        assert (first(pairs, "traceparent"), first(pairs, "tracestate")) == (REMOTE, "a=b")
