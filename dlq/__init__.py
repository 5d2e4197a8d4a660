"""Dead letters: find them, look at them, replay them. The command line only parses and prints.

    topics = kafka.topics().partitions()
    reader, ledger = kafka.reader(), Ledger(database_url)
    letters = read(reader, find_topics(topics), Filter(group="billing", error="Timeout"))
    plan = make_plan(letters, ledger, existing=topics)
    run_plan(plan, reader, ledger, actor="ada@host", reason="the gateway is back")

Nothing here reads the environment, prints or asks.
"""

from .browse import Filter, fetch, find_topics, newest, oldest, read
from .ledger import Action, Ledger
from .letter import DeadLetter, Place
from .replay import Plan, Planned, Replayed, make_plan, run_plan

__all__ = [
    "Action",
    "DeadLetter",
    "Filter",
    "Ledger",
    "Place",
    "Plan",
    "Planned",
    "Replayed",
    "fetch",
    "find_topics",
    "make_plan",
    "newest",
    "oldest",
    "read",
    "run_plan",
]
