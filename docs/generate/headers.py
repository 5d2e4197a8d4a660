"""The page of the headers that go over the wire."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from postroom.messaging.correlation import inheriting
from postroom.messaging.dead_letter import (
    MAX_MESSAGE,
    MAX_STACK,
    Failure,
    dead_letter_headers,
    dead_letter_topic,
    replay_headers,
)
from postroom.messaging.envelope import PROPAGATED, REPLAY, RESERVED
from postroom.messaging.headers import MAX_HEADER_BYTES, MAX_HEADERS
from postroom.messaging.message import MAX_KEY_BYTES
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import Event, Outbox
from postroom.outbox.entry import LogRow


def headers() -> str:
    """The headers that go over the wire: their names as the code writes them."""
    parts = [
        "# Headers on the wire",
        "",
        "Generated from the code by `make reference`.",
        "",
        "Key: the message key as UTF-8 bytes. Value: the payload; an event's is the model's JSON. The partition",
        "follows from the key by murmur2, as Java's default partitioner has it.",
        "",
        "## On every message",
        "",
        "CloudEvents 1.0, Kafka protocol binding, binary content mode:",
        "",
        *_headers_table(_of_messages(), ON_MESSAGES),
        f"| anything else | what you gave in `headers=`; {', '.join(sorted(RESERVED))} cannot be given |",
        "",
        f"A message carries at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES // 1024} KiB in all; a key has at most",
        f"{MAX_KEY_BYTES // 1024} KiB; a payload {Outbox(source='/').max_payload_bytes:,} bytes unless",
        "`Outbox(max_payload_bytes=…)` says otherwise.",
        "",
        "## On a dead letter",
        "",
        f"Topic `{dead_letter_topic('{topic}', '{group}')}`. Key, value and headers of the original, byte for byte,",
        "and, by the names of KIP-1191 (`__dlq.…`) and our own:",
        "",
        *_headers_table(_of_dead_letters(), ON_DEAD_LETTERS),
        "",
        "## On a dead letter replayed by `postroom dlq replay`",
        "",
        "The original's headers, without those of its death, and",
        "",
        *_headers_table([name for name, _ in replay_headers([], "billing", "17")], ON_REPLAYS),
        "",
        "## On a copy made by `postroom outbox replay`",
        "",
        "The original's headers, byte for byte, and before them",
        "",
        *_headers_table([REPLAY], ON_COPIES),
    ]
    return "\n".join(parts) + "\n"


NOW = datetime(2026, 11, 21, tzinfo=UTC)


class _Example(Event, topic="orders", key="id", type="shop.order.placed", version=2):
    id: str


def _of_messages() -> list[str]:
    """The names on an event's record, with all that can be there."""
    with inheriting(dict.fromkeys((*PROPAGATED, "causation_id"), "x")):
        entry = Outbox(source="/shop").entry(_Example(id="17"), expires_in=timedelta(1))
    row = LogRow(0, 1, str(entry.id), entry.topic, entry.key, entry.type, entry.payload, entry.headers, NOW)
    return [name for name, _ in row.record().headers]


def _of_dead_letters() -> list[str]:
    record = ReceivedRecord(Partition("orders", 0), 17, None, None, [], NOW)
    failure = Failure(ValueError("no rate"), "shop.billing.charge", 5, NOW, NOW)
    return [name for name, _ in dead_letter_headers(record, "billing", failure, "17")]


def _headers_table(names: list[str], meanings: Mapping[str, str]) -> list[str]:
    """Raises KeyError for a header without a meaning, and ValueError for a meaning without a header."""
    rows = {name: f"| `{name}` | {meanings[name]} |" for name in names}
    if unused := meanings.keys() - rows.keys():
        raise ValueError(f"no record has the headers {sorted(unused)}")
    return ["| header | value |", "|---|---|", *(rows[name] for name in meanings)]


ON_MESSAGES = {
    "ce_specversion": "`1.0`",
    "ce_id": "the message id, a UUID version 7",
    "ce_source": "the `source` of the `Outbox`",
    "ce_type": "the event's type",
    "ce_time": "when the row was written, RFC 3339, UTC",
    "ce_dataschema": "`urn:postroom:schema:<type>:<version>` on events of version 2 and later, or yours if it says its "
    "version; see [Change an event's schema](../how-to/change-a-schema.md)",
    "ce_subject": "the key, where it is printable text, unless you set one",
    "content-type": "`application/json` for events",
    "correlation_id": "yours, else that of the consumed message, else the message id",
    "causation_id": "the id of the message whose handler published this one",
    "expires_at": "with `expires_in=`, RFC 3339, UTC; else that of the consumed message",
    "traceparent": "W3C Trace Context: of the span in which it was published, else passed on from the consumed message",
    "tracestate": "likewise",
}
ON_DEAD_LETTERS = {
    "__dlq.errors.topic": "the topic in which the message stood",
    "__dlq.errors.partition": "its partition",
    "__dlq.errors.offset": "its offset",
    "__dlq.errors.group": "the consumer group that failed",
    "__dlq.errors.delivery.count": "attempts",
    "__dlq.errors.message": f"the error's message, at most {MAX_MESSAGE:,} characters",
    "postroom_dlq_exception": "the exception's class, such as `postroom.messaging.errors.UnknownVersion`",
    "postroom_dlq_stack": f"the end of the traceback, at most {MAX_STACK:,} characters",
    "postroom_dlq_handler": "the handler",
    "postroom_dlq_inbox_id": "the id of its row in `inbox`, only where that is not `ce_id`: known by an "
    "`idempotency_key`, without an id, or with one that a table cannot hold",
    "postroom_dlq_first_failed_at": "RFC 3339, UTC",
    "postroom_dlq_last_failed_at": "RFC 3339, UTC",
    "postroom_dlq_fingerprint": "the same for the same failure at the same place",
    "postroom_dlq_replay_count": "how often this message had been replayed",
}
ON_REPLAYS = {
    "postroom_replay_count": "how often it was replayed, counted from 1",
    "postroom_replay_group": "the only group whose inbox runs it again",
    "postroom_replay_of": "only where it was edited, and so has a new `ce_id`: the inbox id under which the message "
    "died that it replaces",
}
ON_COPIES = {"postroom_replay": "the time and id of the replay, `2026-11-21T16:35:28Z/a5c0704d`"}
