"""The states of a dead letter, and the only ways from one to another.

    plan         dead ─▶ planned                       into a frozen plan
    cancel       planned ─▶ dead                       the plan was given up
    replay       planned ─▶ replayed                   it is in the outbox
    confirm      replayed ─▶ confirmed                 its group's inbox handled it
    fail         replayed ─▶ failed-again              it died again: that is a letter of its own, which follows it
    expire       replayed ─▶ dead                      its deadline passed before it was handled
    quarantine   dead ─▶ quarantined                   the same failure after too many replays
    release      quarantined ─▶ dead                   an operator lets it go on
    edit         dead, quarantined ─▶ discarded        a letter with a new id takes its place
    discard      all but confirmed ─▶ discarded
    reopen       discarded, replayed, confirmed ─▶ dead
    forget       any ─▶ discarded                      its contents are erased

Whatever changes a state is written to ``dead_letter_action`` in the same transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a dead letter stands."""

    DEAD = "dead"
    PLANNED = "planned"
    REPLAYED = "replayed"
    CONFIRMED = "confirmed"
    FAILED_AGAIN = "failed-again"
    DISCARDED = "discarded"
    QUARANTINED = "quarantined"


#: What somebody still has to look after.
OPEN = frozenset({State.DEAD, State.PLANNED, State.REPLAYED, State.QUARANTINED})


@dataclass(frozen=True, slots=True)
class Transition:
    """A way from some states to another."""

    sources: frozenset[State]
    target: State


def _from(*sources: State, to: State) -> Transition:
    return Transition(frozenset(sources), to)


_S = State
#: By the name under which each is written down.
TRANSITIONS: Mapping[str, Transition] = MappingProxyType(
    {
        "plan": _from(_S.DEAD, to=_S.PLANNED),
        "cancel": _from(_S.PLANNED, to=_S.DEAD),
        "replay": _from(_S.PLANNED, to=_S.REPLAYED),
        "confirm": _from(_S.REPLAYED, to=_S.CONFIRMED),
        # From dead and planned, too: somebody else replayed it, and a later death is in the ledger.
        "fail": _from(_S.REPLAYED, _S.DEAD, _S.PLANNED, to=_S.FAILED_AGAIN),
        "expire": _from(_S.REPLAYED, to=_S.DEAD),
        "quarantine": _from(_S.DEAD, to=_S.QUARANTINED),
        "release": _from(_S.QUARANTINED, to=_S.DEAD),
        "edit": _from(_S.DEAD, _S.QUARANTINED, to=_S.DISCARDED),
        "discard": _from(_S.DEAD, _S.PLANNED, _S.REPLAYED, _S.QUARANTINED, _S.FAILED_AGAIN, to=_S.DISCARDED),
        "reopen": _from(_S.DISCARDED, _S.REPLAYED, _S.CONFIRMED, to=_S.DEAD),
        "forget": _from(*_S, to=_S.DISCARDED),
    }
)
