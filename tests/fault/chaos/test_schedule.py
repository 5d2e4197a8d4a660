"""The seed says it all: the same one makes the same schedule, and each run has some of everything."""

from collections import defaultdict

import pytest

from .schedule import KINDS, make_schedule

BOTH = {"disk", "clock"}


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_makes_one_schedule(seed: int) -> None:
    schedule = make_schedule(seed, 120, BOTH)
    assert schedule == make_schedule(seed, 120, BOTH)
    assert schedule != make_schedule(seed + 1, 120, BOTH)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_of_fault_comes_and_is_over_at_the_end(seed: int) -> None:
    schedule = make_schedule(seed, 60, BOTH)
    assert {fault.kind for fault in schedule} == KINDS.keys()
    assert max(fault.at + fault.seconds for fault in schedule) <= 60
    assert [fault.at for fault in schedule] == sorted(fault.at for fault in schedule)


@pytest.mark.parametrize("seed", range(20))
def test_no_two_faults_are_on_one_thing_at_once(seed: int) -> None:
    ends: dict[str, float] = defaultdict(float)
    for fault in make_schedule(seed, 600, BOTH):
        assert fault.at >= ends[fault.resource]
        ends[fault.resource] = fault.at + fault.seconds


def test_what_the_machine_cannot_do_is_left_out() -> None:
    assert {fault.kind for fault in make_schedule(1, 600, set())} == KINDS.keys() - {"disk full", "clock"}
