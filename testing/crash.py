"""Crash points: a relay or an inbox dies exactly at one of its steps."""

import os
import signal
from collections.abc import Callable
from threading import Lock, get_ident
from typing import Any, Literal, get_args

from ..messaging.errors import UsageError
from ..messaging.observer import Crash, Observer, unobserved

How = Literal["raise", "kill", "freeze"]


def _steps(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


#: The steps of the relay and of the inbox: what each means is told in ``docs/reference/logs.md``.
RELAY_STEPS = _steps(
    "claimed fenced held_back in_doubt inbox_pruned interrupted moved_due not_allowed parked paused pruned published",
    "read resumed settled stepped_aside stopped stopping transaction_open unparked waiting",
)
MESSAGE_STEPS = _steps(
    "applied attempt condemned dead_lettered duplicate expired handled held not_for_group overdue raised",
    "received result_not_kept retried shelved skipped",
)
INBOX_STEPS = MESSAGE_STEPS | _steps(
    "assigned batch_failed committed held_back kafka_unavailable limited not_committed paused policy_changed",
    "policy_refused resumed revoked stopped",
)


def crash_at(
    step: str, *, times: int = 1, of: object = None, how: How = "raise", observer: Observer = unobserved
) -> Observer:
    """An observer that lets the relay or the inbox die at ``step``, the ``times``-th time that it comes.

        runner = InboxRunner(inbox, database_url=url, kafka=kafka, observer=crash_at("handled", of=message_id))

    ``of``: only the steps of the message with this id count. ``how``: ``raise`` ends the relay or the inbox alone, as a
    crash would: nothing more is settled, committed or released, transactions are rolled back, and ``join`` raises
    ``Crash``; handlers that run on other threads come to their end. ``kill`` ends the whole process at once by SIGKILL,
    and ``freeze`` stops it by SIGSTOP until it gets SIGCONT: for a process of its own. ``observer`` is told each step
    before. It crashes once; a relay or an inbox that is started with it again goes on.

    Raises UsageError, which lists what there is.
    """
    steps = RELAY_STEPS | INBOX_STEPS
    if step not in steps:
        raise UsageError(f"There is no step {step!r}; there are {', '.join(sorted(steps))}.")
    if of is not None and step not in MESSAGE_STEPS | {"parked"}:
        told = ", ".join(sorted(MESSAGE_STEPS | {"parked"}))
        raise UsageError(
            f"The step {step!r} is not of one message, so leave out `of`; those of one message are {told}."
        )
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise UsageError(f"times must be a number from 1, not {times!r}.")
    if how not in get_args(How):
        raise UsageError(f"how must be one of {', '.join(get_args(How))}, not {how!r}.")
    lock, seen, fall = Lock(), 0, _WAYS[how]

    def observe(told: str, /, **facts: Any) -> None:
        nonlocal seen
        observer(told, **facts)
        if told != step or (of is not None and str(of) != facts.get("message_id", facts.get("id"))):
            return
        with lock:
            seen += 1
            here = seen == times
        if here:
            fall(step)

    return observe


def _raise(step: str) -> None:
    raise Crash(f"crash_at({step!r})")


def _send(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(get_ident(), number)  # at this very step
    else:
        os.kill(os.getpid(), number)


_WAYS: dict[str, Callable[[str], None]] = {
    "raise": _raise,
    "kill": lambda _: _send(signal.SIGKILL),
    "freeze": lambda _: _send(signal.SIGSTOP),
}
