"""The pages of the API: signatures and docstrings."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from .markdown import WIDTH, code, doc, markdown

#: The packages whose ``__all__`` is the API, and what each page is called.
API = {
    "postroom.outbox": "Publish",
    "postroom.inbox": "Consume",
    "postroom.relay": "Relay",
    "postroom.dlq": "Dead letters",
    "postroom.testing": "Test",
}


def api(name: str) -> str:
    """The public names of a package: signatures and docstrings."""
    module = import_module(name)
    parts = [f"# {API[name]}: `{name}`\n", "Generated from the code by `make reference`.\n", f"{doc(module)}\n"]
    names = sorted(module.__all__, key=lambda public: (public.isupper(), public.islower(), public.lower()))
    return "\n".join([*parts, *(f"## {public}\n\n{_member(public, getattr(module, public))}" for public in names)])


def _member(name: str, value: Any) -> str:
    if inspect.isclass(value):
        return _class(value)
    if inspect.isfunction(value):
        return f"{code(_signature(value))}\n{doc(value)}\n"
    return code(f"{name} = {_literal(value)}")


def _class(kind: type) -> str:
    node = _node(kind)
    bases = [ast.unparse(base) for base in node.bases]
    fields = [
        ast.unparse(line)
        for line in node.body
        if (isinstance(line, ast.AnnAssign) and not ast.unparse(line.target).startswith("_"))
        or (isinstance(line, ast.Assign) and issubclass(kind, Enum))
    ]
    head = f"class {kind.__name__}" + (f"({', '.join(bases)})" if bases else "")
    if issubclass(kind, BaseModel) and kind.__name__.endswith("Settings"):
        fields = []  # docs/reference/settings.md has them all
    parts = [code("\n    ".join([head, *fields]))]
    parts.append(f"{doc(kind)}\n" if kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(") else "")
    constructor = kind.__dict__.get("__init__")
    if inspect.isfunction(constructor) and "__init__" in {line.name for line in _functions(node)}:
        parts[0] = code("\n    ".join([_signature(constructor, kind.__name__), *fields]))
        if constructor.__doc__:
            parts.append(f"{doc(constructor)}\n")
    if issubclass(kind, BaseModel) and kind.__name__.endswith("Settings"):
        parts.append("[Settings](settings.md) has its fields, their defaults and ranges.\n")
    private = [base for base in kind.__mro__[1:] if _is_private(base)]
    for line in [*_functions(node), *(line for base in private for line in _functions(_node(base)))]:
        if line.name.startswith("_"):
            continue
        member = inspect.getattr_static(kind, line.name)
        text = inspect.cleandoc(ast.get_docstring(line) or "")
        is_property = isinstance(member, property)
        shown = f"{line.name}: {ast.unparse(line.returns)}" if is_property and line.returns else _signature_of(line)
        parts.append(f"### {kind.__name__}.{line.name}\n\n{code(shown)}\n{markdown(text)}\n")
    return "\n".join(part for part in parts if part)


def _is_private(base: type) -> bool:
    """A base of ours without a page: what it has is told where it is inherited."""
    return base.__name__.startswith("_") and base.__module__.startswith("postroom.")


def _functions(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The methods, each once: the last of its overloads."""
    found = {line.name: line for line in node.body if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef)}
    return list(found.values())


def _node(value: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _signature(function: Any, name: str = "") -> str:
    return _signature_of(_node(inspect.unwrap(function)), name)


def _signature_of(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str = "") -> str:
    """As it was written, without ``self``; on one line where it fits, else with a line for each parameter."""
    given = node.args
    for plain in (given.posonlyargs, given.args):
        if plain and plain[0].arg in {"self", "cls"}:
            del plain[0]
    arguments = ast.unparse(given)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    start = ("async " if isinstance(node, ast.AsyncFunctionDef) else "") + (f"class {name}" if name else node.name)
    line = f"{start}({arguments}){returns}"
    if len(line) <= WIDTH:
        return line
    listed = "".join(f"    {one},\n" for one in _parameters(arguments))
    return f"{start}(\n{listed}){returns}"


def _parameters(arguments: str) -> Iterator[str]:
    """Split at the commas that are in no brackets."""
    depth, start = 0, 0
    for place, sign in enumerate(arguments):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            yield arguments[start:place].strip()
            start = place + 1
    yield arguments[start:].strip()


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{\n" + "".join(f"    {_literal(key)}: {_literal(inner)},\n" for key, inner in value.items()) + "}"
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple):
        return "(" + ", ".join(_literal(one) for one in value) + ")"
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(_literal(one) for one in value)) + "}"
    if dataclasses.is_dataclass(value):
        told = (f"{given.name}={_literal(getattr(value, given.name))}" for given in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(told)})"
    return repr(getattr(value, "__value__", value)).removeprefix("typing.")
