"""librdkafka's mock cluster in a process of its own: ``python -m postroom.testing.kafka_mock``.

Prints ``bootstrap servers: 127.0.0.1:...`` and runs until its input ends, that is, until the process at
the other end of the pipe closes it or dies. A broker of one node, in memory, that speaks Kafka's protocol
up to about version 2.3: produce, fetch, consumer groups, commits, idempotence and transactions. Limits:
topics are made on first use with 4 partitions; one member a consumer group gets partitions, a second one
none; joining takes 3 s, and as long as the session timeout where another member was before; the log is
bounded to a few MB a partition.
"""

import contextlib
import sys

from confluent_kafka import Producer

ANNOUNCEMENT = "bootstrap servers: "


def main() -> int:
    """Announce the mock cluster and block until the input ends."""
    # The cluster lives inside this producer, which itself sends nothing.
    holder = Producer({"test.mock.num.brokers": 1, "log_level": 3, "log.queue": False})
    brokers = holder.list_topics(timeout=10).brokers.values()
    sys.stdout.write(ANNOUNCEMENT + ",".join(f"{broker.host}:{broker.port}" for broker in brokers) + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
