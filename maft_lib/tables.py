"""Tables of accuracies, and how they are written: Markdown, CSV and LaTeX with booktabs rules.

A table is a data frame of finished cells, marked up as in Markdown: the best value of a column is
**bold**, the second _underlined_, a lead that may be luck has a dagger. What the marks mean stands in
`table.attrs["note"]`, which is written, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from maft_lib import reported
from maft_lib.arguments import as_place, check_columns, check_each, check_kind
from maft_lib.methods import TABLE_1
from maft_lib.metrics.statistics import standard_errors_apart
from maft_lib.plots import LABELS
from maft_lib.store.files import replacing

DAGGER = "†"
NOT_RUN = "not yet run"
NOTE = (
    f"{DAGGER} a lead over the column's strongest baseline that is not significant at 0.05 (exact "
    "McNemar test on the same problems, corrected by Holm over the whole table)."
)
APART = "(measured - published) / SE"
SAME = {"math": {"math", "math_all_levels"}}  # a task's names in published tables, where it has others
COUNTERPARTS = {"mini_gsm": "gsm", "mini_math": "math", "mini_mmlu": "mmlu"}
NOTE_APART = f"{APART}: SE is the square root of the sum of both squared standard errors"


def methods_by_task(
    accuracies: pd.DataFrame,
    tasks: Sequence[str],
    methods: Sequence[str] = TABLE_1,
    *,
    significance: pd.DataFrame | None = None,
    unreadable: bool = False,
    costs: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Table 1: a row per method and a column per task, cells "accuracy ± standard error" in percent.

    `accuracies` has `method`, `task`, `accuracy` and `standard_error`, one row per cell. The best value
    of a column is **bold**, the second _underlined_ (Markdown's emphasis); this is decided on unrounded
    accuracies, and equal ones share the mark. Methods that were not run say so.

    `significance` is the frame of `statistics.compare`: a lead that it does not find significant gets a
    dagger. `unreadable` adds a column per task with the share of results that could not be read (%),
    from the column of that name; `costs` adds its columns as they are, a row per method (its index or
    column `method`). With either, columns are in groups: (group, task or cost). Raises `ValueError` for
    frames without such columns, and for several rows of one cell.
    """
    check_each("tasks", tasks, str)
    check_each("methods", methods, str)
    cells = _cells(accuracies, "accuracies")
    doubtful = _doubtful(significance)
    groups = {"accuracy (%)": {t: _accuracies(cells, doubtful, t, methods) for t in tasks}}
    if unreadable:
        groups["unreadable (%)"] = {t: _unreadable(cells, t, methods) for t in tasks}
    if costs is not None:
        groups["cost"] = _costs(costs, methods)
    table = _table(groups if len(groups) > 1 else groups["accuracy (%)"], methods)
    table.attrs["note"] = "" if significance is None else NOTE
    return table


