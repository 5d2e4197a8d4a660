"""Compares the log with the topics: what was lost, doubled, or came out of order. Nothing stops meanwhile.

    log ──▶ rows of the window, each with its state ─┐
                                                     ├─▶ scratch database ──▶ by message id ──▶ by key ──▶ result
    topic ─▶ records up to its end as it is now ─────┘

The log is read first. What a relay has settled by then was acknowledged by Kafka before, so it stands before the end of
the topic that is looked up afterwards; where it does not, it is lost. What is written, published or let go while this
goes on can therefore never look lost. It lies in a temporary SQLite database, which goes to disk as it grows, so that
the memory stays the same however many messages there are.
"""

from .result import Example, Kind, TopicResult, Verification
from .verify import verify

__all__ = ["Example", "Kind", "TopicResult", "Verification", "verify"]
