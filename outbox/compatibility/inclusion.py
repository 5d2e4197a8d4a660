"""Whether all that one schema allows is allowed by another: can this reader read what that writer writes?

The answer is safe, not complete: yes is certain, no may be a doubt. Schemas may be recursive, so a pair of places is
assumed to hold until one of its alternatives does not fit, and what rested on the assumption is judged again: the
greatest fixed point.
"""

import json
from collections.abc import Callable
from typing import Any

from .document import ANY, Alternative, Document, Node
from .limits import implies, keeps_to, limits


class Inclusion:
    """Of what ``writer`` allows in what ``reader`` allows."""

    def __init__(self, writer: Document, reader: Document) -> None:
        self._writer = writer
        self._reader = reader
        self._pairs: dict[tuple[int, int], tuple[Node, Node]] = {}
        self._holds: dict[tuple[int, int], bool] = {}
        self._stable = True

    def holds(self, written: Node, read: Node) -> bool:
        """Whether each value that the writer's node allows is allowed by the reader's."""
        return self._settled(lambda: self._assume(written, read))

    def fits(self, written: Alternative, read: Alternative) -> bool:
        """Whether each value of the one alternative is one of the other."""
        return self._settled(lambda: self._fits(written, read))

    def accepts_field(self, name: str, written: Alternative, read: Alternative) -> bool:
        """Whether the field may be read as it is written, if it is there."""
        return self._settled(lambda: self._fits_field(name, written, read))

    def accepts_additional(self, written: Alternative, read: Alternative) -> bool:
        """Whether undeclared fields may be there as before."""
        return self._settled(lambda: self._accepts_additional(written, read))

    def means_the_same(self, written: Alternative, read: Alternative, *, defaults: bool = False) -> bool:
        """Whether both are the same alternative, whatever it is; perhaps with the same defaults, too."""
        return (
            (written.kind, written.tag) == (read.kind, read.tag)
            and [same(value) for value in written.values] == [same(value) for value in read.values]
            and self._writer.meaning(written.node, defaults=defaults)
            == self._reader.meaning(read.node, defaults=defaults)
            and self._writer.meaning(written.unknown) == self._reader.meaning(read.unknown)
        )

    def _settled(self, judge: Callable[[], bool]) -> bool:
        while True:
            answer = judge()
            if self._stable:
                return answer
            self._stabilise()

    def _assume(self, written: Node, read: Node) -> bool:
        key = id(written), id(read)
        if key not in self._holds:
            self._pairs[key] = written, read
            self._holds[key] = True
            self._stable = False
        return self._holds[key]

    def _stabilise(self) -> None:
        while not self._stable:
            self._stable = True
            for key, (written, read) in reversed(list(self._pairs.items())):  # what was met last is asked by the others
                if self._holds[key] and not self._judge(written, read):
                    self._holds[key] = self._stable = False

    def _judge(self, written: Node, read: Node) -> bool:
        if self._writer.meaning(written) == self._reader.meaning(read):
            return True
        alternatives = self._reader.alternatives(read)
        return all(any(self._fits(own, other) for other in alternatives) for own in self._writer.alternatives(written))

    def _fits(self, written: Alternative, read: Alternative) -> bool:
        if self.means_the_same(written, read):
            return True
        if read.unknown or read.kind == "any":
            return not read.unknown
        if written.kind == "values":
            return all(_allows(read, value) for value in written.values)
        if read.kind == "values":
            return written.kind == "boolean" and all(_allows(read, value) for value in (True, False))
        return self._fits_type(written, read)

    def _fits_type(self, written: Alternative, read: Alternative) -> bool:
        if (written.kind, read.kind) != ("integer", "number") and written.kind != read.kind:
            return False
        given = limits(written)
        if not all(implies(key, given.get(key), demanded) for key, demanded in limits(read).items()):
            return False
        if read.kind == "array":
            return self._fits_array(written, read)
        return read.kind != "object" or self._fits_object(written, read)

    def _fits_array(self, written: Alternative, read: Alternative) -> bool:
        most = written.node.get("maxItems")
        prefix = max(len(each.node.get("prefixItems", ())) for each in (written, read))
        places: list[int | None] = [index for index in range(prefix) if most is None or index < most]
        if most is None or most > prefix:
            places.append(None)
        return all(self._assume(written.item(place), read.item(place)) for place in places)

    def _fits_object(self, written: Alternative, read: Alternative) -> bool:
        if not read.required <= written.required & written.properties.keys():
            return False
        names = dict.fromkeys((*written.properties, *read.properties))
        declared = all(self._fits_field(name, written, read) for name in names)
        return (
            declared
            and self._accepts_additional(written, read)
            and self._fits_patterns(written, read)
            and self._fits_names(written, read)
        )

    def _fits_field(self, name: str, written: Alternative, read: Alternative) -> bool:
        if name in written.properties:
            node = written.properties[name]
            if name in read.properties:
                return self._assume(node, read.properties[name])
            return self._assume(node, _or_any(read.additional))
        node = read.properties[name]
        may_write = [*written.node.get("patternProperties", {}).values()]
        if written.additional not in (None, False):
            may_write.append(written.additional)
        return all(self._assume(each, node) for each in may_write)

    def _accepts_additional(self, written: Alternative, read: Alternative) -> bool:
        if read.additional in (None, True) or written.additional is False:
            return True
        return self._assume(_or_any(written.additional), read.additional)

    def _fits_patterns(self, written: Alternative, read: Alternative) -> bool:
        own, other = (each.node.get("patternProperties", {}) for each in (written, read))
        if not other.keys() <= own.keys():
            return False
        return all(
            self._assume(node, other[pattern] if pattern in other else _or_any(read.additional))
            for pattern, node in own.items()
        )

    def _fits_names(self, written: Alternative, read: Alternative) -> bool:
        if "propertyNames" not in read.node:
            return True
        return "propertyNames" in written.node and self._assume(
            written.node["propertyNames"], read.node["propertyNames"]
        )


def _or_any(additional: Node) -> Node:
    return ANY if additional is None else additional


def _allows(alternative: Alternative, value: Any) -> bool:
    """Whether ``value`` is surely one of the alternative's."""
    if alternative.kind == "values":
        return same(value) in {same(each) for each in alternative.values}
    match value:
        case bool():
            return alternative.kind == "boolean"
        case str():
            return alternative.kind == "string" and keeps_to(value, alternative)
        case int() | float():
            kinds = ("integer", "number") if value % 1 == 0 else ("number",)
            return alternative.kind in kinds and keeps_to(value, alternative)
        case _:
            return False


def same(value: Any) -> str:
    """The same text for the same JSON value: 1 and 1.0 are one, and neither is true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)
