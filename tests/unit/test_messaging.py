"""The ground floor: errors, backoff, lifecycle."""

import random
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.messaging import errors
from postroom.messaging.backoff import Backoff
from postroom.messaging.dead_letter import dead_letter_topic, fingerprint, replay_count, replay_headers, strip
from postroom.messaging.errors import PostroomError, Verdict, verdict_of
from postroom.messaging.lifecycle import Service


def test_every_error_of_the_tree_has_the_verdict_its_drawing_says() -> None:
    drawn = {}
    verdict = ""
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if words and isinstance(getattr(errors, words[0], None), type):
            verdict = words[1] if len(words) > 1 and words[1].isupper() else verdict
            drawn[words[0]] = verdict
    defined = {
        name: kind.verdict.name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, PostroomError) and kind is not PostroomError
    }

    drawn.pop("PostroomError")
    assert drawn == defined


def test_what_is_not_ours_is_retried() -> None:
    assert verdict_of(ValueError()) is Verdict.RETRY


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(10, 1000), st.integers())
def test_backoff_is_full_jitter_below_a_capped_doubling(failures: int, base: float, cap: float, seed: int) -> None:
    delay = Backoff(base, cap).delay(failures, random.Random(seed))

    assert 0 <= delay <= min(cap, base * 2 ** min(failures - 1, 60))


def test_backoff_without_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="0 < base <= cap"):
        Backoff(base=2, cap=1)


class Waiting(Service):
    def __init__(self, failure: BaseException | None = None) -> None:
        super().__init__("waiting")
        self.failure = failure
        self.ran = Event()

    def _run(self) -> None:
        self.ran.set()
        if self.failure:
            raise self.failure
        self._stopping.wait()


def test_a_service_may_be_stopped_twice_and_before_it_starts() -> None:
    service = Waiting()
    service.stop()
    service.start()
    service.stop()

    assert service.join(1)
    assert not service.ran.is_set()


def test_a_service_runs_once_and_ends_when_it_is_stopped() -> None:
    service = Waiting()
    service.start()
    service.start()
    assert service.ran.wait(5)
    assert service.running
    assert not service.join(0.01)
    service.stop()

    assert service.join(5)
    assert not service.running


def test_join_raises_what_ended_the_service() -> None:
    service = Waiting(KeyError("gone"))
    service.start()

    with pytest.raises(KeyError, match="gone"):
        service.join(5)


def test_a_replay_strips_what_a_death_added_and_counts_itself() -> None:
    own = [("ce_id", b"1"), ("postroom_trace", b"kept"), ("x", b"\xff")]
    dead = [*own, ("__dlq.errors.topic", b"t"), ("postroom_dlq_stack", b"..."), ("postroom_dlq_replay_count", b"2")]

    replayed = replay_headers(dead, "billing")

    assert strip(replayed) == own
    assert replay_count(replayed) == 3
    assert dict(replayed)["postroom_replay_group"] == b"billing"


def test_the_replay_of_an_edited_dead_letter_tells_what_it_replaces_and_a_death_takes_that_off() -> None:
    own = [("ce_id", b"new")]
    dead = [*own, ("postroom_dlq_inbox_id", b"key:k"), ("postroom_replay_of", b"older")]

    replayed = replay_headers(dead, "billing", "key:k")

    assert replayed == [
        *own,
        ("postroom_replay_count", b"1"),
        ("postroom_replay_group", b"billing"),
        ("postroom_replay_of", b"key:k"),
    ]
    assert strip(replayed) == own
    assert "postroom_replay_of" not in dict(replay_headers(dead, "billing"))


def test_dead_letters_belong_to_a_group() -> None:
    assert dead_letter_topic("orders", "billing") == "orders.billing.dlq"


def refuse(kind: type[Exception], number: int) -> None:
    raise kind(f"order {number} of 'customer-{number}' is bad")


def test_the_fingerprint_knows_the_same_failure_with_other_numbers() -> None:
    def fail(number: int, kind: type[Exception] = ValueError) -> Exception:
        try:
            refuse(kind, number)
        except kind as error:
            return error
        return AssertionError("not refused")

    assert fingerprint(fail(1), "charge") == fingerprint(fail(22), "charge")
    assert fingerprint(fail(1), "charge") != fingerprint(fail(1), "ship")
    assert fingerprint(fail(1), "charge") != fingerprint(fail(1, KeyError), "charge")
