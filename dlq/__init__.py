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

from .browse import SORTS, Page, Sort, count, each, find, get, neighbours
from .edit import KEPT, Repair, edit, edited
from .erase import CLOSED, changeable, discard, purge, release, reopen
from .exchange import FORMATS, Format, Imported, export_letters, import_letters
from .filter import Filter
from .forget import Forgotten, Whose, forget
from .ingest import Caught, catch_up, find_topics
from .ledger import Action, Ledger
from .letter import DeadLetter, Place
from .patch import changes, patched, pretty
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
from .settle import settle
from .states import OPEN, TRANSITIONS, State
from .statistics import BYS, By, Group, Statistics, statistics

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
    "Draft",
    "Filter",
    "Forgotten",
    "Format",
    "Group",
    "Imported",
    "Ledger",
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
    "make_plan",
    "neighbours",
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
