"""A record as the inbox sees it: which message it is, and whether it is meant for this group."""

import uuid
from dataclasses import dataclass

from ..messaging.dead_letter import REPLAY_GROUP, REPLAY_OF, replay_count
from ..messaging.envelope import IDS, Envelope, storable_id
from ..messaging.errors import InvalidMessage
from ..messaging.message import check_type
from ..messaging.records import ReceivedRecord

UNKNOWN_TYPE = "unknown"
_MAX_REPLAYS = 32_767  # what the column holds; the number comes from a header that anybody may write


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a message."""

    record: ReceivedRecord
    envelope: Envelope
    message_id: str

    @classmethod
    def of(cls, record: ReceivedRecord) -> "Delivery":
        """Read the record's headers. A foreign record without an id is known by its place."""
        envelope = Envelope.of(record)
        return cls(record, envelope, storable_id(envelope.id))

    @property
    def topic(self) -> str:
        return self.record.partition.topic

    @property
    def place(self) -> str:
        return f"{self.record.partition}/{self.record.offset}"

    @property
    def correlation_id(self) -> str:
        """The message's own, where it is a printable text; else its id."""
        told = self.envelope.correlation_id
        return told if told and told.isprintable() else self.message_id

    @property
    def replays(self) -> int:
        """How often the message was replayed before this delivery."""
        return min(replay_count(self.record.headers), _MAX_REPLAYS)

    @property
    def replaces(self) -> str | None:
        """The id under which the message died that this replay replaces; None: it has that one's own."""
        told = self.envelope.header(REPLAY_OF)
        return None if told is None else storable_id(told)

    @property
    def has_id(self) -> bool:
        """Whether it brought an id; else it is known by its place, and a replay of it by another one."""
        return self.message_id != storable_id(self.place)

    def is_for(self, group: str) -> bool:
        """A replay names the group whose dead letter it was; every other delivery is for all."""
        return self.envelope.header(REPLAY_GROUP) in (None, group)

    def entry_id(self) -> uuid.UUID:
        """The message's id as the outbox wants it: a UUID, the same for each delivery of this record."""
        try:
            return uuid.UUID(self.message_id)
        except ValueError:
            return uuid.uuid5(IDS, self.place)

    def type_or_unknown(self) -> str:
        """The type, if the outbox can store it."""
        try:
            return check_type(self.envelope.type)
        except InvalidMessage:
            return UNKNOWN_TYPE
