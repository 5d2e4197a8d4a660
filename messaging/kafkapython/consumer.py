"""A consumer group's member whose offsets are committed by hand."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import TopicPartitionState
from kafka.coordinator.base import MemberState

from ..errors import Fenced
from ..ports import PartitionsHook
from ..records import Partition, ReceivedRecord
from .build import build
from .errors import translated

_COMMIT_TIMEOUT_MS = 10_000
_CLOSE_TIMEOUT_MS = 5_000
#: The broker answers nothing else on a connection while a fetch waits there for records; as far as we wait for that.
_FETCH_WAIT_MOST_MS = 10_000


class GroupConsumer:
    """See ``ports.Consumer``."""

    def __init__(
        self,
        options: dict[str, Any],
        topics: Sequence[str],
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
    ) -> None:
        fetch_wait = options.get("fetch_max_wait_ms", KafkaConsumer.DEFAULT_CONFIG["fetch_max_wait_ms"])
        self._fetch_wait_ms = min(_FETCH_WAIT_MOST_MS, int(fetch_wait))
        self._on_assigned = on_assigned
        self._generation = -1
        self._consumer = build(KafkaConsumer, options)
        self._keep_joins()
        self._consumer.subscribe(topics=list(topics), listener=_Hooks(self._read_anew, on_assigned, on_revoked))

    def poll(self, timeout: float, max_records: int) -> Sequence[ReceivedRecord]:
        self._let_go_of_the_drained()
        with translated():
            polled = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=max_records)
        self._notice_fence()
        self._take_up_join()
        self._tell_of_none()
        return [received(record) for records in polled.values() for record in records]

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        with translated():
            self._consumer.commit(
                {TopicPartition(*part): OffsetAndMetadata(offset, "", -1) for part, offset in offsets.items()},
                timeout_ms=_COMMIT_TIMEOUT_MS,
            )

    def seek(self, partition: Partition, offset: int) -> None:
        if TopicPartition(*partition) in self._consumer.assignment():
            self._consumer.seek(TopicPartition(*partition), offset)

    def pause_only(self, partitions: Sequence[Partition]) -> None:
        wanted = {TopicPartition(*part) for part in partitions} & self._consumer.assignment()
        paused = self._consumer.paused()
        if resume := paused - wanted:
            self._consumer.resume(*resume)
        if pause := wanted - paused:
            self._consumer.pause(*pause)

    def lag(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        assigned = self._consumer._subscription.assignment  # position() may wait for the coordinator
        places = {partition: assigned.get(TopicPartition(*partition)) for partition in partitions}
        wanted = [TopicPartition(*partition) for partition, state in places.items() if state is not None]
        if not wanted:
            return {}
        with translated():
            ends = self._consumer.end_offsets(wanted, timeout_ms=int(timeout * 1000) + self._fetch_wait_ms)
        found = {}
        for partition, state in places.items():
            if state is not None and (end := ends.get(TopicPartition(*partition))) is not None:
                found[partition] = max(0, end - (state.position.offset if state.position is not None else 0))
        return found

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_MS)

    def _let_go_of_the_drained(self) -> None:
        """Have the records of a partition that was paused in mid-fetch be fetched again.

        kafka-python 3.0.12 keeps them as the next to be read, drops them while the partition is paused, and waits
        for ever for more of them.
        """
        fetcher = self._consumer._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    def _read_anew(self, partitions: Sequence[TopicPartition]) -> None:
        """Have partitions that came be read from what the group committed.

        kafka-python 3.0.12 keeps the position of one that was revoked and comes back to the same member, and so would
        pass over what was polled and not finished.
        """
        assignment = self._consumer._subscription.assignment
        for partition in partitions:
            assignment[partition] = TopicPartitionState()

    def _keep_joins(self) -> None:
        """Have a join that is done while nobody polls be taken up by the next poll.

        kafka-python 3.0.12 forgets it and joins anew, which is a rebalance for the whole group each time, without end
        where members poll in turns.
        """
        coordinator = self._consumer._coordinator
        join = coordinator._do_join_and_sync_async
        done: tuple[Any, Any] | None = None

        async def join_once() -> Any:
            nonlocal done
            if done is not None:
                (generation, assignment), done = done, None
                # What was taken up makes the member stable; what was lost resets its generation.
                if coordinator.state is MemberState.REBALANCING and coordinator._generation is generation:
                    return assignment
            assignment = await join()
            done = coordinator._generation, assignment
            return assignment

        coordinator._do_join_and_sync_async = join_once

    def _take_up_join(self) -> None:
        """Ask again for a join that outlived its poll.

        kafka-python 3.0.12 begins a new join when the metadata changed, and forgets it when that poll ends before
        the broker answers: from then on the member holds no partition and sends no heartbeat, for good.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def _notice_fence(self) -> None:
        """Raise Fenced when the broker has taken the member for another one of its name.

        kafka-python 3.0.12 then sends no heartbeat any more and says nothing.
        """
        coordinator = self._consumer._coordinator
        with coordinator._lock:
            if coordinator.stable() and not coordinator._heartbeat_enabled:
                raise Fenced("The group has another member with this instance id.")

    def _tell_of_none(self) -> None:
        """kafka-python 3.0.12 tells a cooperative member nothing of an assignment that brings it nothing."""
        if self._consumer.assignment():
            return
        membership = self._consumer.group_metadata()
        if membership.state is MemberState.STABLE and membership.generation_id != self._generation:
            self._generation = membership.generation_id
            self._on_assigned([])


class _Hooks(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self,
        read_anew: Callable[[Sequence[TopicPartition]], None],
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
    ) -> None:
        self._read_anew = read_anew
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._read_anew(assigned)
        self._on_assigned([Partition(*part) for part in assigned])

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._on_revoked([Partition(*part) for part in revoked])


def received(record: Any) -> ReceivedRecord:
    """kafka-python's ConsumerRecord in our terms."""
    return ReceivedRecord(
        Partition(record.topic, record.partition),
        record.offset,
        record.key,
        record.value,
        [(name, value or b"") for name, value in record.headers],
        datetime.fromtimestamp(record.timestamp / 1000, UTC),
    )
