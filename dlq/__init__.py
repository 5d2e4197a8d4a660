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

from .choices import BYS, FORMATS, SORTS, By, Format, Sort
from .states import OPEN, TRANSITIONS, State

if TYPE_CHECKING:
    from .browse import Page, count, each, find, get, last_id, neighbours
    from .disposal import CLOSED, changeable, discard, purge, release, reopen
    from .erasure import Forgotten, Whose, forget
    from .exchange import Imported, export_letters, import_letters
    from .filter import Filter
    from .groups import Group, OpenCount, Statistics, open_counts, statistics
    from .ingest import Caught, catch_up, find_topics, last_read
    from .ledger import Action, Ledger
    from .letter import DeadLetter, Place
    from .mask import masked
    from .outcomes import knows, settle
    from .patch import changes, compact, patched, pretty
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
    from .repair import KEPT, Repair, edit, edited
    from .replay import Ran, await_settled, run_plan
    from .settings import DlqSettings

__all__ = [
    "BYS",
    "CLOSED",
    "FORMATS",
    "KEPT",
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
    "Forgotten",
    "Format",
    "Group",
    "Imported",
    "Ledger",
    "OpenCount",
    "Pace",
    "Page",
    "Place",
    "Plan",
    "Ran",
    "Refusal",
    "Repair",
    "Sort",
    "State",
    "Statistics",
    "Whose",
    "await_settled",
    "cancel_plan",
    "catch_up",
    "changeable",
    "changes",
    "compact",
    "count",
    "discard",
    "draft_plan",
    "each",
    "edit",
    "edited",
    "export_letters",
    "find",
    "find_plan",
    "find_plans",
    "find_topics",
    "forget",
    "get",
    "import_letters",
    "knows",
    "last_id",
    "last_read",
    "make_plan",
    "masked",
    "neighbours",
    "open_counts",
    "patched",
    "pretty",
    "purge",
    "release",
    "reopen",
    "run_plan",
    "set_pace",
    "settle",
    "statistics",
]

#: Imported at the first use: what the options name is for every command.
_LAZY = {
    "CLOSED": ".disposal",
    "KEPT": ".repair",
    "Action": ".ledger",
    "Aim": ".plan",
    "Caught": ".ingest",
    "DeadLetter": ".letter",
    "DlqSettings": ".settings",
    "Draft": ".plan",
    "Filter": ".filter",
    "Forgotten": ".erasure",
    "Group": ".groups",
    "Imported": ".exchange",
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
    "Repair": ".repair",
    "Whose": ".erasure",
    "await_settled": ".replay",
    "cancel_plan": ".plan",
    "catch_up": ".ingest",
    "changeable": ".disposal",
    "changes": ".patch",
    "compact": ".patch",
    "count": ".browse",
    "discard": ".disposal",
    "draft_plan": ".plan",
    "each": ".browse",
    "edit": ".repair",
    "edited": ".repair",
    "export_letters": ".exchange",
    "find": ".browse",
    "find_plan": ".plan",
    "find_plans": ".plan",
    "find_topics": ".ingest",
    "forget": ".erasure",
    "get": ".browse",
    "import_letters": ".exchange",
    "knows": ".outcomes",
    "last_id": ".browse",
    "last_read": ".ingest",
    "make_plan": ".plan",
    "masked": ".mask",
    "neighbours": ".browse",
    "patched": ".patch",
    "pretty": ".patch",
    "purge": ".disposal",
    "release": ".disposal",
    "reopen": ".disposal",
    "run_plan": ".replay",
    "set_pace": ".plan",
    "settle": ".outcomes",
    "statistics": ".groups",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
