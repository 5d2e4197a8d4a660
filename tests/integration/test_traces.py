"""One order is one trace, from the shop through three services and back, over PostgreSQL and Kafka."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span
from sqlalchemy.orm import Session

from postroom.inbox import AsyncContext, Context, Inbox
from postroom.outbox import Message, Outbox
from postroom.outbox.database import open_store, parse_url
from postroom.relay import Relay, RelaySettings


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def relay(ledger: Any) -> Iterator[Relay]:
    relay = Relay(open_store(ledger.url), ledger.kafka(), settings=RelaySettings(lease_seconds=2))
    yield relay
    relay.stop()
    assert relay.join(30)


Place = tuple[int, int]


def place(span: Span | ReadableSpan) -> Place:
    """Trace and span."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent_of(span: ReadableSpan) -> Place:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


@dataclass
class Trail:
    """What was traced by now."""

    exporter: InMemorySpanExporter

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def processed(self, topic: str) -> bool:
        return any("error.type" not in (span.attributes or {}) for span in self.of(f"process {topic}"))

    def sent(self) -> set[Place]:
        sends = [span for span in self.exporter.get_finished_spans() if span.name.startswith("send")]
        return {(link.context.trace_id, link.context.span_id) for span in sends for link in span.links}


def test_one_order_is_one_trace_through_four_services(
    ledger: Any, relay: Relay, postroom_topic: Callable[[str], str], spans: InMemorySpanExporter, eventually: Any
) -> None:
    orders, stock, payments, shipments = (postroom_topic(name) for name in ("orders", "stock", "payments", "shipments"))
    completed: list[str] = []
    attempts: list[int] = []
    services = {
        name: Inbox(f"{ledger.group}-{name}", source=f"/{name}") for name in ("stock", "payment", "shipment", "order")
    }
    outbox = Outbox(source="/payment")

    def going_on(topic: str) -> Message:
        return Message(topic=topic, key=b"4711", payload=b"{}", type="t")

    @services["stock"].handler(orders)
    def reserve(_: Any, ctx: Context) -> None:
        ctx.publish(going_on(stock))

    @services["payment"].handler(stock, attempts=3)
    def charge(_: Any, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise ConnectionError("the bank is busy")
        outbox.publish(ctx.session, going_on(payments))  # another way of publishing in the handler

    @services["shipment"].handler(payments)
    async def ship(_: Any, ctx: AsyncContext) -> None:
        ctx.publish(going_on(shipments))

    @services["order"].handler(shipments)
    def complete(_: Any, ctx: Context) -> None:
        completed.append(ctx.correlation_id)

    engine = sa.create_engine(parse_url(ledger.url))
    with trace.get_tracer("shop").start_as_current_span("POST /orders") as request, Session(engine) as session:
        message_id = Outbox(source="/order").publish(session, going_on(orders))
        session.commit()
    engine.dispose()
    relay.start()
    for inbox in services.values():
        ledger.start(inbox)
    eventually(lambda: completed, "the order came around")

    trail = Trail(spans)
    parent = place(request)
    for topic in (orders, stock, payments, shipments):
        eventually(lambda topic=topic: trail.processed(topic), "the span of the last handler ended")
        [create] = trail.of(f"create {topic}")
        assert parent_of(create) == parent
        for each in trail.of(f"process {topic}"):
            assert parent_of(each) == place(create)
        # Kafka's acknowledgement may come when the message was handled already.
        eventually(lambda create=create: place(create) in trail.sent(), "it was sent, in a batch")
        parent = place(trail.of(f"process {topic}")[-1])
    assert completed == [str(message_id)]
    assert attempts == [1, 2]
    errors = [(span.attributes or {}).get("error.type") for span in trail.of(f"process {stock}")]
    assert errors == ["ConnectionError", None]
