"""The ledger of dead letters as a command finds it: brought up to date first, where Kafka answers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..app import App

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...dlq import Caught, Filter, Ledger
    from ...messaging.ports import TopicReader
    from ..finding import Finding

F = TypeVar("F", bound="Callable[..., Any]")
_MANY = 10_000


def looks(function: F) -> F:
    """Add ``--in`` and ``--no-sync``: what is looked at."""
    named = click.option(
        "--in", "named", multiple=True, metavar="TOPIC", help="Read this dead-letter topic, too, whatever its name is."
    )
    fresh = click.option("--sync/--no-sync", "fresh", default=True, help="Read the dead-letter topics first [yes].")
    return named(fresh(function))


@contextmanager
def opened(app: App, *, fresh: bool = True, named: Sequence[str] = ()) -> "Iterator[Ledger]":
    """The ledger; ``fresh``: up to date, or with a warning where Kafka does not answer."""
    from ...messaging.errors import KafkaUnavailable

    with app.ledger() as ledger:
        if fresh:
            try:
                bring_up_to_date(app, ledger, named)
            except KafkaUnavailable as error:
                warn(app, f"{error} What came lately may be missing: {_known_at(ledger)}.")
        yield ledger


def warn(app: App, text: str) -> None:
    """Say on stderr what does not end the command; as JSON where errors are."""
    from ..errors import masked

    told = masked(text, app.secrets())
    click.echo(json.dumps({"warning": told}) if app.as_json else told, err=True)


def bring_up_to_date(app: App, ledger: "Ledger", named: Sequence[str] = ()) -> "Caught":
    """Read what the dead-letter topics hold by now, with a progress bar, and see what became of replays."""
    with app.reader() as reader:
        return catch(app, ledger, reader, existing_topics(app), named)


def catch(
    app: App, ledger: "Ledger", reader: "TopicReader", existing: "dict[str, int]", named: Sequence[str] = ()
) -> "Caught":
    """As ``bring_up_to_date``, with a reader at hand; tells what retention took, and what was made anew."""
    from ...dlq import catch_up, find_topics, settle
    from .. import output
    from ..serve import calm_garbage_collector

    settings = app.settings.dlq
    topics = find_topics(existing, settings.topics, named=named)
    with ExitStack() as bars:
        advance: dict[str, Callable[[int], None]] = {}

        def observe(step: str, /, **facts: Any) -> None:
            if step == "reading":
                bars.pop_all().close()
                if facts["count"] >= _MANY:
                    calm_garbage_collector()
                bar = output.progress(f"reading {facts['topic']}", facts["count"], hidden=app.as_json)
                advance["by"] = bars.enter_context(bar)
            elif step == "read" and "by" in advance:
                advance["by"](facts["count"])

        caught = catch_up(reader, ledger, topics, max_replays=settings.max_replays, observer=observe)
    settle(ledger)
    _tell(app, caught)
    return caught


def existing_topics(app: App) -> "dict[str, int]":
    """The cluster's topics and their numbers of partitions."""
    with app.topics() as topics:
        return dict(topics.partitions())


def wanted(found: "Finding", **more: Any) -> "Filter":
    """What the filter options say, as the ledger takes it."""
    from ...dlq import Filter, State

    same = ("topic", "group", "type", "key", "message_id", "error", "fingerprint", "since", "until", "headers", "match")
    states = frozenset() if found.state is None else frozenset({State(found.state)})
    return Filter(**{name: getattr(found, name) for name in same}, states=states, **more)


def in_words(found: "Finding") -> str:
    """The filter for people, and for the record; ``all`` without one."""
    from .. import output

    parts = []
    for name in found.__slots__:
        value = getattr(found, name)
        if value is None or value == ():
            continue
        if name == "headers":
            parts += [f"header {own}" + ("" if text is None else f"={output.shown(text)}") for own, text in value]
        else:
            parts.append(f"{name.replace('_', ' ')} {_worded(value)}")
    return ", ".join(parts) or "all"


def _worded(value: Any) -> str:
    from .. import output

    if isinstance(value, datetime):
        return output.local(value)
    return output.shown(value) if isinstance(value, bytes) else output.clean(str(value))


def _tell(app: App, caught: "Caught") -> None:
    from .. import output

    if caught.missed:
        lost = output.counted(caught.missed, "record")
        warn(app, f"Retention took {lost} from dead-letter topics before they were read here.")
    for place in caught.renewed:
        warn(app, f"{output.clean(place)} was deleted and made anew; what was read of it before stays.")
    for topic in caught.gone:
        warn(app, f"Topic {output.clean(topic)} is gone; what was read of it stays.")


def _known_at(ledger: "Ledger") -> str:
    from ...dlq import last_read
    from .. import output

    moment = last_read(ledger)
    if moment is None:
        return "the ledger was never brought up to date"
    return f"the last one came into the ledger {output.ago(moment)} ago"
