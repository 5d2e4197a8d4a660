"""What a member has in hand, and which offsets it may commit."""

from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postroom.inbox.assignment import Assignment, InHand
from postroom.messaging.records import Partition, ReceivedRecord

PARTITIONS = [Partition("t", number) for number in range(3)]
_NOW = datetime.now(UTC)


class Membership(RuleBasedStateMachine):
    """Against a group that hands partitions about: no offset passes a record that nobody processed."""

    def __init__(self) -> None:
        super().__init__()
        self.assignment = Assignment()
        self.owned: set[Partition] = set()
        self.stored = dict.fromkeys(PARTITIONS, 0)
        self.positions = dict.fromkeys(PARTITIONS, 0)
        self.processed: dict[Partition, set[int]] = {partition: set() for partition in PARTITIONS}
        self.received: list[InHand] = []
        self.taken: list[InHand] = []

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS)))
    def assign(self, partitions: set[Partition]) -> None:
        new = partitions - self.owned
        self.owned |= new
        self.positions |= {partition: self.stored[partition] for partition in new}
        self.assignment.assign(new)

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS)))
    def revoke(self, partitions: set[Partition]) -> None:
        self.owned -= partitions
        self.assignment.revoke(partitions)

    @rule(count=st.integers(1, 3))
    def poll(self, count: int) -> None:
        for partition in sorted(self.owned):
            start = self.positions[partition]
            self.received += self.assignment.receive(
                ReceivedRecord(partition, offset, None, None, [], _NOW) for offset in range(start, start + count)
            )
            self.positions[partition] += count

    @rule()
    def take(self) -> None:
        while self.received:
            item = self.received.pop(0)
            if self.assignment.owns(item):
                assert item.record.partition in self.owned, "a record of a partition that is somebody else's"
                self.taken.append(item)
                return

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """In any order, as workers beside each other would."""
        item = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        place, offset, *_ = item.record
        self.processed[place].add(offset)
        self.assignment.finish(item)

    @rule()
    def commit(self) -> None:
        offsets = self.assignment.uncommitted()
        assert offsets.keys() <= self.owned
        self.stored.update(offsets)
        self.assignment.committed(offsets)
        assert not self.assignment.uncommitted()

    @invariant()
    def nothing_is_passed_over(self) -> None:
        for partition, offset in self.stored.items():
            assert set(range(offset)) <= self.processed[partition]


TestMembership = Membership.TestCase
TestMembership.settings = settings(max_examples=60, deadline=None)


def test_a_partition_that_went_and_came_back_is_read_anew() -> None:
    assignment = Assignment()
    assignment.assign(PARTITIONS[:1])
    item, other = assignment.receive([ReceivedRecord(PARTITIONS[0], offset, None, None, [], _NOW) for offset in (4, 5)])

    assignment.revoke(PARTITIONS[:1])
    assignment.assign(PARTITIONS[:1])
    assignment.finish(item)

    assert not assignment.owns(item)
    assert not assignment.owns(other)
    assert assignment.uncommitted() == {}
