"""Whatever operators, inboxes and deaths do in whatever order: letters only go the ways that there are."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from postroom.dlq import TRANSITIONS, Filter, Pace, State, cancel_plan, count, find_plan, find_plans, settle

OUTCOMES = ("handled", "dead-lettered", "expired", "discarded")
#: What an operator does to letters by hand.
BY_HAND = ("release", "discard", "reopen", "quarantine", "forget", "edit")


class LedgerMachine(RuleBasedStateMachine):
    """Dead letters of five messages, and all that is done to them."""

    new_desk: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.desk = type(self).new_desk()
        self.deaths: Counter[int] = Counter()
        self.records = 0
        self.frozen: dict[int, frozenset[int]] = {}

    @rule(n=st.integers(0, 4), told=st.sampled_from(["no stock", "no money"]))
    def die(self, n: int, told: str) -> None:
        self.desk.die(n, replays=self.deaths[n], offset=10 * self.records + n, told=told)
        self.deaths[n] += 1
        self.records += 1

    @rule()
    def catch_up(self) -> None:
        self.desk.catch_up(max_replays=2)

    @rule(limit=st.none() | st.integers(1, 3), again=st.booleans(), steps=st.sampled_from([(), (1,), (1, 2)]))
    def plan(self, limit: int | None, again: bool, steps: tuple[int, ...]) -> None:
        plan, draft = self.desk.plan(limit=limit, again=again, pace=Pace(steps, None, 0.5))
        assert (plan is None) == (not draft.letters)
        if plan is not None:
            assert plan.total == len(draft.letters)
            self.frozen[plan.id] = frozenset(draft.letters)

    @precondition(lambda self: self.frozen)
    @rule(data=st.data(), batches=st.integers(0, 3))
    def run(self, data: st.DataObject, batches: int) -> None:
        plan = find_plan(self.desk.ledger, data.draw(st.sampled_from(sorted(self.frozen))))
        turns = iter(range(100))
        self.desk.run(plan, batch=1, wait=lambda _: next(turns) >= batches, step_timeout=0, unconfirmed_go_on=True)

    @precondition(lambda self: self.frozen)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        cancel_plan(self.desk.ledger, data.draw(st.sampled_from(sorted(self.frozen))), "eve@host")

    @rule(n=st.integers(0, 4), outcome=st.sampled_from(OUTCOMES), replays=st.integers(0, 3))
    def settle(self, n: int, outcome: str, replays: int) -> None:
        self.desk.closes(n, outcome, replays)
        settle(self.desk.ledger)

    @rule(data=st.data(), verb=st.sampled_from(BY_HAND))
    def by_hand(self, data: st.DataObject, verb: str) -> None:
        letters = self.desk.letters()
        if not letters:
            return
        chosen = data.draw(st.lists(st.sampled_from(letters), min_size=1, max_size=3, unique_by=lambda each: each.id))
        expected = sum(letter.state in TRANSITIONS[verb].sources for letter in chosen)
        assert self.desk.change(verb, *(letter.id for letter in chosen)) == expected
        after = {letter.id: letter.state for letter in self.desk.letters()}
        for letter in chosen:
            taken = letter.state in TRANSITIONS[verb].sources
            assert after[letter.id] == (TRANSITIONS[verb].target if taken else letter.state)

    @invariant()
    def every_change_is_written_down_and_is_one_that_there_is(self) -> None:
        stands: dict[int, str] = defaultdict(lambda: State.DEAD.value)
        replays: Counter[tuple[int | None, int]] = Counter()
        planned: defaultdict[int | None, set[int]] = defaultdict(set)
        sent = 0
        for action in reversed(self.desk.ledger.actions(limit=100_000)):
            assert action.letter is not None
            transition = TRANSITIONS[action.action]
            assert action.before == stands[action.letter]
            assert action.before in transition.sources
            assert action.after == transition.target
            stands[action.letter] = action.after
            if action.action == "plan":
                planned[action.plan].add(action.letter)
            if action.action == "replay":
                replays[action.plan, action.letter] += 1
                sent += 1
        letters = self.desk.letters()
        for letter in letters:
            assert letter.state == stands[letter.id]
        assert set(replays.values()) <= {1}, "a plan sends each of its letters once"
        assert planned == self.frozen, "and never another one"
        assert all(letter in self.frozen[plan] for plan, letter in replays if plan is not None)
        assert len(self.desk.published()) == sent

    @invariant()
    def counts_add_up(self) -> None:
        letters = self.desk.letters()
        assert len({(letter.place, letter.incarnation) for letter in letters}) == len(letters) <= self.records
        assert count(self.desk.ledger, Filter()) == Counter(letter.state.value for letter in letters)
        for plan in find_plans(self.desk.ledger):
            assert plan.counts == Counter(letter.state.value for letter in letters if letter.plan_id == plan.id)
            assert plan.state != "done" or plan.next is None
            ordinals = [letter.ordinal for letter in letters if letter.plan_id == plan.id]
            assert len(set(ordinals)) == len(ordinals)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_letters_go_only_the_ways_that_there_are(desks: Any) -> None:
    machine = type("Machine", (LedgerMachine,), {"new_desk": staticmethod(desks)})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    examples = 5 if "postgresql" in desks().url else 20
    how = settings(max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=how)
