"""What a comparison found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Kind = Literal["lost", "disordered", "altered", "misplaced", "doubled"]


@dataclass(slots=True)
class TopicResult:
    """One topic. ``logged`` is the sum of the six after it; those after ``lost`` are counted beside them.

    ``logged``: messages of the window in the log. ``arrived``: in the topic, too. ``waiting``: no relay has settled
    them. ``parked``, ``discarded``: Kafka refused them, or they wait behind such a one; or an operator gave them up.
    ``expired``: published, and no longer to be seen, since Kafka deletes or compacts what is old. ``lost``: settled,
    and not in the topic.

    ``disordered``: arrived after a later message of its key. ``altered``: key or payload is another one's.
    ``misplaced``: in another partition than others of its key. ``doubled``: records that repeat one.
    ``replayed``: records that repeat one since an operator asked for it. ``foreign``: records of the window's time
    that the log does not know. ``notes``: what is to be known besides, a sentence each.
    """

    topic: str
    logged: int = 0
    arrived: int = 0
    waiting: int = 0
    parked: int = 0
    discarded: int = 0
    expired: int = 0
    lost: int = 0
    disordered: int = 0
    altered: int = 0
    misplaced: int = 0
    doubled: int = 0
    replayed: int = 0
    foreign: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def broken(self) -> int:
        """How much there is that must not be. Doubles may be: see P4."""
        return self.lost + self.disordered + self.altered + self.misplaced


@dataclass(frozen=True, slots=True)
class Example:
    """One finding. Of what is lost there is no ``partition`` and ``offset``.

    ``position``: in the log. ``key``: None also where the log does not hold the message any more. ``after``: of what
    is disordered, the position that arrived before it.
    """

    kind: Kind
    topic: str
    position: int
    id: str
    key: bytes | None
    written_at: datetime | None
    partition: int | None = None
    offset: int | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared, and what was found. ``since``: None where the log is empty.

    ``examples``: of each topic and kind no more than was asked for, with the first and last position of what is lost
    among them.
    """

    since: datetime | None
    until: datetime
    topics: Sequence[TopicResult]
    examples: Sequence[Example]

    @property
    def ok(self) -> bool:
        """Nothing is lost, out of order, altered or in a wrong partition."""
        return not any(topic.broken for topic in self.topics)

    @property
    def doubled(self) -> int:
        """Records that repeat one without having been asked for, over all topics."""
        return sum(topic.doubled for topic in self.topics)
