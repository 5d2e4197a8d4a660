"""The options that say which stuck messages a command means: dead letters, held and parked ones alike.

``finding`` gives a command's function one ``found`` of class ``Finding``; ``paging`` adds ``--sort``, ``--after`` and
``--limit`` to a list. What the database can tell is asked there; a header, ``--match`` and a fingerprint are looked
at here, in what it gives.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..messaging.fingerprint import fingerprint_of
from .params import CONDITION, FINGERPRINT, GROUPS, HEADER, KEY, MOMENT, TOPIC, WILDCARD

if TYPE_CHECKING:
    from ..messaging.headers import HeaderPairs
    from ..messaging.match import Match

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Finding:
    """What the options say; None, or empty, is any."""

    topic: str | None = None
    group: str | None = None
    type: str | None = None
    key: bytes | None = None
    message_id: str | None = None
    error: str | None = None
    fingerprint: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    match: "Match | None" = None

    def __bool__(self) -> bool:
        return any(getattr(self, name) not in (None, ()) for name in self.__slots__)

    @property
    def of_record(self) -> bool:
        """Whether headers and payload have to be at hand for ``suits``."""
        return bool(self.headers) or self.match is not None

    @property
    def in_database(self) -> bool:
        """Whether a database can count them."""
        return not self.of_record and self.fingerprint is None

    def plain(self, *names: str) -> dict[str, Any]:
        """The options of these names, for the database."""
        return {name: getattr(self, name) for name in names}

    def suits(
        self,
        fingerprint: str | None,
        payload: bytes | None = None,
        headers: "HeaderPairs" = (),
        key: bytes | None = None,
    ) -> bool:
        """Whether what the database does not know holds. Never raises on data."""
        if self.fingerprint is not None and not (fingerprint or "").startswith(self.fingerprint):
            return False
        if not all(_has(headers, name, value) for name, value in self.headers):
            return False
        return self.match is None or self.match.matches(payload, headers, key)


def finding(*, without: Collection[str] = (), states: Sequence[str] = ()) -> Callable[[F], F]:
    """Add the filters, all but those of ``without`` (names of ``Finding``), and ``--state`` with these ``states``."""

    def decorate(function: F) -> F:
        @wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            return function(*arguments, found=_taken(options), **options)

        decorated: Any = called
        for name, option in reversed(_options(states).items()):
            decorated = decorated if name in without else option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _options(states: Sequence[str]) -> dict[str, Callable[[Any], Any]]:
    """By the name of what they say in ``Finding``."""
    state = {"state": click.option("--state", type=click.Choice(states), help="Of this state.")} if states else {}
    return {
        "topic": click.option("--topic", type=TOPIC, help="Of this topic."),
        "group": click.option("--group", type=GROUPS, help="Of this consumer group; * and ? are wildcards."),
        "type": click.option("--type", type=WILDCARD, help="Of this type; * and ? are wildcards."),
        "key": click.option("--key", type=KEY, help="Of this key; base64:… or 0x… for bytes that are no text."),
        "message_id": click.option("--message-id", help="Of this message id."),
        "error": click.option("--error", help="Whose error has this in it, in any case."),
        "fingerprint": click.option(
            "--fingerprint", type=FINGERPRINT, help="Of this failure; `stats` shows which there are."
        ),
        "since": click.option("--since", type=MOMENT, help="Not stuck for longer: 30m, 2h, 7d, or a date or time."),
        "until": click.option("--until", type=MOMENT, help="Stuck for longer."),
        **state,
        "headers": click.option(
            "--header",
            "headers",
            type=HEADER,
            multiple=True,
            metavar="NAME[=VALUE]",
            help="With this header, exactly; repeat it for several.",
        ),
        "match": click.option(
            "--match",
            type=CONDITION,
            metavar="CONDITION",
            help="Where this holds, such as 'payload.total > 100 and key != null'.",
        ),
    }


def paging(what: str, *, sorts: Sequence[str] = ("oldest", "newest"), default: str = "oldest") -> Callable[[F], F]:
    """Add ``--sort``, ``--after`` (an id; ``what`` says of what) and ``--limit``."""

    def decorate(function: F) -> F:
        for option in (
            click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more of them."),
            click.option("--after", type=click.IntRange(min=0), default=0, help=f"Go on after this {what}."),
            click.option("--sort", type=click.Choice(sorts), default=default, show_default=True, help="Which first."),
        ):
            function = option(function)
        return function

    return decorate


def failure_of(error: str | None, handler: str = "") -> str | None:
    """The fingerprint of what is held or parked; None for what only waits."""
    return None if error is None else fingerprint_of(error, handler)


def _taken(options: dict[str, Any]) -> Finding:
    """Out of a command's options. Raises click.UsageError for a span that is none."""
    found = Finding(**{name: options.pop(name) for name in Finding.__slots__ if name in options})
    if found.since is not None and found.until is not None and found.since >= found.until:
        raise click.UsageError("--since must be before --until.")
    return found


def _has(headers: "HeaderPairs", name: str, value: bytes | None) -> bool:
    return any(each == name and value in (None, given) for each, given in headers)
