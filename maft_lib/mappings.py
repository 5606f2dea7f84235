"""Reads a YAML file of `key: value` lines, as params and prompts are. Knows none of their keys.

Stricter than YAML: a key that stands there twice, of which YAML keeps the last, is an error; so is an
alias, with which a short file can stand for gigabytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from maft_lib.wording import one_line


def read_mapping(path: str | Path, kind: str, error_class: type[ValueError]) -> dict[Any, Any]:
    """The mapping that a file of some kind holds. Raises `error_class` if it holds none."""
    try:
        found = _loaded(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "cannot be read: it is not UTF-8 text"
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: dates that are none
        problem = f"cannot be read as YAML: {_told(error)}"
    else:
        if isinstance(found, dict) and found:
            return found
        problem = "is empty" if found in (None, {}, []) else "is a list or a single value"
        problem += ": write `key: value` lines"
    raise error_class(f"{kind} {path} {problem}.")


def _loaded(text: str) -> Any:
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _told(error: Exception) -> str:
    """What the parser says, with the line, on one line."""
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    return (f"line {mark.line + 1}: " if mark else "") + one_line(words, 200)


class _StrictLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "an alias (*name): write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                twice = f"the key {key.value!r} stands there twice"
                raise yaml.MarkedYAMLError(None, None, twice, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
