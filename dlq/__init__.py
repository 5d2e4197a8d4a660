"""Dead letters: find them, look at them, repair them, replay them. The command line only parses and prints.

    ledger, reader = Ledger(database_url), kafka.reader()
    topics = kafka.topics().partitions()
    catch_up(reader, ledger, find_topics(topics))
    wanted = Filter(group="billing", error="Timeout")
    plan, draft = make_plan(ledger, wanted, existing=topics, actor="ada@host", told="Timeouts of billing")
    if plan is not None:
        run_plan(ledger, plan.id, actor="ada@host", reason="the gateway is back")

Nothing here reads the environment, prints or asks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .choices import BYS, SORTS, By, Sort
from .states import OPEN, TRANSITIONS, State

if TYPE_CHECKING:
    from .browse import Page, count, each, find, get, last_id, neighbours
    from .filter import Filter
    from .groups import Group, OpenCount, Statistics, open_counts, statistics
    from .ingest import Caught, catch_up, find_topics, last_read
    from .ledger import Action, Ledger
    from .letter import DeadLetter, Place
    from .mask import masked
    from .outcomes import knows, settle
    from .plan import (
        Aim,
        Draft,
        Pace,
        Plan,
        Refusal,
        cancel_plan,
        draft_plan,
        find_plan,
        find_plans,
        make_plan,
        set_pace,
    )
    from .replay import Ran, await_settled, run_plan
    from .settings import DlqSettings

__all__ = [
    "BYS",
    "OPEN",
    "SORTS",
    "TRANSITIONS",
    "Action",
    "Aim",
    "By",
    "Caught",
    "DeadLetter",
    "DlqSettings",
    "Draft",
    "Filter",
    "Group",
    "Ledger",
    "OpenCount",
    "Pace",
    "Page",
    "Place",
    "Plan",
    "Ran",
    "Refusal",
    "Sort",
    "State",
    "Statistics",
    "await_settled",
    "cancel_plan",
    "catch_up",
    "count",
    "draft_plan",
    "each",
    "find",
    "find_plan",
    "find_plans",
    "find_topics",
    "get",
    "knows",
    "last_id",
    "last_read",
    "make_plan",
    "masked",
    "neighbours",
    "open_counts",
    "run_plan",
    "set_pace",
    "settle",
    "statistics",
]

#: Imported at the first use: what the options name is for every command.
_LAZY = {
    "DlqSettings": ".settings",
    "Action": ".ledger",
    "Aim": ".plan",
    "Caught": ".ingest",
    "DeadLetter": ".letter",
    "Draft": ".plan",
    "Filter": ".filter",
    "Group": ".groups",
    "Ledger": ".ledger",
    "Pace": ".plan",
    "Page": ".browse",
    "Place": ".letter",
    "Plan": ".plan",
    "Ran": ".replay",
    "Refusal": ".plan",
    "OpenCount": ".groups",
    "Statistics": ".groups",
    "open_counts": ".groups",
    "await_settled": ".replay",
    "cancel_plan": ".plan",
    "catch_up": ".ingest",
    "count": ".browse",
    "draft_plan": ".plan",
    "each": ".browse",
    "find": ".browse",
    "find_plan": ".plan",
    "find_plans": ".plan",
    "find_topics": ".ingest",
    "get": ".browse",
    "knows": ".outcomes",
    "last_id": ".browse",
    "last_read": ".ingest",
    "make_plan": ".plan",
    "masked": ".mask",
    "neighbours": ".browse",
    "run_plan": ".replay",
    "set_pace": ".plan",
    "settle": ".outcomes",
    "statistics": ".groups",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
