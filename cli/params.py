"""Values on the command line: points in time, durations, limits, topics, keys, conditions."""

import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..messaging.match import Match

_LONGEST_TEXT = 500
_LONGEST_NAME = 255
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """``2h`` (that long ago; s, m, h, d, w), or an ISO 8601 date or time; without a zone it is local time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if match := re.fullmatch(r"(\d{1,6})\s*([smhdw])", value.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        try:
            return datetime.fromisoformat(value.strip()).astimezone(UTC)
        except (ValueError, OverflowError):
            return self.fail(f"{value!r} is no time; write 90s, 30m, 2h, 7d, or 2026-01-31T12:00.", param, ctx)


MOMENT = Moment()


class Span(click.ParamType[timedelta]):
    """``12h`` (s, m, h, d, w)."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if match := re.fullmatch(r"(\d{1,6})\s*([smhdw])", value.strip()):
            return timedelta(**{_UNITS[match[2]]: int(match[1])})
        return self.fail(f"{value!r} is no duration; write 90s, 30m, 12h, 3d or 2w.", param, ctx)


class Limit(click.ParamType[float]):
    """A number within bounds, or ``none``, which is 0."""

    name = "limit"

    def __init__(self, least: float, most: float, *, whole: bool = False) -> None:
        self._least, self._most, self._whole = least, most, whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if value == "none":
            return 0
        try:
            number = int(value) if self._whole else float(value)
        except ValueError:
            number = -1
        if not self._least <= number <= self._most:  # so that nan is refused, too
            kind = "a whole number" if self._whole else "a number"
            self.fail(f"{value!r} must be {kind} from {self._least:,.10g} to {self._most:,.10g}, or none.", param, ctx)
        return number


class Topic(click.ParamType[str]):
    """A topic's name, as Kafka allows it."""

    name = "topic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..messaging.errors import InvalidMessage
        from ..messaging.message import check_topic

        try:
            return check_topic(value)
        except InvalidMessage as error:
            return self.fail(f"{error}.", param, ctx)


class Text(click.ParamType[str]):
    """A text that says something, on one line, and is not too long for a table."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = " ".join(str(value).split())
        if not 0 < len(text) <= _LONGEST_TEXT or not text.isprintable():
            self.fail(f"it must have 1 to {_LONGEST_TEXT} printable characters.", param, ctx)
        return text


class GroupName(click.ParamType[str]):
    """A consumer group's name, as an Inbox takes it; ``wildcards``: with * and ?."""

    name = "group"

    def __init__(self, *, wildcards: bool = False) -> None:
        self._more = " * ?" if wildcards else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(rf"[A-Za-z0-9._{self._more.replace(' ', '')}-]{{1,200}}", value):
            self.fail(f"{value!r} must be 1 to 200 of the characters a-z A-Z 0-9 . _{self._more} -.", param, ctx)
        return str(value)


class Key(click.ParamType[bytes]):
    """A text; ``base64:…`` or ``0x…`` (as lists show them) for bytes that are none."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            if value.startswith("base64:"):
                return b64decode(value.removeprefix("base64:"), validate=True)
            return bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode()
        except ValueError:
            self.fail(f"{value!r} must be a text, base64: with base64, or 0x with hexadecimal digits.", param, ctx)


class Wildcard(click.ParamType[str]):
    """A name, in which * and ? are wildcards."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
            self.fail(f"{value!r} must have 1 to {_LONGEST_NAME} printable characters.", param, ctx)
        return str(value)


class Fingerprint(click.ParamType[str]):
    """A fingerprint, or the beginning of one."""

    name = "fingerprint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[0-9a-fA-F]{1,16}", value):
            self.fail(f"{value!r} must be 1 to 16 hexadecimal digits.", param, ctx)
        return str(value).lower()


class Header(click.ParamType[tuple[str, bytes | None]]):
    """``NAME=VALUE``, exactly; ``NAME`` alone: it is there. The names of headers have no ``=``."""

    name = "header"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, bytes | None]:
        if isinstance(value, tuple):
            return value
        name, separator, wanted = value.partition("=")
        if not name:
            self.fail(f"{value!r} must be NAME=VALUE, or NAME alone for a header that is there.", param, ctx)
        return name, wanted.encode(errors="surrogateescape") if separator else None


class Condition(click.ParamType["Match"]):
    """What ``messaging.match`` understands."""

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Match":
        from ..messaging.errors import UsageError
        from ..messaging.match import Match

        if isinstance(value, Match):
            return value
        try:
            return Match.parse(value)
        except UsageError as error:
            return self.fail(str(error), param, ctx)


SPAN = Span()
KEY = Key()
WILDCARD = Wildcard()
FINGERPRINT = Fingerprint()
HEADER = Header()
CONDITION = Condition()
GROUP = GroupName()
GROUPS = GroupName(wildcards=True)
TOPIC = Topic()
TEXT = Text()
