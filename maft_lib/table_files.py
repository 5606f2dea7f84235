"""How tables are written: Markdown, CSV and LaTeX with booktabs rules. Knows nothing of what they say.

Cells are finished text, marked up as in Markdown, or numbers. `table.attrs["note"]` is written, too.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from maft_lib.arguments import as_place, check_kind
from maft_lib.disk import replacing

DAGGER = "†"


def save_table(
    table: pd.DataFrame, path: str | Path, numbers: pd.DataFrame | None = None
) -> list[Path]:
    """Writes `path`.md, `path`.tex and `path`.csv; the CSV holds `numbers` where they are given.

    Raises `ValueError` for a folder that is not there and `StoreError` if the disk refuses.

    The note of the table stands below it in Markdown and as a comment above it in LaTeX, whose
    preamble needs `booktabs`.
    """
    check_kind("table", table, pd.DataFrame)
    if numbers is not None:
        check_kind("numbers", numbers, pd.DataFrame)
    place = as_place(path)
    csv = _flat(table).to_csv() if numbers is None else numbers.to_csv(index=False, float_format="%.4f")
    texts = {".md": _markdown(table), ".tex": _latex(table), ".csv": csv}
    paths = [place.with_name(place.name + suffix) for suffix in texts]
    for path, text in zip(paths, texts.values()):
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8", errors="backslashreplace")
    return paths


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with heads of one line: "cost: tokens"."""
    heads = [": ".join(filter(None, _texts(head))) for head in table.columns]
    return table.set_axis(heads, axis=1)


def _markdown(table: pd.DataFrame) -> str:
    flat = _flat(table)
    numeric = [is_numeric_dtype(column) for _, column in flat.items()]
    for number in range(len(numeric)):
        if not numeric[number]:
            flat.isetitem(number, flat.iloc[:, number].map(lambda cell: _piped(_text(cell))))
    flat = flat.rename(_piped, axis=0).rename(_piped, axis=1).rename_axis(index=_piped)
    finished = [n + table.index.nlevels for n, is_number in enumerate(numeric) if not is_number]
    text = flat.to_markdown(disable_numparse=finished) + "\n"  # "55,889" stays as it is written
    note = table.attrs.get("note")
    return f"{text}\n{note}\n" if note else text


def _piped(value: Any) -> Any:
    """A bar inside a cell would end it."""
    return value.replace("|", "\\|") if isinstance(value, str) else value


def _latex(table: pd.DataFrame) -> str:
    note = table.attrs.get("note")
    numbers = ["r" if _texts(head)[0] == "cost" else "c" for head in table.columns]
    lines = [
        *([f"% {' '.join(str(note).split())}"] if note else []),
        "\\begin{tabular}{" + "l" * table.index.nlevels + "".join(numbers) + "}",
        "\\toprule",
        *_latex_heads(table),
        "\\midrule",
        *(_latex_row([*_texts(i), *map(_text, row)]) for i, *row in table.itertuples()),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_heads(table: pd.DataFrame) -> list[str]:
    """The lines of heads: groups over their columns, with a rule under each, where there are groups."""
    names = [str(name or "") for name in table.index.names]
    if table.columns.nlevels == 1:
        return [_latex_row([*names, *map(str, table.columns)])]
    heads, rules, column = ["" for _ in names], [], len(names) + 1
    for group, members in groupby(table.columns, key=lambda head: str(head[0])):
        width = len(list(members))
        heads.append(f"\\multicolumn{{{width}}}{{c}}{{{_escape(group)}}}")
        rules.append(f"\\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    below = _latex_row([*names, *(str(head[-1]) for head in table.columns)])
    return [" & ".join(heads) + r" \\", "".join(rules), below]


def _latex_row(cells: Sequence[str]) -> str:
    line = " & ".join(map(_latex_cell, cells)) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line  # else an argument of the \\ before it


def _latex_cell(cell: str) -> str:
    emphasis = re.match(r"(\*\*|_)(.+?)\1(?!\w)", cell)
    if not emphasis:
        return re.sub(r"^-(?=\d)", "$-$", _escape(cell))
    command = {"**": "\\textbf", "_": "\\underline"}[emphasis[1]]
    return f"{command}{{{_escape(emphasis[2])}}}{_escape(cell[emphasis.end() :])}"


_LATEX = str.maketrans(
    {
        **{character: "\\" + character for character in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
        "±": "$\\pm$",
        DAGGER: "$^{\\dagger}$",
        "\n": " ",
    }
)


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def _text(cell: Any) -> str:
    return "" if pd.isna(cell) else str(cell)


def _texts(head: Hashable) -> list[str]:
    return [str(part) for part in (head if isinstance(head, tuple) else (head,))]
