"""An event with a model: a pydantic model that knows its topic, key and type."""

from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from ..messaging.errors import InvalidMessage, PayloadRefused, UndecodablePayload
from ..messaging.message import Message, check_topic, check_type, uuid7


class Event(BaseModel):
    """The base of an application's events.

        class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
            order_id: UUID
            total: Decimal

    ``topic``: where it is published. ``key``: the field whose value, as text, is the record's key; without
    one such events have no order among themselves. ``type``: the CloudEvents type, by default the class's
    name. The payload is the model's JSON, its fields named by their aliases. Instances are frozen. A wrong class argument is an
    InvalidMessage where the class is defined.
    """

    model_config = ConfigDict(frozen=True)

    event_topic: ClassVar[str]
    event_key: ClassVar[str | None] = None
    event_type: ClassVar[str]

    def __init_subclass__(
        cls,
        *,
        topic: str | None = None,
        key: str | None = None,
        type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        topic: str | None = None,
        key: str | None = None,
        type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if topic is not None:
            cls.event_topic = check_topic(topic)
        if key is not None:
            if key not in cls.model_fields:
                raise InvalidMessage(f"{cls.__name__} has no field {key!r} to take the key from.")
            cls.event_key = key
        cls.event_type = check_type(type if type is not None else cls.__name__)

    def to_message(self, *, key: bytes | str | None = None, id: UUID | None = None) -> Message:
        """The message to publish. ``key`` stands in for the field's. Raises InvalidMessage."""
        if not hasattr(self, "event_topic"):
            raise InvalidMessage(
                f"{type(self).__name__} has no topic; define it as class {type(self).__name__}(Event, topic=…)."
            )
        return Message(
            topic=self.event_topic,
            key=key if key is not None else self._key(),
            type=self.event_type,
            payload=self.model_dump_json(by_alias=True).encode(),
            id=id or uuid7(),
        )

    @classmethod
    def from_payload(cls, payload: bytes | None) -> "Event":
        """The event in a record's value. Raises UndecodablePayload (no JSON), PayloadRefused (the model)."""
        if payload is None:
            raise UndecodablePayload(f"A tombstone is no {cls.__name__}.")
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False, include_context=False)
            if problems[0]["type"] == "json_invalid":
                raise UndecodablePayload(f"The payload is not JSON: {problems[0]['msg']}.") from error
            told = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'payload'}: {p['msg']}" for p in problems[:5])
            raise PayloadRefused(f"{cls.__name__} refuses the payload: {told}.") from error

    def _key(self) -> str | None:
        if self.event_key is None:
            return None
        value = getattr(self, self.event_key)
        if value is None or isinstance(value, bytes | BaseModel | dict | list):
            raise InvalidMessage(
                f"{type(self).__name__}.{self.event_key} is {type(value).__name__} and gives no key; "
                "use a text, number or UUID."
            )
        return str(value)
