"""How far groups are behind the ends of their topics, as Kafka tells it."""

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..messaging.errors import PostroomError, UnknownTopic
from .errors import sentence

if TYPE_CHECKING:
    from ..messaging.ports import TopicReader, Topics
    from ..messaging.records import Partition
    from .app import App

#: A cluster that did not answer is not asked again before.
_AGAIN_AFTER = 15.0


@dataclass(frozen=True, slots=True)
class Lag:
    """Records of a topic that the group has not read. ``uncommitted``: partitions of which it never read any.

    ``read``: the sum of the offsets that it read up to, which grows while it reads.
    """

    messages: int
    partitions: int
    uncommitted: int
    read: int = 0


Lags = dict[str, dict[str, Lag]]


class Lagging:
    """Measures by group and topic. Connects when it is asked, and anew after a failure. For one thread."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._stack = ExitStack()
        self._clients: tuple[Topics, TopicReader] | None = None
        self._failed = ""
        self._again_at = 0.0

    def measure(self, groups: Mapping[str, Iterable[str]], *, named_only: bool = False) -> tuple[Lags, str | None]:
        """Of every topic of which a group ever committed an offset, and of those named; else why it is not known.

        ``named_only``: of no others, so that a cluster of many topics is not asked for all of them.
        """
        if time.monotonic() < self._again_at:
            return {}, self._failed
        try:
            return self._measured(groups, named_only=named_only), None
        except PostroomError as error:
            self.close()
            self._failed, self._again_at = sentence(error), time.monotonic() + _AGAIN_AFTER
            return {}, self._failed

    def close(self) -> None:
        """Does not raise."""
        self._clients = None
        self._stack.close()

    def _measured(self, groups: Mapping[str, Iterable[str]], *, named_only: bool) -> Lags:
        if self._clients is None:
            self._clients = (
                self._stack.enter_context(self._app.topics()),
                self._stack.enter_context(self._app.reader()),
            )
        topics, reader = self._clients
        existing = [] if named_only else [name for name in topics.partitions() if not name.startswith("__")]
        ends: dict[str, Mapping[int, tuple[int, int]]] = {}
        found: Lags = {}
        for group, named in groups.items():
            asked = set(named) if named_only else set(named) & set(existing)
            committed = topics.committed(group, sorted(asked) if named_only else existing)
            of_group = {part.topic for part in committed} | asked
            for topic in of_group - ends.keys():
                with suppress(UnknownTopic):  # nobody wrote to it yet, or it was deleted meanwhile
                    ends[topic] = reader.offsets(topic)
            found[group] = {topic: _lag(topic, ends[topic], committed) for topic in sorted(of_group & ends.keys())}
        return found


def _lag(topic: str, ends: Mapping[int, tuple[int, int]], committed: "Mapping[Partition, int]") -> Lag:
    read = {part.number: offset for part, offset in committed.items() if part.topic == topic}
    behind = [end - max(first, read.get(number, first)) for number, (first, end) in ends.items()]
    uncommitted = len(ends.keys() - read.keys())
    return Lag(sum(max(0, each) for each in behind), len(ends), uncommitted, sum(read.values()))