def side_by_side(
    measured: pd.DataFrame,
    published: pd.DataFrame,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    *,
    same_model: bool = False,
    counterparts: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Measured and published accuracies of each task in columns beside each other, in percent.

    `measured` as in `methods_by_task`, `published` as from `reported.published`, of one model. The
    third column of a task says by how many standard errors of the difference they are apart, and is
    empty unless `same_model` says that both are of the same model and the task is the same.
    `counterparts` names the published task of a measured one where they differ, as {"mini_gsm": "gsm"}.
    Raises `ValueError` as `methods_by_task` does, and for the published rows of several models.
    """
    for name, wanted in (("tasks", tasks), ("methods", methods)):
        if wanted is not None:
            check_each(name, wanted, str)
    check_columns("published", published, ("method", "task"))
    if "model" in published and published.model.nunique() > 1:
        models = ", ".join(published.model.unique())
        raise ValueError(f"side_by_side: published has the models {models}; keep the rows of one.")
    ours, theirs = _cells(measured, "measured"), _cells(published, "published")
    tasks = list(measured.task.unique()) if tasks is None else tasks
    if methods is None:
        present = [method for method, _ in (*theirs, *ours)]
        methods = sorted(dict.fromkeys(present), key=[*LABELS, *present].index)
    groups = {}
    for task in tasks:
        other = (counterparts or {}).get(task, task)
        pairs = [(ours.get((m, task)), theirs.get((m, other))) for m in methods]
        groups[task] = {
            "measured": [_plain(a, 1) or NOT_RUN for a, _ in pairs],
            "published": [_plain(b, 2) for _, b in pairs],
            APART: [
                _apart(a, b) if same_model and other in SAME.get(task, {task}) else "" for a, b in pairs
            ],
        }
    table = _table(groups, methods)
    table.attrs["note"] = f"{NOTE_APART}{'.' if same_model else '; empty, as the models differ.'}"
    return table


def beside_published(
    measured: pd.DataFrame,
    table: str,
    model_name_or_path: str,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    counterparts: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """`side_by_side` with a published table of `reported`: of the same model where it is in there.

    Else of Phi-3, the smallest, or the first in the table. Tasks of the miniature model stand beside
    those that they imitate, others beside what `counterparts` names.
    """
    theirs = reported.published(table)
    models = list(theirs.model.unique())
    own = reported.model_of(model_name_or_path)
    model = next((name for name in (own, "Phi-3") if name in models), models[0])
    beside = side_by_side(
        measured,
        theirs[theirs.model == model],
        tasks,
        methods,
        same_model=model == own,
        counterparts={**COUNTERPARTS, **(counterparts or {})},
    )
    beside.attrs["note"] += f" Published: {reported.about(table)['title']}; {model}."
    return beside


# Cells


def _label(method: str) -> str:
    return LABELS.get(method, method)


def _cells(frame: pd.DataFrame, name: str) -> dict[tuple[str, str], Any]:
    """The rows of a frame by (method, task); those without an accuracy are left out."""
    check_columns(name, frame, ("method", "task", "accuracy", "standard_error"))
    twice = frame[frame.duplicated(["method", "task"])]
    if len(twice):
        method, task = twice.iloc[0][["method", "task"]]
        raise ValueError(
            f"{name} has several rows for {method!r} on {task!r}; keep one, as of the last iteration."
        )
    return {(r.method, r.task): r for r in frame.itertuples() if not pd.isna(r.accuracy)}


def _doubtful(significance: pd.DataFrame | None) -> set[tuple[str, str]]:
    """(method, task) of leads that may be luck; to trail is no lead, and baselines claim none."""
    if significance is None:
        return set()
    check_columns("significance", significance, ("method", "task", "difference", "significant"))
    leads = significance[(significance.difference >= 0) & ~significance.significant.astype(bool)]
    return set(zip(leads.method, leads.task))


def _accuracies(cells: Mapping, doubtful: set, task: str, methods: Sequence[str]) -> list[str]:
    """One column, with its marks."""
    # Equal shares of right answers may differ in a float's last bits, no others do so little.
    means = {m: round(cells[m, task].accuracy, 9) for m in methods if (m, task) in cells}
    ranks = sorted(set(means.values()), reverse=True)
    marks = dict(zip(ranks, ("**", "_")))
    column = []
    for method in methods:
        if method not in means:
            column.append(NOT_RUN)
            continue
        mark = marks.get(means[method], "")
        mean, rest = _plain(cells[method, task], 1).split(" ", 1)
        dagger = DAGGER if (method, task) in doubtful else ""
        column.append(f"{mark}{mean}{mark} {rest}{dagger}")
    return column


def _unreadable(cells: Mapping, task: str, methods: Sequence[str]) -> list[str]:
    shares = [getattr(cells.get((m, task)), "unreadable", math.nan) for m in methods]
    return ["" if math.isnan(share) else f"{share:.1f}" for share in shares]


def _costs(costs: pd.DataFrame, methods: Sequence[str]) -> dict[str, list[str]]:
    check_columns("costs", costs, ())
    frame = costs.set_index("method") if "method" in costs else costs
    if frame.index.has_duplicates:
        method = frame.index[frame.index.duplicated()][0]
        raise ValueError(f"costs has several rows for {method!r}; add them up or keep one task's.")
    frame = frame.reindex(list(methods))
    return {str(name): [_number(value) for value in frame[name]] for name in frame}


def _number(value: Any) -> str:
    """Whole numbers and large ones without decimals and with thousands apart; nothing for nan."""
    if isinstance(value, str) or pd.isna(value):
        return value if isinstance(value, str) else ""
    whole = float(value).is_integer() or abs(value) >= 100
    return f"{value:,.0f}" if whole else f"{value:.1f}"


def _plain(cell: Any, decimals: int) -> str:
    if cell is None:
        return ""
    return f"{cell.accuracy:.{decimals}f} ± {cell.standard_error:.{decimals}f}"


def _apart(ours: Any, theirs: Any) -> str:
    if ours is None or theirs is None:
        return ""
    z = standard_errors_apart(
        ours.accuracy, ours.standard_error, theirs.accuracy, theirs.standard_error
    )
    return "" if math.isnan(z) else f"{z:+.1f}"


def _table(columns: Mapping[str, Any], methods: Sequence[str]) -> pd.DataFrame:
    """Finished columns {head: cells} or {group: {head: cells}} under the names of the methods."""
    heads: dict[Hashable, Any] = {}
    for group, column in columns.items():
        grouped = isinstance(column, Mapping)
        heads |= {(group, head): c for head, c in column.items()} if grouped else {group: column}
    index = pd.Index([_label(m) for m in methods], name="method")
    return pd.DataFrame(heads, index=index, dtype=object)


# Files


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
