"""Finding values in texts that quote them: error messages and stacks, whole or cut off."""

import json
import re
from collections.abc import Iterable, Iterator

#: Shorter ones stand everywhere by chance.
LEAST = 3
_MOST = 2_000
_MOST_CUTS = 100_000
_EDGE = 200
_CUT = re.compile(r"…|\.\.\.")


def hidden(text: str, values: Iterable[str | bytes], mask: str) -> str | None:
    """``text`` with ``mask`` for each of ``values``, as it is, quoted by Python or by JSON, or cut by an ellipsis.

    None for more values than can be looked for.
    """
    forms: set[str] = set()
    for value in values:
        forms.update(form for form in _forms(value) if len(form) >= LEAST)
        if len(forms) > _MOST:
            return None
    if not forms:
        return text
    if len(forms) * len(_CUT.findall(text)) > _MOST_CUTS:
        return None
    longest_first = sorted((form for form in forms if len(form) <= len(text)), key=len, reverse=True)
    found = re.compile("|".join(map(re.escape, (mask, *longest_first))))
    return _without_ends(found.sub(mask, text), forms, mask)


def _forms(value: str | bytes) -> Iterator[str]:
    """How it may stand in a text."""
    if isinstance(value, bytes):
        yield from (value.hex(), repr(value)[2:-1])
        value = value.decode(errors="replace")
    yield from (value, " ".join(value.split()))
    yield from (repr(value)[1:-1], repr(repr(value)[1:-1])[1:-1], ascii(value)[1:-1])
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    if type(value) is not str:  # a number's text: as Python has it
        try:
            number = float(value)
        except ValueError:
            return
        yield from (repr(number), f"{number:g}", f"{number:f}")


def _without_ends(text: str, forms: Iterable[str], mask: str) -> str:
    """Also mask what is left of values at an ellipsis, and at the ends of a text that is cut off itself."""
    parts = _CUT.split(text)
    cuts = [*_CUT.findall(text), ""]
    told = []
    for index, (part, cut) in enumerate(zip(parts, cuts, strict=True)):
        left = max((_overlap(form[-_EDGE:], part, ends=True) for form in forms), default=0) if index else 0
        rest = part[left:]
        right = max((_overlap(form[:_EDGE], rest, ends=False) for form in forms), default=0)
        kept = rest[: len(rest) - right]
        told.append((mask if left else "") + kept + (mask if right else "") + cut)
    return "".join(told)


def _overlap(form: str, part: str, *, ends: bool) -> int:
    """How many characters of ``part``'s beginning end ``form``; or of its end begin it. 0 for fewer than three."""
    if (part[:LEAST] if ends else part[-LEAST:]) not in form:
        return 0
    for size in range(min(len(form), len(part)), LEAST - 1, -1):
        if ends and form.endswith(part[:size]):
            return size
        if not ends and form.startswith(part[len(part) - size :]):
            return size
    return 0
