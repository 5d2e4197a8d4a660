"""The relay's publisher: made when it is needed, dropped when Kafka is silent."""

from ..messaging.errors import Fenced
from ..messaging.ports import Kafka, Publisher
from .lease import Lease


class Link:
    """At most one publisher at a time. For one thread."""

    def __init__(self, kafka: Kafka, lease: Lease) -> None:
        self._kafka = kafka
        self._lease = lease
        self._publisher: Publisher | None = None
        self._doubtful = False

    def ready(self) -> Publisher:
        """The publisher, sending again what follows. Raises Fenced where the lease has ended, KafkaUnavailable."""
        if not self._lease.stands:
            raise Fenced("The lease ran out before the batch was published.")
        if self._publisher is None:
            self._publisher = self._kafka.publisher()
        elif self._doubtful:
            self._publisher.recover()
        self._doubtful = False
        return self._publisher

    def probe(self) -> None:
        """Make a publisher, to see whether Kafka answers. Raises KafkaUnavailable."""
        self._publisher = self._kafka.publisher()

    def doubt(self) -> None:
        """Something failed: the publisher sends again only once it is recovered."""
        self._doubtful = True

    def drop(self) -> None:
        """Give up what is in the air."""
        if self._publisher is not None:
            self._publisher.close(0)
            self._publisher = None
