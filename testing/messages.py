"""Messages as a test looks at them, and assertions that say what there was instead."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, overload

from ..messaging.dataschema import HEADER, version_of
from ..messaging.envelope import Envelope, parse_timestamp
from ..messaging.errors import Poison
from ..messaging.headers import load
from ..messaging.records import OutgoingRecord, ReceivedRecord
from ..outbox.entry import Entry
from ..outbox.event import Event

E = TypeVar("E", bound=Event)
Model = type[E]
#: So many messages, and characters of a payload, are shown when an assertion fails.
_SHOWN, _LENGTH = 20, 200


@dataclass(frozen=True, slots=True)
class PublishedMessage:
    """A message that is, or will be, published.

    ``key`` and ``payload``: bytes, or None. ``headers``: text by name, the last of a name; those that are no UTF-8 are
    left out. ``deliver_at``: when it is due, where it is delayed.
    """

    id: str
    topic: str
    key: bytes | None
    type: str
    payload: bytes | None
    headers: dict[str, str]
    deliver_at: datetime | None = None

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> "PublishedMessage":
        """Of what the query ``written`` finds."""
        id_, topic, key, type_, payload, headers, due_at = row
        due_at = parse_timestamp(due_at) if isinstance(due_at, str) else due_at
        return cls(
            str(id_),
            topic,
            None if key is None else bytes(key),
            type_,
            None if payload is None else bytes(payload),
            _texts(load(headers)[0]),
            due_at,
        )

    @classmethod
    def of_entry(cls, entry: Entry) -> "PublishedMessage":
        """Of what will be written."""
        return cls.of_row((entry.id, entry.topic, entry.key, entry.type, entry.payload, entry.headers, entry.due_at))

    @classmethod
    def of_record(cls, record: ReceivedRecord) -> "PublishedMessage":
        """Of what Kafka has."""
        envelope = Envelope.of(record)
        texts = _texts(record.headers)
        return cls(envelope.id, record.partition.topic, record.key, envelope.type or "", record.value, texts)

    @classmethod
    def of_outgoing(cls, record: OutgoingRecord) -> "PublishedMessage":
        """Of what is sent to Kafka."""
        texts = _texts(record.headers)
        return cls(texts.get("ce_id", ""), record.topic, record.key, texts.get("ce_type", ""), record.value, texts)

    def event(self, model: Model[E]) -> E:
        """The payload as ``model``, as a handler would get it. Raises UndecodablePayload, PayloadRefused."""
        return model.from_payload(self.payload, version=version_of(self.headers.get(HEADER)))

    @property
    def json(self) -> Any:
        """The payload's JSON. Raises ValueError for what is none."""
        return json.loads(self.payload or b"")

    def __str__(self) -> str:
        key = "" if self.key is None else f" key {self.key.decode(errors='backslashreplace')}"
        due = "" if self.deliver_at is None else f" at {self.deliver_at.isoformat()}"
        text = "(tombstone)" if self.payload is None else self.payload.decode(errors="backslashreplace")
        text = text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
        return f"{self.type} on {self.topic}{key}{due}: {text}"


class Messages(Sequence[PublishedMessage]):
    """Messages in the order in which they are published."""

    def __init__(self, messages: Iterable[PublishedMessage] = ()) -> None:
        self._messages = list(messages)

    @overload
    def __getitem__(self, index: int) -> PublishedMessage: ...
    @overload
    def __getitem__(self, index: slice) -> "Messages": ...
    def __getitem__(self, index: int | slice) -> "PublishedMessage | Messages":
        return Messages(self._messages[index]) if isinstance(index, slice) else self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[PublishedMessage]:
        return iter(self._messages)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(str, self._messages))}])"

    def of(self, model: type[E]) -> list[E]:
        """Those of the model's type (and of its topic, where it has one), decoded.

        Raises UndecodablePayload, PayloadRefused.
        """
        return [message.event(model) for message in self if _is_of(message, model)]

    def on(self, topic: str) -> "Messages":
        """Those on ``topic``."""
        return Messages(message for message in self if message.topic == topic)


def assert_published(messages: Sequence[PublishedMessage], model: type[E], /, **fields: Any) -> E:
    """One message of ``model``'s type whose fields have these values, and no second one; it is returned.

    ``messages``: what ``published`` gives, or ``published`` of a ``Report``. Raises AssertionError, which tells what
    there is instead; TypeError for what is no field of the model.
    """
    found = _found(messages, model, fields)
    if len(found) != 1:
        raise AssertionError(_told(messages, model, fields, found, "one"))
    return found[0]


def assert_not_published(messages: Sequence[PublishedMessage], model: type[Event], /, **fields: Any) -> None:
    """No message of ``model``'s type whose fields have these values. Raises as ``assert_published`` does."""
    found = _found(messages, model, fields)
    if found:
        raise AssertionError(_told(messages, model, fields, found, "none"))


def _found(messages: Sequence[PublishedMessage], model: type[E], fields: dict[str, Any]) -> list[E]:
    if unknown := sorted(fields.keys() - model.model_fields.keys()):
        raise TypeError(f"{model.__name__} has no field {unknown[0]!r}; it has {', '.join(model.model_fields)}.")
    events = []
    for message in messages:
        if _is_of(message, model):
            try:
                event = message.event(model)
            except Poison:
                continue  # told, if nothing is found
            if not _differences(event, fields):
                events.append(event)
    return events


def _differences(event: Event, fields: dict[str, Any]) -> list[str]:
    got = {name: getattr(event, name) for name in fields}
    return [f"{name} is {got[name]!r}, not {wanted!r}" for name, wanted in fields.items() if got[name] != wanted]


def _told(
    messages: Sequence[PublishedMessage], model: type[Event], fields: dict[str, Any], found: list[Any], wanted: str
) -> str:
    of = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    what = f"{model.__name__}({of})"
    head = f"Wanted {wanted} {what}; published: {len(found)}."
    if not messages:
        return f"{head} Nothing is published at all."
    lines = [head, f"Of {len(messages)} in all:"]
    for number, message in enumerate(messages[:_SHOWN], 1):
        lines.append(f"  {number}. {message}")
        if _is_of(message, model):
            try:
                lines += [f"       {difference}" for difference in _differences(message.event(model), fields)]
            except Poison as error:
                lines.append(f"       {error}")
        elif message.type == model.event_type:
            lines.append(f"       its topic is {message.topic}, not {model.event_topic}")
    if len(messages) > _SHOWN:
        lines.append(f"  … and {len(messages) - _SHOWN} more")
    return "\n".join(lines)


def _is_of(message: PublishedMessage, model: type[Event]) -> bool:
    topic = getattr(model, "event_topic", None)  # a consumer's model may have none
    return message.type == model.event_type and topic in (None, message.topic)


def _texts(pairs: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    texts = {}
    for name, value in pairs:
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError:
            continue
    return texts
