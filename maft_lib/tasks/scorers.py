"""Whether a scorer of the reasoning_gym package can be given a model's text. Runs none of them.

Some scorers of the package hand the answer to `eval` or to SymPy's `parse_expr`, which execute it. So
the source of a scorer is read, with all that it calls inside the package; it is refused if an
executing function is named anywhere in it, even for another text than the answer, if it uses a module
that is not on the list below, or if what it calls cannot be told from the source.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

PACKAGE = "reasoning_gym"
EXECUTING = {
    "eval", "exec", "compile", "parse_expr", "sympify", "literal_eval", "lambdify", "parse_latex",
    "__import__", "import_module", "getattr", "globals", "locals", "vars", "open",
    "system", "Popen", "input", "breakpoint",
}  # fmt: skip
"""Names that execute text, or that can reach what does."""

MODULES = {
    "abc", "builtins", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "itertools", "json", "math", "numpy", "random", "re", "string", "typing", "warnings",
}  # fmt: skip
"""Modules none of whose functions execute the text that they are given."""


def danger(dataset: type) -> str | None:
    """Why a dataset class's `score_answer` must not see a model's text; None if it may."""
    waiting = [(scorer, dataset) for scorer in _scorers(dataset)]
    seen = set()
    while waiting:
        function, owner = waiting.pop()
        if function in seen or _generated(function):
            continue
        seen.add(function)
        try:
            reached = list(_reached(function, owner))
        except (OSError, SyntaxError, _Danger) as reason:
            return f"{function.__qualname__} {reason}"
        waiting += reached
    return None


class _Danger(Exception):
    """Why a function is refused, as what follows its name."""


def _scorers(dataset: type) -> Iterator[FunctionType]:
    """`score_answer` of the class and, since it may call them, of its ancestors."""
    for ancestor in dataset.__mro__:
        if isinstance(scorer := vars(ancestor).get("score_answer"), FunctionType):
            yield scorer


def _generated(function: FunctionType) -> bool:
    """Whether a dataclass wrote the function: such ones only store or compare fields."""
    return inspect.unwrap(function).__code__.co_filename == "<string>"


def _reached(function: FunctionType, owner: type) -> Iterator[tuple[FunctionType, type]]:
    """What a function may call inside the package; raises `_Danger` for what must not be called."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Name):
            _check_name(node.id)
            yield from _behind(function.__globals__.get(node.id), owner)
        elif isinstance(node, ast.Attribute):
            _check_name(node.attr)
            if _is_self(node.value):
                yield from _behind(_member(owner, node.attr), owner)
            if isinstance(module := _module(node.value, function), ModuleType):
                yield from _behind(getattr(module, node.attr, None), owner)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            _check_call(node.func, owner)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            _check_import(node)


def _behind(value: Any, owner: type) -> Iterator[tuple[FunctionType, type]]:
    """The package's functions behind a global or a member; raises `_Danger` for a foreign one."""
    if isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _behind(part, owner)
    elif isinstance(value, Mapping):
        yield from _behind(list(value.values()), owner)
    elif isinstance(value, ModuleType):
        if value.__name__.split(".")[0] != PACKAGE:  # what is taken from the package is followed
            _check_module(value.__name__)
    elif callable(value):
        yield from _callable(value, owner)


def _module(node: ast.expr, function: FunctionType) -> Any:
    """The module that an expression like `utils` or `package.utils` stands for, if it does."""
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id)
    if isinstance(node, ast.Attribute):
        module = _module(node.value, function)
        return getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
    return None


def _callable(value: Any, owner: type) -> Iterator[tuple[FunctionType, type]]:
    value = getattr(value, "__func__", value)
    _check_name(getattr(value, "__name__", ""))  # it may go by another name where it is used
    module = getattr(value, "__module__", None) or type(value).__module__
    if module.split(".")[0] != PACKAGE:
        _check_module(module)
    elif isinstance(value, FunctionType):
        yield value, owner
    elif isinstance(value, type):
        for ancestor in value.__mro__:
            if ancestor.__module__.split(".")[0] == PACKAGE:
                members = [_member(value, name) for name in vars(ancestor)]
                yield from ((m, value) for m in members if isinstance(m, FunctionType))
    else:
        raise _Danger(f"calls {value!r}, whose source cannot be read")


def _member(owner: type, name: str) -> Any:
    """A member of a class: the function behind a method or a property, else the value itself."""
    member = inspect.getattr_static(owner, name, None)
    member = member.fget if isinstance(member, property) else member
    return getattr(member, "__func__", member)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _check_call(called: ast.Attribute, owner: type) -> None:
    """A method of `self` must be found in the class; another dataset's scorer must not be called."""
    if _is_self(called.value) and _member(owner, called.attr) is None:
        raise _Danger(f"calls self.{called.attr}, which its class does not define")
    if called.attr == "score_answer" and ast.unparse(called.value) != "super()":
        raise _Danger("calls the scorer of another dataset")


def _check_name(name: str) -> None:
    if name in EXECUTING:
        raise _Danger(f"uses {name}, which can execute text")


def _check_module(name: str) -> None:
    root = name.split(".")[0]
    if root not in MODULES and root.removeprefix("_") not in MODULES:
        raise _Danger(f"uses {root}, which is not known to leave text alone")


def _check_import(node: ast.Import | ast.ImportFrom) -> None:
    modules = [node.module or "."] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    for name in modules:
        _check_module(name)
