"""What changed between two JSON Schemas of one model, where, and whom it breaks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import wording
from .document import ANY, Alternative, Document, Node
from .inclusion import Inclusion, same
from .limits import implies, limits

#: A model that stands at more places is told at the first ones only.
_PLACES = 8
_NULL = (None,)
_UNCLEAR = "changed in a way that cannot be told apart"


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    ``path``: a JSON path, ``$`` for the whole. ``kind``: for machines. ``what``: for people. ``backward``: new
    consumers cannot read old messages. ``forward``: old consumers cannot read new ones. ``certain``: False where
    that cannot be told and is assumed. ``mended``: it broke backward, and upcasters take care of it.
    """

    path: str
    kind: str
    what: str
    backward: bool = False
    forward: bool = False
    certain: bool = True
    mended: bool = False

    @property
    def breaks(self) -> str | None:
        """``backward``, ``forward``, ``both``, or None."""
        if self.backward and self.forward:
            return "both"
        return "backward" if self.backward else "forward" if self.forward else None


def doubt(path: str, kind: str, what: str) -> Change:
    """A change whose effect cannot be told, so both directions count as broken."""
    return Change(path, kind, what, backward=True, forward=True, certain=False)


def schema_changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """From ``old`` to ``new``, by path. Empty where they differ in their descriptions or in nothing."""
    return _Comparison(Document(old), Document(new)).changes()


class _Comparison:
    """The walk through both schemas. ``Inclusion`` judges; this tells where and what."""

    def __init__(self, old: Document, new: Document) -> None:
        self._old = old
        self._new = new
        self._backward = Inclusion(old, new)
        self._forward = Inclusion(new, old)
        self._told: dict[tuple[int, int], int] = {}
        self._open: set[tuple[int, int]] = set()
        self._passed_over = 0

    def changes(self) -> list[Change]:
        old, new = self._old.root, self._new.root
        found = list(dict.fromkeys(self._at(old, new, "$")))
        # Whatever the walk passes over, nothing that breaks may be missed.
        backward = not self._backward.holds(old, new) and not any(each.backward for each in found)
        forward = not self._forward.holds(new, old) and not any(each.forward for each in found)
        return found + _unclear("$", backward=backward, forward=forward)

    def _at(self, old: Node, new: Node, path: str) -> Iterator[Change]:
        if self._old.meaning(old, defaults=True) == self._new.meaning(new, defaults=True):
            return
        own, other = self._old.alternatives(old), self._new.alternatives(new)
        pairs, gone, come = _paired(own, other, partial(self._backward.means_the_same, defaults=True))
        for before, after in pairs:
            place = id(before.node), id(after.node)
            if place in self._open or self._told.get(place, 0) >= _PLACES:
                self._passed_over += 1  # it is told elsewhere
                continue
            passed_over = self._passed_over
            backward = not any(self._backward.fits(before, each) for each in other)
            forward = not any(self._forward.fits(after, each) for each in own)
            found = [
                replace(each, backward=each.backward and backward, forward=each.forward and forward)
                for each in self._between(before, after, path, place)
            ]
            yield from found
            if passed_over == self._passed_over:
                backward = backward and not any(each.backward for each in found)
                forward = forward and not any(each.forward for each in found)
                yield from _unclear(path, backward=backward, forward=forward)
        for before in gone:
            yield _removed(path, before, breaks=not any(self._backward.fits(before, each) for each in other))
        for after in come:
            yield _added(path, after, breaks=not any(self._forward.fits(after, each) for each in own))

    def _between(self, old: Alternative, new: Alternative, path: str, place: tuple[int, int]) -> Iterator[Change]:
        """Two alternatives that are each other's."""
        self._told[place] = self._told.get(place, 0) + 1
        self._open.add(place)
        if self._old.meaning(old.unknown) != self._new.meaning(new.unknown):
            yield doubt(path, "keyword", f"{', '.join(sorted({*old.unknown, *new.unknown}))} changed")
        if old.kind != new.kind:
            change = Change(path, "type", f"{wording.called(old)} → {wording.called(new)}")
            yield self._judged(old, new, change)
        elif old.kind == "values":
            yield from _values(old, new, path)
        else:
            yield from _limits(old, new, path)
        if old.kind == new.kind == "array":
            yield from self._array(old, new, path)
        elif old.kind == new.kind == "object":
            yield from self._object(old, new, path)
        self._open.remove(place)

    def _judged(self, old: Alternative, new: Alternative, change: Change) -> Change:
        """``change``, where it is the whole difference between the two."""
        return replace(change, backward=not self._backward.fits(old, new), forward=not self._forward.fits(new, old))

    def _array(self, old: Alternative, new: Alternative, path: str) -> Iterator[Change]:
        most = min(each.node.get("maxItems", math.inf) for each in (old, new))
        prefix = max(len(each.node.get("prefixItems", ())) for each in (old, new))
        for index in range(prefix):
            if index < most:
                yield from self._at(old.item(index), new.item(index), f"{path}[{index}]")
        if prefix < most:
            yield from self._at(old.item(None), new.item(None), f"{path}[*]")

    def _object(self, old: Alternative, new: Alternative, path: str) -> Iterator[Change]:
        for name in sorted({*old.properties, *new.properties}):
            yield from self._field(old, new, name, path + wording.step(name))
        before, after = old.additional, new.additional
        if isinstance(before, dict) and isinstance(after, dict):
            yield from self._at(before, after, f"{path}.*")
        elif wording.undeclared(before) != wording.undeclared(after):
            yield Change(
                f"{path}.*",
                "additionalProperties",
                f"undeclared fields: {wording.undeclared(before)} → {wording.undeclared(after)}",
                backward=not self._backward.accepts_additional(old, new),
                forward=not self._forward.accepts_additional(new, old),
            )
        for key in ("patternProperties", "propertyNames"):
            was, now = (Alternative("object", {key: each.node.get(key, ANY)}) for each in (old, new))
            if self._old.meaning(was.node) != self._new.meaning(now.node):
                yield self._judged(was, now, Change(f"{path}.*", key, f"{key} changed"))

    def _field(self, old: Alternative, new: Alternative, name: str, path: str) -> Iterator[Change]:
        needed, needs = name in old.required, name in new.required
        if name in old.properties and name in new.properties:
            was, now = old.properties[name], new.properties[name]
            if needed != needs:
                kind, what = ("required", "optional → required") if needs else ("optional", "required → optional")
                yield Change(path, kind, what, backward=needs, forward=needed)
            yield from self._at(was, now, path)
            if not needed and not needs and wording.default(was) != wording.default(now):
                yield Change(path, "default", f"default {wording.default(was)} → {wording.default(now)}")
            return
        backward = not self._backward.accepts_field(name, old, new)
        forward = not self._forward.accepts_field(name, new, old)
        if name in new.properties:
            what = "required field added" if needs else "optional field added"
            yield Change(path, "field-added", what, backward=backward or needs, forward=forward)
        else:
            what = "required field removed" if needed else "optional field removed"
            yield Change(path, "field-removed", what, backward=backward, forward=forward or needed)


