"""The daemons' logs: every step that an observer is told becomes an event on stderr.

What handlers and libraries log, by structlog or by ``logging``, becomes a line of the same form.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from ..messaging.correlation import inherited
from ..messaging.envelope import IDEMPOTENCY_KEY
from ..messaging.observer import Observer
from ..messaging.records import Partition
from ..messaging.redact import MASK, Redaction
from .errors import masked
from .events import LEVELS
from .output import colours

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: A step with one of these facts may tell an error that a handler raised.
_OF_HANDLERS = frozenset({"handler", "message_id"})


#: Facts that stand in headers of the message, which may be among those to redact.
_IN_HEADERS = {
    "correlation_id": ("correlation_id", "ce_id", IDEMPOTENCY_KEY),
    "id": ("ce_id",),
    "message_id": ("ce_id", IDEMPOTENCY_KEY),
    "sent_at": ("ce_time",),
    "type": ("ce_type",),
}
_IN_URL = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")
_ASSIGNED = re.compile(r"((?:password|passwd|pwd|secret|token)['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&]+", re.IGNORECASE)


def observer(
    log_format: str, log_level: str, redaction: Redaction, secrets: Sequence[str] = (), **context: Any
) -> Observer:
    """Configure structlog and return an observer that writes with it. ``context`` goes along with each event.

    With a ``redaction``, of a handler's error only the class is written: its text may quote the message, and the log
    has no record to compare it with. The tables have it, and the commands show it masked. ``secrets``, and whatever
    else looks like a password, are masked wherever they stand.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours(sys.stderr), pad_event_to=14, exception_formatter=structlog.dev.plain_traceback
        )
    hidden = [name for name, headers in _IN_HEADERS.items() if _redacts(redaction, headers)]

    def completed(_logger: object, _method: str, event: EventDict) -> EventDict:
        event = {**_of_message(), **event}
        event |= dict.fromkeys(event.keys() & hidden, MASK)
        return {name: _plain(value, secrets) for name, value in event.items()}

    before: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        completed,
    ]
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    _hear_others([structlog.stdlib.add_logger_name, *before], renderer, _LEVELS[log_level])
    log = structlog.get_logger(**context)

    def observe(step: str, /, **facts: Any) -> None:
        level = LEVELS.get(step, "debug")
        if _LEVELS[level] < _LEVELS[log_level]:
            return
        if redaction and not facts.keys().isdisjoint(_OF_HANDLERS):
            facts = {name: _unquoted(value) for name, value in facts.items()}
        getattr(log, level)(step, **facts)

    return observe


def _hear_others(before: list[Processor], renderer: Processor, level: int) -> None:
    """Let what is told to ``logging`` become such lines, unless somebody has set that up already."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(foreign_pre_chain=before, processors=[ProcessorFormatter.remove_processors_meta, renderer])
    )
    root.addHandler(handler)
    root.setLevel(max(level, logging.INFO))


def _of_message() -> dict[str, str]:
    """Which message is being handled here, if one is."""
    names = {"correlation_id": "correlation_id", "message_id": "causation_id"}
    return {name: told for name, header in names.items() if (told := inherited().get(header))}


def _redacts(redaction: Redaction, headers: Sequence[str]) -> bool:
    return any(value == MASK.encode() for _, value in redaction.headers([(name, b"") for name in headers]))


def _unquoted(value: Any) -> Any:
    """An error without its text."""
    return f"{type(value).__name__}: {MASK}" if isinstance(value, BaseException) else value


def _plain(value: Any, secrets: Sequence[str]) -> Any:
    """``value`` as JSON has it."""
    if isinstance(value, BaseException):
        return _safe(str(value) or type(value).__name__, secrets)
    if isinstance(value, Partition):
        return str(value)
    if isinstance(value, str):
        return _safe(value, secrets)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, secrets) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


def _safe(text: str, secrets: Sequence[str]) -> str:
    """Without passwords."""
    text = _IN_URL.sub(r"\1:***@", masked(text, secrets))
    return _ASSIGNED.sub(r"\1***", text)
