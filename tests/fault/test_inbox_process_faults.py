"""P3, P5, P6, P7: inbox processes killed at each step, and by their own handlers, with batches and held keys."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("postroom_real_kafka")

#: A member with a name takes up its partitions at once after it was killed.
NAMED = {"instance_id": "the-one"}
FAILS, DIES = "key-1/3", "key-2/4"


@pytest.mark.parametrize(
    ("step", "of", "after"),
    [
        ("applied", None, 5),  # between handler and commit
        pytest.param("handled", None, 5, marks=pytest.mark.slow),  # between commit and offset
        pytest.param("committed", None, 1, marks=pytest.mark.slow),
        pytest.param("retried", FAILS, 2, marks=pytest.mark.slow),  # its key is about to be held
        ("held", FAILS, 1),
        ("attempt", FAILS, 3),  # in the table
        pytest.param("applied", FAILS, 1, marks=pytest.mark.slow),
        ("handled", FAILS, 1),
        pytest.param("handled", "key-1/4", 1, marks=pytest.mark.slow),  # was behind it
        ("condemned", DIES, 1),
        pytest.param("dead_lettered", DIES, 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_step_loses_nothing_repeats_nothing_and_keeps_the_order(
    ledger: Any, consumers: Any, eventually: Any, step: str, of: str | None, after: int
) -> None:
    told = {
        "settings": {**NAMED, "attempts": 4, "concurrency": 4, "max_poll_records": 20},
        "fails": {FAILS: 2, DIES: 99},
        "tell": ["started", step],
    }
    ledger.send(120, keys=6)

    killed = consumers(**told, fall_at=step, fall_of=of, fall_after=after)
    assert killed.ended(60) == -signal.SIGKILL
    successor = consumers(**told)
    eventually(lambda: ledger.closed() == 120, "all are closed")
    assert successor.end() == 0

    ledger.check(dead=[DIES])


def test_a_kill_while_messages_are_put_behind_a_held_one_keeps_the_order(
    ledger: Any, consumers: Any, eventually: Any, tmp_path: Path
) -> None:
    flag = tmp_path / "fails"
    flag.touch()
    told = {
        "settings": {**NAMED, "attempts": 1_000, "concurrency": 2},
        "fails": {FAILS: 999},
        "while_exists": str(flag),
    }
    ledger.send(60, keys=6)
    killed = consumers(**told, tell=["held"], fall_at="shelved", fall_after=3)
    killed.await_step("held")
    ledger.send(60, keys=6)
    assert killed.ended(60) == -signal.SIGKILL
    flag.unlink()
    successor = consumers(**told, tell=["started"])
    eventually(lambda: ledger.closed() == 120, "all are closed")
    assert successor.end() == 0

    ledger.check()


def test_a_kill_in_the_midst_of_batches_loses_nothing_and_repeats_nothing(
    ledger: Any, consumers: Any, eventually: Any
) -> None:
    settings = {**NAMED, "concurrency": 4, "batch_size": 20}
    ledger.create(6)
    ledger.send(2_000, keys=50)
    for step in ("applied", "handled"):
        killed = consumers(settings=settings, tell=["started"], fall_at=step, fall_after=130)
        assert killed.ended(60) == -signal.SIGKILL
    successor = consumers(settings=settings, tell=["attempt", "handled"])
    eventually(lambda: ledger.closed() == 2_000, "all are closed")
    assert successor.end() == 0

    ledger.check()


def restarted(
    start: Callable[[], Any], is_done: Callable[[], bool], eventually: Any, killer: str = "key-3/5"
) -> tuple[Any, int]:
    """The process that lived, after so many that a handler ended."""
    for ended in range(20):
        process = start()
        eventually(lambda process=process: not process.running or is_done(), "it ended, or all is done")
        if process.running:
            process.await_step("dead_lettered")
            return process, ended
        assert process.ended() == 7
        if ended:  # what the one before left was tried with nothing beside it
            ends = process.of("handled") + process.of("duplicate")
            unfinished = {told["message_id"] for told in process.of("attempt")} - {told["message_id"] for told in ends}
            assert unfinished == {killer}
    pytest.fail("it never came through")


@pytest.mark.parametrize(
    ("attempts", "batch_size", "crashes"),
    [pytest.param(3, 1, 3, marks=pytest.mark.slow), (3, 20, 3), pytest.param(1, 20, 2, marks=pytest.mark.slow)],
)
def test_a_message_that_ends_its_process_each_time_is_a_dead_letter_and_costs_no_other(
    ledger: Any, consumers: Any, eventually: Any, attempts: int, batch_size: int, crashes: int
) -> None:
    told = {
        "settings": {**NAMED, "attempts": attempts, "batch_size": batch_size, "concurrency": 2},
        "kills": ["key-3/5"],
    }
    ledger.send(100, keys=10)
    process, ended = restarted(lambda: consumers(**told), lambda: ledger.closed() == 100, eventually)
    assert process.end() == 0

    assert ended == crashes
    ledger.check(dead=["key-3/5"])
    [facts] = process.of("dead_lettered")
    assert facts["attempts"] == crashes
    [(diagnosis,)] = ledger.query("SELECT headers::text FROM postroom.outbox")
    assert "HandlerCrashed" in diagnosis
    assert f"{crashes} times" in diagnosis


@pytest.mark.slow
def test_a_held_message_that_ends_its_process_each_time_is_a_dead_letter(
    ledger: Any, consumers: Any, eventually: Any, tmp_path: Path
) -> None:
    flag = tmp_path / "kills"
    told: dict[str, Any] = {
        "settings": {**NAMED, "attempts": 5, "backoff_base_seconds": 0.5, "backoff_cap_seconds": 0.5}
    }
    told |= {"fails": {"key-3/5": 99}, "kills": ["key-3/5"], "while_exists": str(flag)}
    ledger.send(100, keys=10)
    flag.touch()
    held = consumers(**{**told, "kills": []}, fall_at="held")
    assert held.ended() == -signal.SIGKILL
    process, ended = restarted(lambda: consumers(**told), lambda: ledger.closed() == 100, eventually)
    assert process.end() == 0

    assert ended == 3, "two failed in hand"
    ledger.check(dead=["key-3/5"])


def test_killed_from_outside_time_and_again_costs_no_message_its_attempts(
    ledger: Any, consumers: Any, eventually: Any
) -> None:
    """Whatever was begun is tried with care afterwards; killed less often than it may be, none is held at fault."""
    settings = {**NAMED, "attempts": 4, "batch_size": 10, "concurrency": 4}
    ledger.create(2)
    ledger.send(200, keys=20)
    for _ in range(3):
        process = consumers(settings=settings, tell=["handled"])
        process.await_step("handled", 3)
        process.end(signal.SIGKILL)
    process = consumers(settings=settings, tell=["started"])
    eventually(lambda: ledger.closed() == 200, "all are closed")
    assert process.end() == 0

    ledger.check()
