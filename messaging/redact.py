"""Masks for fields that nobody shall see: in what is shown, exported and logged. What is stored stays as it is.

A path is ``payload.card.number`` (``*`` is any field, or any element of a list), ``headers.authorization`` (whatever
stands behind ``headers.`` is the name, in any case) or ``key``, with which the header ``ce_subject`` goes.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from . import document
from .document import Number, Object
from .errors import ConfigurationError, UsageError
from .headers import HeaderPairs
from .quoted import hidden

MASK = "‹redacted›"
#: Instead of a payload in which nobody can tell where the field is.
NO_JSON = "‹redacted: the payload is no JSON›"
_STEM = "‹redacted"
_BYTES, _NO_JSON_BYTES = MASK.encode(), NO_JSON.encode()
_MAX_STEPS = 32
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,200}(?:Error|Exception)(?=:|$)")
_Tree = dict[str, Any]


class Redaction:
    """What is masked. False where nothing is. No method raises, whatever the data is, except ``restore``."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises ConfigurationError for a path that is none."""
        self.paths = tuple(paths)
        self._tree: _Tree = {}
        self._headers: set[str] = set()
        self._key = False
        for path in paths:
            self._add(path)

    def __bool__(self) -> bool:
        return bool(self.paths)

    @property
    def of_record(self) -> bool:
        """Whether payload or headers have masked fields: then ``text`` has to be given both."""
        return bool(self._tree or self._headers)

    def payload(self, payload: bytes | None) -> bytes | None:
        """With its fields masked; the same object where there are none of them, ``NO_JSON`` where nobody can tell."""
        if payload is None or not self._tree:
            return payload
        try:
            parsed = document.read(payload)
            masked = _masked(parsed, [self._tree])
            return payload if masked is parsed else document.write(masked)
        except ValueError:
            return _NO_JSON_BYTES

    def headers(self, pairs: HeaderPairs) -> list[tuple[str, bytes]]:
        """With values masked. Headers that quote an error, as those of a dead letter, are a matter of ``text``."""
        return [(name, _BYTES if self._hides(name) else value) for name, value in pairs]

    def key(self, key: bytes | None) -> bytes | None:
        """Masked, where there is one."""
        return _BYTES if self._key and key is not None else key

    def text(self, text: str, payload: bytes | None, headers: HeaderPairs, key: bytes | None) -> str:
        """An error's message or stack, in which masked values may be quoted: of three characters or more.

        Where the payload cannot be read, nobody can tell what is quoted, and the text is replaced.
        """
        if not self.paths or not text:
            return text
        try:
            values = [*self._values_of(payload), *(value for name, value in headers if self._hides(name))]
        except ValueError:
            return _nothing(text)
        if self._key and key is not None:
            values.append(key)
        told = hidden(text, values, MASK)
        return _nothing(text) if told is None else told

    def restore(self, edited: bytes, original: bytes) -> bytes:
        """``edited``, made from the masked ``original``, with the original values where it still has the mask.

        Raises UsageError for a mask at another place, and where it cannot be told which value belongs to it.
        """
        if not self._tree:
            return edited
        try:
            parsed = document.read(edited)
        except ValueError:
            if _STEM in edited.decode(errors="replace"):
                raise UsageError("The edited payload is no JSON, so what is masked in it cannot be put back.") from None
            return edited
        if not any(_STEM in text for text in _texts(parsed)):
            return edited
        try:
            restored = _restored(parsed, document.read(original), [self._tree])
            return document.write(restored)
        except ValueError:
            raise UsageError("The original payload is no JSON; write the payload without the mask.") from None

    def _add(self, path: str) -> None:
        root, _, rest = path.partition(".")
        if path == "key":
            self._key = True
        elif root == "headers" and rest:
            self._headers.add(rest.lower())
        elif root == "payload" and all(steps := rest.split(".")) and len(steps) <= _MAX_STEPS:
            tree = self._tree
            for step in steps:
                tree = tree.setdefault(step, {})
            tree[""] = True  # a path ends here
        else:
            raise ConfigurationError(
                f"There is no field {path!r} to redact; write payload.card.number, payload.lines.*.iban, "
                "headers.authorization or key."
            )

    def _hides(self, name: str) -> bool:
        name = name.lower()
        return name in self._headers or "*" in self._headers or (self._key and name == "ce_subject")

    def _values_of(self, payload: bytes | None) -> "Iterator[str | bytes]":
        """Every text and number under a masked path. Raises ValueError."""
        if payload is not None and self._tree:
            yield from _under(document.read(payload), [self._tree])


