"""The daemons' logs: every step that an observer is told becomes an event on stderr."""

import sys
from collections.abc import Mapping
from typing import Any

import structlog

from ..messaging.observer import Observer
from ..messaging.records import Partition
from ..messaging.redact import MASK, Redaction
from .output import colours

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_WARNINGS = frozenset(
    {
        "dead_lettered",
        "fenced",
        "held_back",
        "interrupted",
        "kafka_unavailable",
        "limited",
        "not_allowed",
        "not_committed",
        "parked",
        "paused",
        "retried",
        "stepped_aside",
        "transaction_open",
        "waiting",
    }
)
#: Of a daemon's life; every other step happens for each batch or message.
_INFOS = frozenset(
    {
        "assigned",
        "claimed",
        "moved_due",
        "probed",
        "pruned",
        "inbox_pruned",
        "resumed",
        "revoked",
        "signalled",
        "started",
        "starting",
        "stopped",
        "stopping",
        "unparked",
    }
)
#: A step with one of these facts may tell an error that a handler raised.
_OF_HANDLERS = frozenset({"handler", "message_id"})


def observer(log_format: str, log_level: str, redaction: Redaction, **context: Any) -> Observer:
    """Configure structlog and return an observer that writes with it. ``context`` goes along with each event.

    With a ``redaction``, of a handler's error only the class is written: its text may quote the message, and the log
    has no record to compare it with. The tables have it, and the commands show it masked.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(colors=colours(sys.stderr), pad_event_to=14)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    log = structlog.get_logger(**context)

    def observe(step: str, /, **facts: Any) -> None:
        level = "warning" if step in _WARNINGS else "info" if step in _INFOS else "debug"
        if redaction and not facts.keys().isdisjoint(_OF_HANDLERS):
            facts = {name: _unquoted(value) for name, value in facts.items()}
        getattr(log, level)(step, **{name: _plain(value) for name, value in facts.items()})

    return observe


def _unquoted(value: Any) -> Any:
    """An error without its text."""
    return f"{type(value).__name__}: {MASK}" if isinstance(value, BaseException) else value


def _plain(value: Any) -> Any:
    """``value`` as JSON has it."""
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    if isinstance(value, Partition):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value
