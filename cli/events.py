"""The events of the daemons' logs: the one place that says what there is, how important it is, and what it tells.

``docs/reference/logs.md`` is made of it. The names are those of the observers' steps, and they stay as they are.
"""

from typing import Literal, NamedTuple

Level = Literal["debug", "info", "warning"]
#: Whose message it is; what every event about one message has.
MESSAGE = ("topic", "partition", "offset", "message_id", "type", "correlation_id", "sent_at")
_RELAY, _INBOX, _BOTH = "relay", "inbox", "relay, inbox"


class Event(NamedTuple):
    """``services``: who tells it. ``facts``: by name; ``MESSAGE`` besides where it is about one consumed message."""

    name: str
    level: Level
    services: str
    facts: tuple[str, ...]
    meaning: str
    of_message: bool = False


EVENTS = (
    Event("starting", "info", _BOTH, ("owner", "topics", "bootstrap_servers"), "the process starts"),
    Event("probed", "info", _BOTH, ("address", "port"), "probes and metrics are served there"),
    Event("started", "info", _BOTH, (), "the tables are there; work begins"),
    Event("signalled", "info", _BOTH, ("signal",), "SIGTERM or SIGINT came; it ends in phases"),
    Event("stopping", "info", _RELAY, (), "what is in flight is finished"),
    Event("stopped", "info", _BOTH, (), "it has ended"),
    Event(
        "paused",
        "warning",
        _BOTH,
        ("error", "seconds", "handler"),
        "something is away; the next try comes after so long. With a handler: what that handler needs",
    ),
    Event("resumed", "info", _BOTH, ("failures", "reason", "handler"), "it is back, or an operator lets it go on"),
    Event(
        "held_back",
        "warning",
        _BOTH,
        ("reason", "handler"),
        "an operator paused the relay or a handler, or its limit in another member did",
    ),
    Event("claimed", "info", _RELAY, ("shards",), "the shards that this relay owns changed"),
    Event("read", "debug", _RELAY, ("count", "positions"), "a batch was read"),
    Event(
        "published",
        "debug",
        _RELAY,
        ("count", "positions", "topics", "latencies"),
        "Kafka acknowledged them; seconds since some of them were written",
    ),
    Event("settled", "debug", _RELAY, ("count", "parked"), "the cursors moved past so many"),
    Event("interrupted", "warning", _RELAY, ("count", "error"), "publishing failed in the middle and is sorted out"),
    Event(
        "in_doubt",
        "warning",
        _RELAY,
        ("count",),
        "so many may be published twice: unanswered or unsettled when a lease or a connection was lost",
    ),
    Event(
        "parked",
        "warning",
        _RELAY,
        ("topic", "id", "correlation_id", "position", "error"),
        "Kafka refused a message for good",
    ),
    Event("unparked", "info", _RELAY, ("count",), "parked messages were published after all"),
    Event("moved_due", "info", _RELAY, ("count",), "delayed messages went into the log"),
    Event("pruned", "info", _RELAY, ("parts",), "what the retention no longer holds was dropped"),
    Event("inbox_pruned", "info", _RELAY, ("parts",), "likewise of the inbox"),
    Event(
        "transaction_open",
        "warning",
        _RELAY,
        ("pid", "application", "user", "seconds", "state"),
        "somebody's open transaction keeps its messages waiting",
    ),
    Event("not_allowed", "warning", _RELAY, ("duty", "error"), "the database does not let the relay do a duty"),
    Event("waiting", "warning", _RELAY, ("seconds",), "Kafka has not acknowledged anything for so long"),
    Event("stepped_aside", "warning", _RELAY, ("error",), "its shards were left to relays that reach Kafka"),
    Event("fenced", "warning", _RELAY, ("error",), "a lease was lost; it begins again from the cursors"),
    Event("assigned", "info", _INBOX, ("partitions",), "the group gave these partitions to this member"),
    Event("revoked", "info", _INBOX, ("partitions",), "it took them away"),
    Event("received", "debug", _INBOX, (), "a message was polled", of_message=True),
    Event("attempt", "debug", _INBOX, ("handler", "attempt"), "its handler is about to be tried", of_message=True),
    Event(
        "applied",
        "debug",
        _INBOX,
        ("handler", "attempt", "seconds"),
        "the handler returned; nothing is committed yet",
        of_message=True,
    ),
    Event(
        "raised",
        "debug",
        _INBOX,
        ("handler", "attempt", "seconds", "error"),
        "the handler raised; what comes of it is told next",
        of_message=True,
    ),
    Event("handled", "debug", _INBOX, ("handler", "attempt"), "its transaction is committed", of_message=True),
    Event("duplicate", "debug", _INBOX, ("handler", "attempt"), "it was closed before", of_message=True),
    Event("expired", "debug", _INBOX, ("handler",), "it came too late; recorded, not run", of_message=True),
    Event("skipped", "debug", _INBOX, (), "the group has no handler for its type", of_message=True),
    Event("not_for_group", "debug", _INBOX, (), "a replay for another group", of_message=True),
    Event("batch_failed", "debug", _INBOX, ("handler", "count", "error"), "one of so many failed; each is tried alone"),
    Event(
        "retried",
        "warning",
        _INBOX,
        ("attempt", "error", "seconds"),
        "an attempt failed; the next one comes after so long",
        of_message=True,
    ),
    Event(
        "held",
        "debug",
        _INBOX,
        ("handler", "attempts", "behind", "seconds"),
        "it waits in the table for that, and so many of its key behind it",
        of_message=True,
    ),
    Event("shelved", "debug", _INBOX, ("handler",), "it waits in the table behind one of its key", of_message=True),
    Event(
        "condemned", "debug", _INBOX, ("attempts", "error"), "its dead letter is about to be committed", of_message=True
    ),
    Event(
        "dead_lettered",
        "warning",
        _INBOX,
        ("handler", "attempts", "error"),
        "it became a dead letter",
        of_message=True,
    ),
    Event(
        "result_not_kept",
        "warning",
        _INBOX,
        ("handler", "returned"),
        "what its handler returned, of this type, is no JSON, or has over 64 KiB",
        of_message=True,
    ),
    Event(
        "limited",
        "warning",
        _INBOX,
        ("handler", "limit", "reason"),
        "too many of its messages died within a minute: it is paused in every member of the group",
    ),
    Event("policy_changed", "info", _INBOX, ("handler", "policy"), "an operator changed how a handler is treated"),
    Event("policy_refused", "warning", _INBOX, ("handler", "error"), "what an operator wants cannot be"),
    Event(
        "overdue",
        "warning",
        _INBOX,
        ("handler", "seconds"),
        "a handler takes longer than its timeout; of a batch the first message",
        of_message=True,
    ),
    Event(
        "kafka_unavailable", "warning", _INBOX, ("error", "seconds"), "no broker answers; it tries again after so long"
    ),
    Event("committed", "debug", _INBOX, ("offsets",), "the next offset by partition is stored in Kafka"),
    Event(
        "not_committed", "warning", _INBOX, ("offsets", "error"), "it is not; these records come again, as duplicates"
    ),
)
LEVELS: dict[str, Level] = {event.name: event.level for event in EVENTS}
