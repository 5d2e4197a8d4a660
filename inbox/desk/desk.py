"""The tables through which operators and inboxes speak to each other; running members look once a second."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import sqlalchemy as sa

from ...outbox.audit import inbox_action
from ...outbox.database import parse_url, translated
from ...outbox.names import Names, queries
from ...outbox.sqlite import stored_moment
from ...outbox.wildcard import glob, like
from .held import Held, Wanted
from .overrides import Policy, Value, check_setting, check_together, told
from .record import Action, Control, maybe, moment, subject_of

_LAST = 2**63 - 1
_NO_POLICY: Policy = MappingProxyType({})


class HeldCount(NamedTuple):
    """Held messages of a group, topic and state: how many, since when the oldest, when the next is tried."""

    group: str
    topic: str
    state: str
    messages: int
    oldest_at: datetime
    next_attempt_at: datetime | None


class Begun(NamedTuple):
    """What a member has begun of a partition and not finished; or what a crash left, tried one by one.

    ``suspect_offset``: the one that is tried, for the ``suspect_attempts``-th time. Where that is 0, all up to it are
    done a few at a time.
    """

    group: str
    topic: str
    partition: int
    member: str
    first_offset: int
    last_offset: int
    suspect_offset: int | None
    suspect_attempts: int
    at: datetime


class Desk:
    """What operators see of all inboxes in one database, and do to them. For one thread.

    Each method is one transaction; what changes something writes down who did it, in the same one. Every method
    raises SchemaMissing, DatabaseUnavailable, NotAuthorized, ConfigurationError.
    """

    def __init__(self, url: str, names: Names | None = None) -> None:
        parsed = parse_url(url)
        self._sqlite = parsed.drivername == "sqlite"
        # Not prepared: the plan depends on which filters there are.
        libpq = {"connect_timeout": 5, "application_name": "postroom inbox desk", "prepare_threshold": None}
        self._engine = sa.create_engine(parsed, pool_size=1, connect_args={} if self._sqlite else libpq)
        self._sql = queries(names or Names(), "sqlite" if self._sqlite else "postgres")

    def groups(self) -> list[str]:
        """Groups that the tables know."""
        return [row[0] for row in self._rows("desk_groups")]

    def held(
        self, wanted: Wanted, limit: int, *, after: int = 0, newest: bool = False, payloads: bool = False
    ) -> list[Held]:
        """Up to ``limit`` of them by id, in the order in which they were held, or the latest first.

        ``after``: behind this id in that order; 0 is from the start. Without ``payloads`` they and headers are None.
        """
        between = {"after": 0, "before": after or _LAST} if newest else {"after": after, "before": _LAST}
        params = {**self._filters(wanted), **between, "limit": limit, "payloads": payloads}
        query = self._sql["desk_held"].replace("#", "DESC" if newest else "ASC")
        with translated(), self._engine.begin() as connection:
            return [Held.of(row) for row in connection.exec_driver_sql(query, params)]

    def count(self, wanted: Wanted) -> dict[str, int]:
        """How many there are by state."""
        return {state: int(count) for state, count in self._rows("desk_held_count", self._filters(wanted))}

    def at(self, ids: Sequence[int]) -> list[Held]:
        """The held messages of these ids, whole, by id."""
        return [Held.of(row) for row in self._rows("desk_held_at", self._ids(ids))]

    def behind(self, held: Held, limit: int) -> list[Held]:
        """Those of its key that wait for it, in order; none without a key."""
        place = {"group": held.group, "topic": held.topic, "partition": held.partition, "offset": held.offset}
        return [Held.of(row) for row in self._rows("desk_held_behind", {**place, "key": held.key, "limit": limit})]

    def retry(self, ids: Sequence[int], actor: str, reason: str | None = None) -> int:
        """Try these now, with all attempts before them; how many there were. Only those of state ``retry``."""
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(self._sql["desk_retry"], self._ids(ids)).fetchall()
            self._record(connection, "retry", rows, actor, reason)
        return len(rows)

    def discard(self, ids: Sequence[int], actor: str, reason: str | None = None) -> int:
        """Forget these for good; how many there were. Their keys go on.

        Each is closed for its group, so that it does not run when it is delivered again. Only what is a dead letter
        already stays one: it may be replayed.
        """
        with self._transaction() as connection:
            found = [Held.of(row) for row in connection.exec_driver_sql(self._sql["desk_held_at"], self._ids(ids))]
            # The inbox first, and then what is held, as a handler's transaction does it: so they cannot deadlock.
            closing = {(each.group, each.message_id): each.closing() for each in found if each.state != "dead-letter"}
            if closing:
                connection.exec_driver_sql(self._sql["inbox_close"], [closing[key] for key in sorted(closing)])
            rows = connection.exec_driver_sql(self._sql["desk_discard"], self._ids(ids)).fetchall()
            self._record(connection, "discard", rows, actor, reason)
        return len(rows)

    def controls(self, group: str | None = None) -> list[Control]:
        """What is asked of each group, or of one; the whole group before its topics and handlers."""
        return [Control.of(row) for row in self._rows("desk_controls", {"group": group})]

    def pause(self, group: str, subject: str, reason: str, actor: str) -> bool:
        """Let the group, a topic or a handler of it rest; False where it rests for this reason already."""
        params = {"group": group, "subject": subject, "reason": reason, "actor": actor}
        return self._switched("desk_pause", params, inbox_action(actor, "pause", group, subject, reason=reason))

    def resume(self, group: str, subject: str, actor: str) -> bool:
        """Let it go on; False where it was not paused."""
        params = {"group": group, "subject": subject, "actor": actor}
        return self._switched("desk_resume", params, inbox_action(actor, "resume", group, subject))

    def set_policy(
        self,
        group: str,
        handler: str | None,
        wanted: Mapping[str, Value],
        actor: str,
        defaults: Policy = _NO_POLICY,
    ) -> tuple[Policy, Policy]:
        """Change settings of all handlers of a group, or of one, until ``reset_policy``: the policy before and now.

        What is not named stays. A handler's own policy wins over the group's. ``defaults``: what holds where neither
        says anything. Raises UsageError for a value that cannot be, or does not fit another one, and then nothing is
        changed.
        """
        checked = {name: check_setting(name, value) for name, value in wanted.items()}
        return self._change_policy(
            group, handler, actor, lambda before: {**before, **checked}, defaults=defaults, given=checked
        )

    def reset_policy(
        self, group: str, handler: str | None, names: Sequence[str], actor: str, defaults: Policy = _NO_POLICY
    ) -> tuple[Policy, Policy]:
        """Take back what ``set_policy`` changed, all of it or the settings of these names: before and now.

        Raises UsageError where what is left does not fit ``defaults``, and then nothing is changed.
        """
        gone = set(names)

        def less(before: Policy) -> Policy:
            return {name: value for name, value in before.items() if gone and name not in gone}

        return self._change_policy(group, handler, actor, less, defaults=defaults)

    def actions(
        self, limit: int, *, group: str | None = None, action: str | None = None, message_id: str | None = None
    ) -> list[Action]:
        """What operators did, the latest first."""
        params = {"limit": limit, "group": group, "action": action, "message_id": message_id}
        return [Action.of(row) for row in self._rows("desk_actions", params)]

    def held_counts(self) -> list[HeldCount]:
        """By group, topic and state."""
        rows = self._rows("desk_held_stats")
        return [HeldCount._make((*row[:4], moment(row[4]), maybe(row[5]))) for row in rows]

    def begun(self) -> list[Begun]:
        """What members are at, by group, topic and partition."""
        return [Begun._make((*row[:8], moment(row[8]))) for row in self._rows("desk_begun")]

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _change_policy(
        self,
        group: str,
        handler: str | None,
        actor: str,
        change: Callable[[Policy], Policy],
        *,
        defaults: Policy,
        given: Collection[str] = (),
    ) -> tuple[Policy, Policy]:
        subject = subject_of(None, handler)
        with self._transaction() as connection:
            connection.exec_driver_sql(self._sql["desk_open_policies"], {"group": group})
            rows = connection.exec_driver_sql(self._sql["desk_policies"], {"group": group}).fetchall()
            policies: dict[str, Policy] = {name: json.loads(policy) for name, policy in rows}
            before = policies.get(subject, {})
            after = policies[subject] = change(before)
            if after == before:
                return before, after
            for name, policy in policies.items():  # what a handler does not say, the group says
                whose = "" if name in ("", subject) else f" of {name.replace(':', ' ', 1)}"
                check_together({**defaults, **policies.get("", {}), **policy}, whose, given)
            params = {"group": group, "subject": subject, "policy": json.dumps(after), "actor": actor}
            connection.exec_driver_sql(self._sql["desk_set_policy"], params)
            reason = f"{told(after)}; before: {told(before)}"
            self._note(connection, [inbox_action(actor, "policy", group, subject, reason=reason)])
        return before, after

    def _record(
        self, connection: sa.Connection, action: str, rows: Sequence[Any], actor: str, reason: str | None
    ) -> None:
        """Write down what was done to held messages, and have the members look at what is held."""
        if not rows:
            return
        notes = [inbox_action(actor, action, group, f"topic:{topic}", id_, reason) for group, topic, id_ in rows]
        self._note(connection, notes)
        groups = sorted({row[0] for row in rows})
        connection.exec_driver_sql(self._sql["desk_revise"], [{"group": group} for group in groups])

    def _switched(self, query: str, params: dict[str, Any], note: dict[str, Any]) -> bool:
        with self._transaction() as connection:
            changed = connection.exec_driver_sql(self._sql[query], params).rowcount > 0
            if changed:
                self._note(connection, [note])
        return changed

    def _note(self, connection: sa.Connection, notes: list[dict[str, Any]]) -> None:
        connection.exec_driver_sql(self._sql["note_inbox"], notes)

    def _filters(self, wanted: Wanted) -> dict[str, Any]:
        params: dict[str, Any] = {name: getattr(wanted, name) for name in Wanted.__slots__}
        pattern = glob if self._sqlite else like
        params |= {name: params[name] and pattern(params[name]) for name in ("group", "type")}
        if self._sqlite:
            params |= {name: params[name] and stored_moment(params[name]) for name in ("since", "until")}
        return params

    def _ids(self, ids: Sequence[int]) -> dict[str, Any]:
        return {"ids": json.dumps(list(ids)) if self._sqlite else list(ids)}

    def _rows(self, query: str, params: dict[str, Any] | None = None) -> list[Any]:
        with translated(), self._engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(self._sql[query], params)]

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with translated(), self._engine.begin() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # reads, then writes: nobody writes in between
            yield connection
