"""What a run of relays and inboxes came to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .messages import Messages, PublishedMessage


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a message in a group's inbox.

    ``step``: as in ``docs/reference/logs.md``: ``handled``, ``dead_lettered``, …; ``handler``: its name, where one was
    found; ``attempts``: which attempt it was, or how many there were; ``error``: why it failed.
    """

    step: str
    group: str
    topic: str
    message_id: str
    type: str | None
    handler: str | None = None
    attempts: int = 0
    error: BaseException | None = None

    def __str__(self) -> str:
        why = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        return f"{self.group}: {self.type} {self.message_id} of {self.topic} {self.step}{why}"


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """The first of a key that waits in the table. ``next_attempt_at``: None where it waits for a dead letter."""

    group: str
    topic: str
    key: bytes | None
    next_attempt_at: datetime | None

    def __str__(self) -> str:
        until = "a dead letter" if self.next_attempt_at is None else self.next_attempt_at.isoformat()
        return f"{self.group}: key {self.key!r} of {self.topic} waits for {until}"


@dataclass(frozen=True, slots=True)
class Parked:
    """A message that Kafka refused, or that waits behind one (``error`` is None then)."""

    topic: str
    key: bytes | None
    message_id: str
    error: str | None

    def __str__(self) -> str:
        return f"{self.message_id} for {self.topic} is parked: {self.error or 'behind a refused one'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened until nothing was left to do.

    ``published``: what relays published, dead letters among it, in their order. ``fates``: of each delivery in each
    inbox, in the order in which they came to their end. ``held``, ``parked``, ``scheduled``: what waits now, for an
    attempt or a dead letter, for an operator, for its ``deliver_at``.
    """

    published: Messages = field(default_factory=Messages)
    fates: Sequence[Fate] = ()
    held: Sequence[HeldMessage] = ()
    parked: Sequence[Parked] = ()
    scheduled: Sequence[PublishedMessage] = ()

    def of(self, step: str, group: str | None = None) -> list[Fate]:
        """Those with this step, of one group or of all."""
        return [fate for fate in self.fates if fate.step == step and group in (None, fate.group)]

    @property
    def handled(self) -> list[Fate]:
        """Handled for the first time."""
        return self.of("handled")

    @property
    def duplicates(self) -> list[Fate]:
        """Delivered again: nothing was done."""
        return self.of("duplicate")

    @property
    def dead_letters(self) -> list[Fate]:
        """Given up, with their errors."""
        return self.of("dead_lettered")

    def assert_well(self) -> None:
        """Nothing became a dead letter, is held or is parked. Raises AssertionError, which tells each."""
        told = [str(each) for each in (*self.dead_letters, *self.held, *self.parked)]
        if told:
            raise AssertionError("\n  ".join([f"{len(told)} messages did not get through:", *told]))
