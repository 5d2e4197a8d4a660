"""How far a group is behind, out of what Kafka tells."""

from postroom.cli.lag import Lag, _lag
from postroom.messaging.records import Partition


def test_the_lag_is_what_can_still_be_read() -> None:
    ends = {0: (5, 20), 1: (0, 10), 2: (3, 3), 3: (4, 9), 4: (0, 6)}
    committed = {
        Partition("t", 0): 2,  # what lies between is gone
        Partition("t", 1): 8,
        Partition("t", 4): 7,  # the topic was made anew
        Partition("other", 3): 9,
    }
    assert _lag("t", ends, committed) == Lag(15 + 2 + 0 + 5 + 0, partitions=5, uncommitted=2, read=2 + 8 + 7)
