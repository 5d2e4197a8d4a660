"""Failures that are the same, told by their texts: without numbers, ids and quoted parts, which are data."""

import hashlib
import re

_DATA = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|\d+")
_LONGEST = 200
LENGTH = 16  # hex digits


def normalised(text: str) -> str:
    """The beginning of an error's text, with ``#`` for each number, id and quoted part."""
    return _DATA.sub("#", text[:_LONGEST])


def fingerprint_of(text: str, handler: str) -> str:
    """The same for the same failure of the same handler: 16 hex digits. ``text`` begins with the error's class.

    A dead letter's fingerprint counts the place in the code, too; there the traceback is still at hand.
    """
    return digest(handler, normalised(text))


def digest(*parts: str) -> str:
    """The fingerprint of what tells a failure from others."""
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:LENGTH]