def _values(old: Alternative, new: Alternative, path: str) -> Iterator[Change]:
    before, after = ({same(value): value for value in each.values} for each in (old, new))
    if gone := before.keys() - after.keys():
        yield Change(path, "values-removed", f"removed: {wording.values(before[key] for key in gone)}", backward=True)
    if come := after.keys() - before.keys():
        yield Change(path, "values-added", f"added: {wording.values(after[key] for key in come)}", forward=True)


def _limits(old: Alternative, new: Alternative, path: str) -> Iterator[Change]:
    before, after = limits(old), limits(new)
    for key in sorted(each for each in {*before, *after} if before.get(each) != after.get(each)):
        was, now = before.get(key), after.get(key)
        if was is None:
            what = f"{key} added: {wording.limit(key, now)}"
        elif now is None:
            what = f"{key} removed: {wording.limit(key, was)}"
        else:
            what = f"{key} {wording.limit(key, was)} → {wording.limit(key, now)}"
        if key == "pattern" and was is not None and now is not None:
            yield doubt(path, key, what)
        else:
            yield Change(path, key, what, backward=not implies(key, was, now), forward=not implies(key, now, was))


def _unclear(path: str, *, backward: bool, forward: bool) -> list[Change]:
    if not backward and not forward:
        return []
    return [Change(path, "schema", _UNCLEAR, backward=backward, forward=forward, certain=False)]


def _removed(path: str, alternative: Alternative, *, breaks: bool) -> Change:
    if alternative.values == _NULL:
        return Change(path, "not-nullable", "null no longer allowed", backward=breaks)
    return Change(path, "alternative-removed", f"{wording.called(alternative)} no longer allowed", backward=breaks)


def _added(path: str, alternative: Alternative, *, breaks: bool) -> Change:
    if alternative.values == _NULL:
        return Change(path, "nullable", "null allowed", forward=breaks)
    return Change(path, "alternative-added", f"{wording.called(alternative)} allowed, too", forward=breaks)


Pairs = list[tuple[Alternative, Alternative]]


def _paired(
    old: tuple[Alternative, ...],
    new: tuple[Alternative, ...],
    is_same: Callable[[Alternative, Alternative], bool],
) -> tuple[Pairs, list[Alternative], list[Alternative]]:
    """Which alternatives are each other's and changed; which went; which came."""
    pairs: Pairs = []
    gone, come = list(old), list(new)
    for belong in (is_same, _of_one_label, _of_one_kind):
        for before in list(gone):
            after = next((each for each in come if belong(before, each)), None)
            if after is not None:
                gone.remove(before)
                come.remove(after)
                if belong is not is_same:
                    pairs.append((before, after))
    if not pairs and len(old) == len(new) == len(gone) == 1:
        return [(old[0], new[0])], [], []
    return pairs, gone, come


def _of_one_label(before: Alternative, after: Alternative) -> bool:
    return before.label is not None and before.label == after.label


def _of_one_kind(before: Alternative, after: Alternative) -> bool:
    kinds = {"null" if each.values == _NULL else each.kind for each in (before, after)}
    return len(kinds) == 1 or kinds == {"integer", "number"}
