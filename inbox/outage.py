"""What an error means to the inbox, and how it gets through an outage."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from ..messaging.backoff import Backoff
from ..messaging.errors import Fenced, Interrupted, InvalidHandler, PostroomError, Unavailable, Verdict
from ..messaging.observer import Observer
from ..outbox.database import translated

T = TypeVar("T")
#: What the port to Kafka raises when the group or the cluster is out of reach. Nothing is lost by starting over.
KAFKA_AWAY = (Unavailable, Interrupted, Fenced)
#: What PostgreSQL says of one statement or transaction while the server is well: serialization failure,
#: deadlock, lock timeout, statement timeout or cancel, idle and transaction timeouts.
_NO_OUTAGE = frozenset({"40001", "40P01", "55P03", "57014", "25P03", "25P04"})


class Left(Exception):
    """The record in hand is left as it is; it will be delivered again."""


class ObserverFailed(BaseException):
    """Carries an observer's error past all that judges a handler's."""


def unmistakable(observer: Observer) -> Observer:
    """``observer``, whose errors come as ObserverFailed."""

    def observe(step: str, /, **facts: Any) -> None:
        try:
            observer(step, **facts)
        except Exception as error:
            raise ObserverFailed(error) from error

    return observe


def judge(error: Exception) -> Verdict:
    """PAUSE, DEAD_LETTER, CRASH, or RETRY for all that may succeed the next time.

    A driver's error is an outage when the connection is gone, not when the server refuses a statement.
    """
    if isinstance(error, InvalidHandler):
        return Verdict.CRASH
    verdict = error.verdict if isinstance(error, PostroomError) else _judge_foreign(error)
    if verdict is Verdict.PAUSE and is_transient(error):
        return Verdict.RETRY
    return verdict if verdict in (Verdict.PAUSE, Verdict.DEAD_LETTER, Verdict.CRASH) else Verdict.RETRY


def is_transient(error: Exception) -> bool:
    """Whether the database gave up on one transaction only: a deadlock, a timeout, a serialization failure."""
    return _sqlstate(error) in _NO_OUTAGE


def ours(error: Exception) -> Exception:
    """What the error is in our terms, where we have one for it; else itself."""
    traceback = error.__traceback__
    try:
        with translated():
            raise error  # noqa: TRY301  that is how it is asked
    except Exception as found:  # noqa: BLE001  whatever it is
        return found
    finally:
        error.__traceback__ = traceback  # the diagnosis shall not show this place


def _judge_foreign(error: Exception) -> Verdict:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Verdict.PAUSE
    # Ours for what an operator has to mend may come again: a handler's own table, say.
    return Verdict.PAUSE if isinstance(ours(error), Unavailable) else Verdict.RETRY


def _sqlstate(error: BaseException | None) -> str | None:
    while error is not None:
        for candidate in (error, getattr(error, "orig", None)):
            if state := getattr(candidate, "sqlstate", None):
                return str(state)
        error = error.__cause__
    return None


class Outages:
    """Does work however long what it needs is away, or the database gives up on it.

    ``wait(seconds)`` says False when the work is to be left.
    """

    def __init__(self, backoff: Backoff, observe: Observer, wait: Callable[[float], bool]) -> None:
        self._backoff = backoff
        self._observe = observe
        self.wait = wait

    def through(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, or raises once nothing it needs is away. Blocks. Raises Left."""
        failures = 0
        while True:
            try:
                result = work()
            except Exception as error:
                if judge(error) is not Verdict.PAUSE and not is_transient(error):
                    self._resumed(failures)
                    raise
                failures += 1
                seconds = self._backoff.delay(failures)
                self._observe("paused", error=error, seconds=seconds)
            else:
                self._resumed(failures)
                return result
            if not self.wait(seconds):
                raise Left

    def _resumed(self, failures: int) -> None:
        if failures:
            self._observe("resumed", failures=failures)
