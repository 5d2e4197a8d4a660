"""Which errors are an outage, which are an attempt, and which end the inbox."""

import psycopg
import pytest
from psycopg import errors as pg
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from postroom.inbox.outage import Left, Outages, judge
from postroom.messaging.backoff import Backoff
from postroom.messaging.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidMessage,
    KafkaUnavailable,
    PayloadRefused,
    Unavailable,
    Verdict,
)


def through_sqlalchemy(error: Exception, *, gone: bool = False) -> DBAPIError:
    kind = OperationalError if isinstance(error, psycopg.OperationalError) else IntegrityError
    return kind("SELECT 1", {}, error, connection_invalidated=gone)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Unavailable("x"), Verdict.PAUSE),
        (KafkaUnavailable("x"), Verdict.PAUSE),
        (psycopg.OperationalError("server closed the connection"), Verdict.PAUSE),
        (through_sqlalchemy(psycopg.OperationalError("server closed the connection"), gone=True), Verdict.PAUSE),
        (through_sqlalchemy(pg.AdminShutdown("terminating connection")), Verdict.PAUSE),
        (through_sqlalchemy(pg.CannotConnectNow("starting up")), Verdict.PAUSE),
        (through_sqlalchemy(pg.TooManyConnections("sorry")), Verdict.PAUSE),
        # The server is well, and refuses this statement: with an outage's patience it would never end.
        (through_sqlalchemy(pg.QueryCanceled("statement timeout")), Verdict.RETRY),
        (through_sqlalchemy(pg.LockNotAvailable("lock timeout")), Verdict.RETRY),
        (through_sqlalchemy(pg.DeadlockDetected("deadlock")), Verdict.RETRY),
        (through_sqlalchemy(pg.SerializationFailure("conflict")), Verdict.RETRY),
        (through_sqlalchemy(pg.IdleInTransactionSessionTimeout("idle"), gone=True), Verdict.RETRY),
        (caused(DatabaseUnavailable("x"), pg.QueryCanceled("statement timeout")), Verdict.RETRY),
        (through_sqlalchemy(pg.UniqueViolation("twice")), Verdict.RETRY),
        (through_sqlalchemy(pg.UndefinedTable("the handler's own")), Verdict.RETRY),
        (InvalidMessage("x"), Verdict.RETRY),
        (ValueError("x"), Verdict.RETRY),
        (PayloadRefused("x"), Verdict.DEAD_LETTER),
        (ConfigurationError("x"), Verdict.CRASH),
    ],
)
def test_the_verdict(error: Exception, verdict: Verdict) -> None:
    assert judge(error) is verdict


def test_judging_leaves_the_traceback_as_it_was() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    before = caught.value.__traceback__

    judge(caught.value)

    assert caught.value.__traceback__ is before


def test_an_outage_is_waited_out_and_told_of() -> None:
    errors = [KafkaUnavailable("a"), KafkaUnavailable("b")]
    told: list[str] = []
    waits: list[float] = []

    def work() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return True

    outages = Outages(Backoff(1, 2), lambda step, /, **_: told.append(step), wait)

    assert outages.through(work) == "done"
    assert told == ["paused", "paused", "resumed"]
    assert len(waits) == 2
    assert all(seconds <= 2 for seconds in waits)


def test_a_wait_that_is_called_off_leaves_the_work() -> None:
    def work() -> None:
        raise KafkaUnavailable("a")

    with pytest.raises(Left):
        Outages(Backoff(1, 2), lambda step, /, **_: None, lambda _: False).through(work)
