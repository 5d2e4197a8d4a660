"""P2, P3 for a publisher: a broker refuses one request for the moment, and the next one is on its way already."""

from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event
from typing import Any

import pytest

from postroom.messaging.kafka import connect
from postroom.messaging.records import OutgoingRecord
from postroom.testing import Broker, TcpProxy

FIRST, SECOND = b"the first", b"the second"
#: What should wait has so long to pass the proxy, in seconds.
_TIME_TO_PASS = 0.5


@pytest.fixture
def proxy(own_broker: Broker) -> Iterator[TcpProxy]:
    """The one before the broker. It is well again after the test."""
    assert own_broker.proxy is not None
    yield own_broker.proxy
    own_broker.proxy.restore()


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
@pytest.mark.parametrize("keys", [(b"k", b"k"), (None, None), (b"k", None), (None, b"k")])
def test_what_is_acknowledged_is_there_though_the_first_request_to_its_partition_was_refused(
    own_broker: Broker, proxy: TcpProxy, postroom_topic: Callable[[str], str], keys: Any, client: str
) -> None:
    """Refused for the moment: here it was corrupted on its way; a new leader that does not know it yet does the same.

    A broker that knows nothing of a producer takes its second request then, and librdkafka, which would send the
    first one again, concludes from that answer that it is there.
    """
    topic = postroom_topic("refused")
    direct = connect(own_broker.options_for(client))
    with closing(direct.topics()) as topics:
        topics.create(topic, 1, 1, {})
    corrupted, passed = Event(), Event()

    def change(data: bytes) -> bytes:
        if SECOND in data:
            passed.set()
        elif FIRST in data and not corrupted.is_set():
            proxy.freeze("to-client")  # the answer does not come before the second had its time
            corrupted.set()
            return data.replace(FIRST, b"the worst")
        return data

    publisher = connect(own_broker.through().options_for(client)).publisher()
    proxy.alter(change)
    first = publisher.send([OutgoingRecord(topic, keys[0], FIRST, [])])
    assert corrupted.wait(30)
    second = publisher.send([OutgoingRecord(topic, keys[1], SECOND, [])])
    passed.wait(_TIME_TO_PASS)
    proxy.restore()
    assert first.wait(30)
    assert second.wait(30)
    acknowledged = [value for value, sent in ((FIRST, first), (SECOND, second)) if not sent.errors()]
    publisher.close(5)

    with closing(direct.reader()) as reader:
        assert [record.value for record in reader.read(topic)] == acknowledged
