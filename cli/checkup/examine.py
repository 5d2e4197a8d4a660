"""All checks, one after the other, and none for ever.

To add one, write a function that takes a ``Patient`` and yields ``Finding``s into the module that it belongs to, and
put it into ``CHECKS``. What it raises of the error tree is told as unknown.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from typing import NamedTuple

from ...messaging.errors import NotAuthorized, PostroomError
from ..errors import sentence
from . import clocks, cluster, database, groups, privileges, program, relays, retention, transactions
from .patient import Finding, Patient

#: For how long a check may take, in seconds.
LONGEST = 30.0


class Check(NamedTuple):
    """``look`` at it by asking ``whom``: the database, Kafka, or nobody."""

    name: str
    whom: str
    look: Callable[[Patient], Iterator[Finding]]


CHECKS: Sequence[Check] = (
    Check("settings", "", program.settings),
    Check("options", "", program.options),
    Check("health", "", program.health),
    Check("versions", "", program.versions),
    Check("database", "database", database.database),
    Check("versions", "database", database.version),
    Check("durability", "database", database.durability),
    Check("sessions", "database", database.sessions),
    Check("privileges", "database", privileges.privileges),
    Check("clock", "database", clocks.clock),
    Check("transaction", "database", transactions.transactions),
    Check("transaction", "database", transactions.prepared),
    Check("slot", "database", transactions.slots),
    Check("wraparound", "database", transactions.wraparound),
    Check("relay", "database", relays.running),
    Check("backlog", "database", relays.backlog),
    Check("parked", "database", relays.parked),
    Check("inbox", "database", groups.paused),
    Check("kafka", "kafka", cluster.kafka),
    Check("topic", "kafka", cluster.topics),
    Check("topic", "kafka", cluster.dead_letter_topics),
    Check("topic", "kafka", cluster.topics_of_the_log),
    Check("copies", "kafka", cluster.copies),
    Check("size", "kafka", cluster.sizes),
    Check("retention", "", retention.of_outbox),
    Check("retention", "kafka", retention.of_topics),
    Check("retention", "database", retention.of_ledger),
    Check("lag", "kafka", groups.lag),
)
"""In the order in which they are told. Later ones find what earlier ones told as absent not worth a word."""


def examine(
    patient: Patient,
    checks: Sequence[Check] = CHECKS,
    longest: float = LONGEST,
    on_done: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """What they find. Each is given up after ``longest`` seconds, and whom it asked is not asked again."""
    found: list[Finding] = []
    for check in checks:
        if check.whom not in patient.silent:
            found += _within(check, patient, longest)
        on_done()
    return found


def _within(check: Check, patient: Patient, longest: float) -> list[Finding]:
    """Nothing that a client library or a driver may wait for holds up more than this thread."""
    found: list[Finding] = []
    thread = Thread(target=_look, args=(check, patient, found), name=f"postroom-doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(longest)
    if not thread.is_alive():
        return found
    if check.whom:
        patient.silent.add(check.whom)
    told = f"not looked at to the end: no answer within {longest:g} s"
    return [
        *found,
        Finding(check.name, check.whom, "problem", told, "See whether what it asks is overloaded or stuck."),
    ]


def _look(check: Check, patient: Patient, found: list[Finding]) -> None:
    try:
        for finding in check.look(patient):
            found.append(finding)  # noqa: PERF402  what was found before it raised, or hung, counts
    except NotAuthorized as error:
        reason = re.search(r"\((.+)\)", sentence(error))
        told = f"not to be seen by this role: {reason[1] if reason else sentence(error)}"
        todo = "It need not; to know, run the doctor as an operator's or a reader's role."
        found.append(Finding(check.name, "", "unknown", told, todo))
    except PostroomError as error:
        found.append(Finding(check.name, "", "unknown", sentence(error), "Run it again when that is mended."))
    except Exception as error:  # noqa: BLE001  the other checks are worth a look all the same
        found.append(Finding(check.name, "", "unknown", sentence(error), "Report it as a bug."))
