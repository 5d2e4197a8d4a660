"""An event with a model: a pydantic model that knows its topic, key and type."""

from collections.abc import Callable
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from ..messaging import dataschema
from ..messaging.errors import InvalidMessage, UndecodablePayload, UnknownVersion
from ..messaging.message import Message, check_topic, check_type, uuid7
from .refusal import refusal
from .upcast import U, Upcasters


class Event(BaseModel):
    """The base of an application's events.

        class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
            order_id: UUID
            total: Decimal

    ``topic``: where it is published. ``key``: the field whose value, as text, is the record's key; without
    one such events have no order among themselves. ``type``: the CloudEvents type, by default the class's
    name. ``version``: of the payload, raised when a change would break who reads it; see ``upcast``. The payload
    is the model's JSON, its fields named by their aliases. Instances are frozen. A subclass has a type and a
    version of its own. A wrong class argument is an InvalidMessage where the class is defined.
    """

    model_config = ConfigDict(frozen=True)

    event_topic: ClassVar[str]
    event_key: ClassVar[str | None] = None
    event_type: ClassVar[str]
    event_version: ClassVar[int] = 1
    event_upcasters: ClassVar[Upcasters] = Upcasters("Event", 1)
    _headers: ClassVar[dict[str, str]] = {}

    def __init_subclass__(
        cls,
        *,
        topic: str | None = None,
        key: str | None = None,
        type: str | None = None,
        version: int = 1,
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
        version: int = 1,
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
        cls.event_version = dataschema.check_version(version)
        cls.event_upcasters = Upcasters(cls.__name__, version)
        cls._headers = {}
        if (uri := dataschema.dataschema(cls.event_type, version)) is not None:
            cls._headers = {dataschema.HEADER: uri}

    @classmethod
    def upcast(cls, source: int, target: int) -> Callable[[U], U]:
        """Register a function that turns a payload of version ``source`` into one of version ``target``.

            @OrderPlaced.upcast(1, 2)
            def in_cents(payload: dict[str, Any]) -> dict[str, Any]:
                return {"order_id": payload["order_id"], "cents": payload["euros"] * 100}

        It gets the JSON object and returns one. Versions may be skipped; a version without an upcaster is passed
        on as it is. Raises InvalidUpcaster.
        """

        def register(function: U) -> U:
            cls.event_upcasters.add(source, target, function)
            return function

        return register

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
            headers=self._headers,
            id=id or uuid7(),
        )

    @classmethod
    def from_payload(cls, payload: bytes | None, *, version: int | None = None) -> Self:
        """The event in a record's value, which is of ``version``: by default the model's own.

        Raises UndecodablePayload (no JSON), UnknownVersion, MissingField, WrongType, PayloadRefused (validators,
        limits, an upcaster that failed). No text of theirs holds anything of the payload.
        """
        if payload is None:
            raise UndecodablePayload(f"A tombstone is no {cls.__name__}.")
        if version is not None and version > cls.event_version:
            raise UnknownVersion(
                f"The record is of version {version} and {cls.__name__} here is of version {cls.event_version}; deploy "
                f"the consumer that knows version {version}, then replay."
            )
        if version is not None and version < cls.event_version:
            payload = cls.event_upcasters.upcast(payload, version)
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise refusal(cls, error) from None  # its own text quotes the payload

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
