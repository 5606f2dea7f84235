"""Foreign text in Markdown, where nothing in it may be a mark. Knows no debates and no cards."""

from __future__ import annotations

import re


def fenced(text: str) -> str:
    """Foreign text as a block of code that nothing in it can end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def code(text: object) -> str:
    """Foreign text as a code span on one line."""
    line = " ".join(str(text).split())
    mark = "`" * (_longest_run(line) + 1)
    pad = " " if not line or line[0] == "`" or line[-1] == "`" else ""
    return f"{mark}{pad}{line}{pad}{mark}"


def cell(text: object) -> str:
    """Foreign text as a code span in a table, where only a bar could end it."""
    return code(text).replace("|", "\\|")


def plain(text: object) -> str:
    """Foreign text within a line, as nothing but text."""
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", " ".join(str(text).split()))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