def _below(trees: Sequence[_Tree], step: str) -> list[_Tree]:
    return [tree[name] for tree in trees for name in ({step, "*"} if step != "*" else {"*"}) if name and name in tree]


def _members(value: Any) -> "Iterator[tuple[str, Any]]":
    """The steps that lead on, and to what."""
    if isinstance(value, Object):
        yield from value
    elif isinstance(value, list):
        yield from ((str(index), inner) for index, inner in enumerate(value))


def _same(value: Any, members: list[Any]) -> Any:
    """A container like ``value`` with these inside."""
    if isinstance(value, Object):
        return Object((name, inner) for (name, _), inner in zip(value, members, strict=True))
    return members


def _masked(value: Any, trees: Sequence[_Tree]) -> Any:
    """``value`` with the mask where a path ends; the same object where none does."""
    if any("" in tree for tree in trees):
        return value if value == MASK else MASK
    changed, inside = False, []
    for step, inner in _members(value):
        below = _below(trees, step)
        masked = _masked(inner, below) if below else inner
        changed = changed or masked is not inner
        inside.append(masked)
    return _same(value, inside) if changed else value


def _under(value: Any, trees: Sequence[_Tree]) -> "Iterator[str | bytes]":
    if any("" in tree for tree in trees):
        yield from _texts(value, names=False)
        return
    for step, inner in _members(value):
        if below := _below(trees, step):
            yield from _under(inner, below)


def _texts(value: Any, *, names: bool = True) -> "Iterator[str]":
    """All texts and numbers in it, and names."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Object):
            yield from (name for name, _ in value if names)
        waiting += [inner for _, inner in _members(value)]


def _restored(edited: Any, original: Any, trees: Sequence[_Tree]) -> Any:
    """Raises UsageError."""
    if isinstance(edited, str) and not isinstance(edited, Number):
        if edited != MASK and _STEM in edited:
            raise UsageError(f"The mask {MASK} is only a part of a text now; restore the text, or write all of it.")
        if edited == MASK and not any("" in tree for tree in trees):
            raise UsageError(f"The mask {MASK} stands at a place that is not masked; write the value.")
        return original if edited == MASK else edited
    inside, before = [], _before(edited, original)
    for step, inner in _members(edited):
        if isinstance(edited, Object) and _STEM in step:
            raise UsageError(f"The mask {MASK} is no name of a field.")
        if not any(_STEM in text for text in _texts(inner)):
            inside.append(inner)
            continue
        below = _below(trees, step)
        if below and step not in before:
            raise UsageError(f"It cannot be told which value belongs to the mask {MASK} under {step!r}; write it.")
        if not below:
            raise UsageError(f"The mask {MASK} stands under {step!r}, which is not masked; write the value.")
        inside.append(_restored(inner, before[step], below))
    return _same(edited, inside)


def _before(edited: Any, original: Any) -> dict[str, Any]:
    """What the original has at each step; nothing where they cannot be matched, as in lists that grew or shrank."""
    if type(edited) is not type(original) or (type(edited) is list and len(edited) != len(original)):
        return {}
    members = list(_members(original))
    found = dict(members)
    twice = len(found) != len(members)
    return {} if twice else found


def _nothing(text: str) -> str:
    """What is left of a text that may quote anything: the class of the error."""
    found = _CLASS.match(text)
    return f"{found[0]}: {MASK}" if found else MASK
