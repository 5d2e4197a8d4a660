"""What goes from a consumed message into everything that is published while it is handled."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})
_inherited: ContextVar[Mapping[str, str]] = ContextVar("postroom_inherited", default=_NOTHING)


@contextmanager
def inheriting(headers: Mapping[str, str]) -> Iterator[None]:
    """Inside, what is published gets ``headers``, where it has none of these names itself."""
    token = _inherited.set(headers)
    try:
        yield
    finally:
        _inherited.reset(token)


def inherited() -> Mapping[str, str]:
    """The headers that hold here."""
    return _inherited.get()
