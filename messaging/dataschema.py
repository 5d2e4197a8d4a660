"""The version of a payload on the wire: the last part of the URN in ``ce_dataschema``.

``urn:postroom:schema:<type>:<version>``, the type percent-encoded as a URN wants it (RFC 8141). Version 1 is not
written, so that records from before there were versions, and those of other producers, are of version 1.
"""

import re
from urllib.parse import quote

from .errors import InvalidMessage

HEADER = "ce_dataschema"
MAX_VERSION = 1_000_000
_PREFIX = "urn:postroom:schema:"
_FORM = re.compile(f"{_PREFIX}[^:]+:([1-9][0-9]{{0,17}})", re.IGNORECASE)
#: What a URN may hold besides letters and digits; the colon separates ours.
_PLAIN = "-._~!$&'()*+,;=@"


def check_version(version: object) -> int:
    """``version``, if it is a number from 1 to MAX_VERSION. Raises InvalidMessage."""
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MAX_VERSION:
        raise InvalidMessage(f"version must be a whole number from 1 to {MAX_VERSION}, not {version!r}.")
    return version


def dataschema(type_: str, version: int) -> str | None:
    """The header's value; None for version 1, which is not written."""
    return None if version == 1 else f"{_PREFIX}{quote(type_, safe=_PLAIN)}:{version}"


def version_of(dataschema: str | None) -> int:
    """The version; 1 without one, and for a URI of another form."""
    match = _FORM.fullmatch(dataschema or "")
    return int(match[1]) if match else 1
