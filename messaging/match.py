"""A condition on a message, as operators write it: ``payload.total > 100 and headers["ce_type"] == "order"``.

It is a part of Python's expressions, read by ``ast`` and walked here; nothing of it is ever executed. The names are
``payload`` (the JSON), ``headers`` (texts by name, the first of each) and ``key`` (a text). What is missing makes a
comparison false, ``!=`` and ``not in`` too; values of different types are unequal and have no order. Numbers are
compared exactly, as they are written.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import translate
from functools import cached_property
from typing import Any, NoReturn

from .errors import UsageError
from .headers import HeaderPairs

MAX_TEXT = 1_000
MAX_DEPTH = 20
_ROOTS = ("payload", "headers", "key")
_WORDS: Mapping[str, object] = {"true": True, "false": False, "null": None}
_FUNCTIONS = ("exists", "len", "like", "lower")
_SHOWN = 20
_MISSING: Any = object()


class _Record:
    """What is asked about, decoded when it is needed and once."""

    def __init__(self, payload: bytes | None, headers: HeaderPairs, key: bytes | None) -> None:
        self._payload, self._headers, self._key = payload, headers, key

    @cached_property
    def payload(self) -> Any:
        return None if self._payload is None else _json(self._payload)

    @cached_property
    def headers(self) -> dict[str, str | None]:
        return {name: _text(value) for name, value in reversed(self._headers)}

    @cached_property
    def key(self) -> str | None:
        return _text(self._key)


_Test = Callable[[_Record], bool]
_Value = Callable[[_Record], Any]


@dataclass(frozen=True, slots=True)
class Match:
    """A condition. ``parse`` makes it."""

    text: str
    _holds: _Test = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> "Match":
        """Raises UsageError, one sentence that points at the place."""
        stripped = text.strip()
        if not 0 < len(stripped) <= MAX_TEXT or not stripped.isprintable():
            raise UsageError(f"A condition is one line of 1 to {MAX_TEXT:,} printable characters.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as those of the compiler about escapes
            return cls(stripped, _Reader(stripped).whole())

    def matches(self, payload: bytes | None, headers: HeaderPairs, key: bytes | None) -> bool:
        """Whether it holds. Never raises, whatever the bytes are."""
        return self._holds(_Record(payload, headers, key))


class _Reader:
    """Turns the syntax tree into functions, or says where it is none of ours."""

    def __init__(self, text: str) -> None:
        self._text = text

    def whole(self) -> _Test:
        try:
            tree = ast.parse(self._text, mode="eval")
        except SyntaxError as error:
            start = error.offset - 1 if error.lineno == 1 and error.offset else len(self._text)
            self._refuse(start, 'it is no expression (names that are no plain words: payload["a b"])')
        except (MemoryError, RecursionError, ValueError):
            self._refuse(0, "it is nested too deeply")
        return self._test(tree.body, 0)

    def _test(self, node: ast.expr, depth: int) -> _Test:
        """Something that holds or not."""
        if depth > MAX_DEPTH:
            self._fail(node, f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(node, ast.BoolOp):
            tests = [self._test(each, depth + 1) for each in node.values]
            together = all if isinstance(node.op, ast.And) else any
            return lambda record: together(test(record) for test in tests)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            negated = self._test(node.operand, depth + 1)
            return lambda record: not negated(record)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Call) and self._function(node) in ("exists", "like"):
            return self._exists(node) if self._function(node) == "exists" else self._like(node)
        if self._is_path(node):
            value = self._path(node)
            return lambda record: _given(value(record))
        return self._fail(node, 'there is nothing to decide here; compare it, as in payload.status == "open"')

    def _comparison(self, node: ast.Compare) -> _Test:
        """One or a chain: ``1 < payload.count <= 10``."""
        operands = [self._operand(node.left)]
        compares = []
        for operator, right in zip(node.ops, node.comparators, strict=True):
            compare = _COMPARES.get(type(operator))
            if compare is None:
                self._fail(right, "the comparisons are == != < <= > >= in, not in (and == null instead of is None)")
            compares.append(compare)
            among = isinstance(operator, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple)
            operands.append(self._listed(right) if among else self._operand(right))

        def holds(record: _Record) -> bool:
            values = [operand(record) for operand in operands]
            if any(value is _MISSING for value in values):
                return False
            return all(map(_compared, compares, values, values[1:]))

        return holds

    def _operand(self, node: ast.expr) -> _Value:
        """A literal, a path, ``len(path)`` or ``lower(path)``."""
        if isinstance(node, ast.Call):
            name = self._function(node)
            if name not in ("len", "lower"):
                self._fail(node, f"{name}() stands alone: it is true or false")
            [argument] = self._arguments(node, 1)
            value, apply = self._path(argument), _length if name == "len" else _lower
            return lambda record: apply(value(record))
        if self._is_path(node):
            return self._path(node)
        literal = self._literal(node)
        return lambda _: literal

    def _listed(self, node: ast.expr) -> _Value:
        assert isinstance(node, ast.List | ast.Tuple)  # noqa: S101  the caller looked
        literals = [self._literal(each) for each in node.elts]
        return lambda _: literals

    def _literal(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in _WORDS:
            return _WORDS[node.id]
        if isinstance(node, ast.Constant):
            if node.value is None or isinstance(node.value, bool | str):
                return node.value
            if isinstance(node.value, int):
                return Decimal(node.value)
            if isinstance(node.value, float):  # as it is written, not as a float has it
                return _number(ast.get_source_segment(self._text, node) or repr(node.value))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._literal(node.operand)
            if isinstance(number, Decimal):
                return -number
        if isinstance(node, ast.Name):
            known = ", ".join((*_ROOTS, *_WORDS))
            self._fail(node, f"{node.id} is no name here (there are {known}); a text stands in quotes")
        return self._fail(node, "only paths, texts, numbers, true, false and null can be compared")

    def _exists(self, node: ast.Call) -> _Test:
        [argument] = self._arguments(node, 1)
        value, is_root = self._path(argument), isinstance(argument, ast.Name)
        return lambda record: (found := value(record)) is not _MISSING and not (is_root and found is None)

    def _like(self, node: ast.Call) -> _Test:
        argument, pattern = self._arguments(node, 2)
        if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str):
            self._fail(pattern, 'a pattern is a text such as "o-*"')
        value = self._operand(argument) if isinstance(argument, ast.Call) else self._path(argument)
        found = re.compile(translate(pattern.value)).match

        def holds(record: _Record) -> bool:
            text = value(record)
            return isinstance(text, str) and found(text) is not None

        return holds

    def _function(self, node: ast.Call) -> str:
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            self._fail(node, f"the functions are {', '.join(_FUNCTIONS)}")
        return node.func.id

    def _arguments(self, node: ast.Call, count: int) -> Sequence[ast.expr]:
        if len(node.args) != count or node.keywords:
            self._fail(node, f"{self._function(node)}() takes {count} argument{'' if count == 1 else 's'}")
        return node.args

    @staticmethod
    def _is_path(node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute | ast.Subscript) or (isinstance(node, ast.Name) and node.id in _ROOTS)

    def _path(self, node: ast.expr) -> _Value:
        """``payload.items[0].sku``: how to get there."""
        steps: list[str | int] = []
        while isinstance(node, ast.Attribute | ast.Subscript):
            steps.append(node.attr if isinstance(node, ast.Attribute) else self._index(node.slice))
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in _ROOTS:
            self._fail(node, f"a path begins with {', '.join(_ROOTS[:-1])} or {_ROOTS[-1]}")
        root = node.id
        steps.reverse()

        def value(record: _Record) -> Any:
            found = getattr(record, root)
            for step in steps:
                if isinstance(found, dict) and isinstance(step, str):
                    found = found.get(step, _MISSING)
                elif isinstance(found, list) and isinstance(step, int) and -len(found) <= step < len(found):
                    found = found[step]
                else:
                    return _MISSING
            return found

        return value

    def _index(self, node: ast.expr) -> str | int:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int) and not isinstance(node.value, bool):
            return node.value
        if (
            isinstance(node, ast.UnaryOp)
            and isinstance(node.op, ast.USub)
            and isinstance(node.operand, ast.Constant)
            and type(node.operand.value) is int
        ):
            return -node.operand.value
        return self._fail(node, "between brackets stands a name in quotes or a whole number")

    def _fail(self, node: ast.expr, why: str) -> NoReturn:
        before = self._text.encode()[: node.col_offset]  # ast counts bytes
        self._refuse(len(before.decode(errors="ignore")), why)

    def _refuse(self, start: int, why: str) -> NoReturn:
        start = max(0, min(start, len(self._text)))
        rest = self._text[start : start + _SHOWN]
        place = f"at character {start + 1}, {rest!r}" if rest else "at its end"
        raise UsageError(f"The condition is wrong {place}: {why}.")


def _compared(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    try:
        return compare(left, right)
    except RecursionError:  # two values that are nested so deeply that they cannot be compared
        return False


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right  # in JSON, 1 is not true
    return bool(left == right)


def _ordered(left: Any, right: Any) -> bool:
    return any(isinstance(left, kind) and isinstance(right, kind) for kind in (Decimal, str))


def _holder(left: Any, right: Any) -> bool:
    return isinstance(right, list) or (isinstance(right, dict | str) and isinstance(left, str))


def _within(left: Any, right: Any) -> bool:
    return any(_equal(left, each) for each in right) if isinstance(right, list) else left in right


_COMPARES: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: not _equal(left, right),
    ast.Lt: lambda left, right: _ordered(left, right) and left < right,
    ast.LtE: lambda left, right: _ordered(left, right) and left <= right,
    ast.Gt: lambda left, right: _ordered(left, right) and left > right,
    ast.GtE: lambda left, right: _ordered(left, right) and left >= right,
    ast.In: lambda left, right: _holder(left, right) and _within(left, right),
    ast.NotIn: lambda left, right: _holder(left, right) and not _within(left, right),
}


def _given(value: Any) -> bool:
    return value is not _MISSING and value is not None and value is not False


def _length(value: Any) -> Any:
    return Decimal(len(value)) if isinstance(value, str | list | dict) else _MISSING


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else _MISSING


def _json(payload: bytes) -> Any:
    """The payload, its numbers exact; ``_MISSING`` for what is no JSON, or nested too deeply."""
    try:
        return json.loads(payload.decode(), parse_float=_number, parse_int=Decimal, parse_constant=_constant)
    except (ValueError, RecursionError):
        return _MISSING


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent that no Decimal has: 0 or infinite
        return Decimal(float(text))


def _constant(name: str) -> Any:
    return _MISSING if name == "NaN" else Decimal(name)


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
