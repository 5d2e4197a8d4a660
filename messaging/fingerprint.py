"""Failures that are the same, told by their texts: without numbers, ids and quoted parts, which are data."""

import hashlib
import re

_DATA = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-f]{8}-[0-9a-f-]{27}|\d+")
_LONGEST = 200
LENGTH = 16


def normalised(text: str) -> str:
    """The beginning of an error's text, with ``#`` for each number, id and quoted part."""
    return _DATA.sub("#", text[:_LONGEST])


def fingerprint_of(text: str, handler: str) -> str:
    """The same for the same failure of the same handler: 16 hex digits. ``text`` begins with the error's class.

    A dead letter's fingerprint counts the place in the code, too; there the traceback is still at hand.
    """
    return hashlib.sha256(f"{handler}\n{normalised(text)}".encode(errors="replace")).hexdigest()[:LENGTH]
