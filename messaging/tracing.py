"""Spans of OpenTelemetry around messages, where the application has OpenTelemetry set up; nothing anywhere else.

    create orders ──▶ (table, Kafka) ──▶ process orders ──▶ create payments ──▶ …        one trace
          ▲
          └── link ── send orders                         a trace of its own: one span for each batch of the relay

After the semantic conventions for messaging (opentelemetry.io/docs/specs/semconv/messaging). The context of "create"
goes along in the headers ``traceparent`` and ``tracestate`` (W3C), through the table, Kafka, dead letters and replays.
A span never has the message's key or payload, nor the text of an error, which may quote them: only its class.

OpenTelemetry is not imported before somebody else did, so that it costs nothing where it is not used.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from .headers import HeaderPairs, first
from .records import OutgoingRecord, ReceivedRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, Tracer

#: A batch has links to so many of its messages.
MAX_LINKS = 128
HEADERS = ("traceparent", "tracestate")
_SYSTEM = {"messaging.system": "kafka"}
_NAME = "postroom"
_tracer: "tuple[Any, Tracer] | None" = None
Ended = Callable[[BaseException | None], None]


class Consumed(NamedTuple):
    """A message that a handler is called with, as its inbox knows it."""

    record: ReceivedRecord
    message_id: str
    correlation_id: str
    attempt: int


def created(topic: str, message_id: str, payload: bytes | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """The headers by which the trace goes on from the publishing of a message; none where nobody traces.

    ``inherited``: headers that hold where it is published. If they tell of another trace than the one that is under
    way, as those of one message of a batch do, it goes on in theirs, with a link to the one under way.
    """
    tracer = _active()
    if tracer is None:
        return {}
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    parent: Context | None = None
    links: list[Link] = []
    here = trace.get_current_span().get_span_context()
    if "traceparent" in inherited:
        told = propagator.extract(inherited)
        there = trace.get_current_span(told).get_span_context()
        if there.is_valid and there.trace_id != here.trace_id:
            parent, links = told, [trace.Link(here)] if here.is_valid else []
    attributes: dict[str, Any] = {
        **_SYSTEM,
        **_operation("create"),
        "messaging.destination.name": topic,
        "messaging.message.id": message_id,
        "messaging.message.body.size": len(payload or b""),
    }
    if correlation_id := inherited.get("correlation_id"):
        attributes["messaging.message.conversation_id"] = correlation_id
    span = tracer.start_span(
        f"create {topic}", context=parent, kind=trace.SpanKind.PRODUCER, attributes=attributes, links=links
    )
    carrier: dict[str, str] = {}
    propagator.inject(carrier, trace.set_span_in_context(span, parent))
    span.end()
    return carrier


def sending(records: Sequence[OutgoingRecord]) -> Ended:
    """A batch goes to Kafka: begin its span, and return what ends it. Nothing where nobody traces."""
    tracer = _active()
    if tracer is None or not records:
        return _untraced
    from opentelemetry import trace

    topics = {record.topic for record in records}
    links = [link for record in records[:MAX_LINKS] if (link := _link(record.headers)) is not None]
    attributes: dict[str, Any] = {
        **_SYSTEM,
        **_operation("send"),
        "messaging.batch.message_count": len(records),
    }
    name = "send"
    if len(topics) == 1:
        [topic] = topics
        name, attributes["messaging.destination.name"] = f"send {topic}", topic
    span = tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes, links=links)

    def ended(error: BaseException | None) -> None:
        _fail(span, error)
        span.end()

    return ended


@contextmanager
def processing(group: str, handler: str, messages: Sequence[Consumed]) -> Iterator[None]:
    """A handler runs: the span is the current one inside. Of one message it goes on with the message's trace; of a
    batch it begins one, with links to theirs."""
    tracer = _active()
    with nullcontext() if tracer is None else _processing(tracer, group, handler, messages):
        yield


@contextmanager
def _processing(tracer: "Tracer", group: str, handler: str, messages: Sequence[Consumed]) -> Iterator[None]:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    partition = messages[0].record.partition
    attributes: dict[str, Any] = {
        **_SYSTEM,
        **_operation("process"),
        "messaging.destination.name": partition.topic,
        "messaging.consumer.group.name": group,
        "postroom.handler": handler,
    }
    parent: Context | None = None
    links: list[Link] = []
    if len(messages) == 1:
        [message] = messages
        parent = TraceContextTextMapPropagator().extract(_carrier(message.record.headers))
        attributes |= {
            "messaging.destination.partition.id": str(partition.number),
            "messaging.kafka.offset": message.record.offset,
            "messaging.message.id": message.message_id,
            "messaging.message.conversation_id": message.correlation_id,
            "messaging.message.body.size": len(message.record.value or b""),
            "postroom.attempt": message.attempt,
        }
        if message.record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
    else:
        attributes["messaging.batch.message_count"] = len(messages)
        links = [link for each in messages[:MAX_LINKS] if (link := _link(each.record.headers)) is not None]
    span = tracer.start_span(
        f"process {partition.topic}",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        links=links,
    )
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except BaseException as error:
            _fail(span, error)
            raise


def _active() -> "Tracer | None":
    """The tracer, where somebody has set up a provider."""
    global _tracer  # noqa: PLW0603  one for the process, as OpenTelemetry's provider is
    trace: Any = sys.modules.get("opentelemetry.trace")
    provider = getattr(trace, "get_tracer_provider", lambda: None)()
    if provider is None or isinstance(provider, trace.ProxyTracerProvider):
        return None
    if _tracer is None or _tracer[0] is not provider:
        _tracer = provider, provider.get_tracer(_NAME)
    return _tracer[1]


def _operation(name: str) -> dict[str, str]:
    return {"messaging.operation.type": name, "messaging.operation.name": name}


def _carrier(headers: HeaderPairs) -> dict[str, str]:
    return {name: value for name in HEADERS if (value := first(headers, name)) is not None}


def _link(headers: HeaderPairs) -> "Link | None":
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = _carrier(headers)
    if not carrier:
        return None
    context = trace.get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    return trace.Link(context) if context.is_valid else None


def _fail(span: "Span", error: BaseException | None) -> None:
    if error is None:
        return
    from opentelemetry.trace import Status, StatusCode

    kind = type(error)
    span.set_attribute("error.type", f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))
    span.set_status(Status(StatusCode.ERROR))


def _untraced(error: BaseException | None) -> None:
    """Nobody wants to know."""
