"""Tables of accuracies, and how any table is written: Markdown, CSV and LaTeX with booktabs rules.

A table is a data frame of finished cells in Markdown: the best value of a column is **bold**, the
second _underlined_, a lead that may be luck has a dagger. `table.attrs["note"]` says what marks mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from maft_lib import reported
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

    `accuracies` has `method`, `task`, `accuracy` and `standard_error`, one row per cell. A lead that
    `significance`, a frame of `statistics.compare`, does not find significant gets a dagger.
    `unreadable` adds the share of results that could not be read (%), `costs` its columns, a row per
    method. With either, columns are in groups: (group, task or cost).
    """
    cells = _cells(accuracies)
    doubtful: set[tuple[str, str]] = set()
    if significance is not None:  # whoever trails has no lead; baselines claim none
        leads = significance[(significance.difference >= 0) & ~significance.significant.astype(bool)]
        doubtful = set(zip(leads.method, leads.task))
    columns = {("accuracy (%)", task): _marked(cells, doubtful, task, methods) for task in tasks}
    for task in tasks if unreadable else ():
        found = [cells.get((method, task)) for method in methods]
        columns["unreadable (%)", task] = [f"{cell.unreadable:.1f}" if cell else "" for cell in found]
    if costs is not None:
        costs = costs.reindex(list(methods))
        columns |= {("cost", name): [_number(value) for value in costs[name]] for name in costs}
    table = _table(columns, methods, "" if significance is None else NOTE)
    return table if unreadable or costs is not None else table.droplevel(0, axis=1)


def beside_published(
    measured: pd.DataFrame,
    table: str,
    model_name_or_path: str,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    counterparts: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Measured accuracies beside those of a published table of `reported`, in percent.

    The published ones are of the same model where it is in there, else of Phi-3, the smallest, or the
    first in the table, and of the same task, what `counterparts` names, or what a generated task
    imitates. Where both are the same, a third column says how many standard errors apart they are.
    """
    published = reported.published(table)
    models, own = list(published.model.unique()), reported.MODELS.get(model_name_or_path)
    model = next((name for name in (own, "Phi-3") if name in models), models[0])
    ours, theirs = _cells(measured), _cells(published[published.model == model])
    if methods is None:
        present = [method for method, _ in (*theirs, *ours)]
        methods = sorted(dict.fromkeys(present), key=[*LABELS, *present].index)
    columns: dict[tuple[str, str], list[str]] = {}
    for task in measured.task.unique() if tasks is None else tasks:
        other = {**COUNTERPARTS, **(counterparts or {})}.get(task, task)
        is_same = model == own and other in SAME.get(task, {task})
        pairs = [(ours.get((m, task)), theirs.get((m, other))) for m in methods]
        columns[task, "measured"] = [_plain(a, 1, NOT_RUN) for a, _ in pairs]
        columns[task, "published"] = [_plain(b, 2) for _, b in pairs]
        columns[task, APART] = [_apart(a, b) if is_same and a and b else "" for a, b in pairs]
    note = f"{APART}: SE is the square root of the sum of both squared standard errors"
    note += "." if model == own else "; empty, as the models differ."
    return _table(columns, methods, f"{note} Published: {reported.about(table)['title']}; {model}.")


def _table(columns: Mapping[Any, list[str]], methods: Sequence[str], note: str) -> pd.DataFrame:
    index = pd.Index([LABELS.get(method, method) for method in methods], name="method")
    table = pd.DataFrame(columns, index=index, dtype=object)
    table.attrs["note"] = note
    return table


def _cells(frame: pd.DataFrame) -> dict[tuple[str, str], Any]:
    """The rows of a frame by (method, task); those without an accuracy are left out."""
    if frame.duplicated(["method", "task"]).any():
        raise ValueError("accuracies has several rows for a method and task: keep one iteration.")
    return {(r.method, r.task): r for r in frame.itertuples() if not pd.isna(r.accuracy)}


def _marked(cells: Mapping, doubtful: set, task: str, methods: Sequence[str]) -> list[str]:
    """The accuracies of one column, with its marks."""
    # Equal shares of right answers may differ in a float's last bits, no others do so little.
    means = {m: round(cells[m, task].accuracy, 9) for m in methods if (m, task) in cells}
    marks = dict(zip(sorted(set(means.values()), reverse=True), ("**", "_")))
    column = []
    for method in methods:
        mark, dagger = marks.get(means.get(method), ""), DAGGER if (method, task) in doubtful else ""
        column.append(_plain(cells.get((method, task)), 1, NOT_RUN, mark) + dagger)
    return column


def _number(value: Any) -> str:
    """Whole numbers and large ones without decimals and with thousands apart; nothing for nan."""
    if pd.isna(value):
        return ""
    whole = float(value).is_integer() or abs(value) >= 100
    return f"{value:,.0f}" if whole else f"{value:.1f}"


def _plain(cell: Any, decimals: int, missing: str = "", mark: str = "") -> str:
    if cell is None:
        return missing
    return f"{mark}{cell.accuracy:.{decimals}f}{mark} ± {cell.standard_error:.{decimals}f}"


def _apart(ours: Any, theirs: Any) -> str:
    values = attrgetter("accuracy", "standard_error")
    z = standard_errors_apart(*values(ours), *values(theirs))
    return "" if math.isnan(z) else f"{z:+.1f}"


def with_errors(frame: pd.DataFrame, index: str, columns: str, digits: int = 1) -> pd.DataFrame:
    """Cells "mean ± error", in the order of the frame: a row per `index`, a column per `columns`.

    `frame` has `mean` and `error`, or `accuracy` and `standard_error`, in percent.
    """
    value, error = ("mean", "error") if "mean" in frame else ("accuracy", "standard_error")
    texts = [f"{m:.{digits}f} ± {e:.{digits}f}" for m, e in zip(frame[value], frame[error])]
    table = frame.assign(cell=texts).pivot(index=index, columns=columns, values="cell")
    return table.loc[frame[index].unique(), frame[columns].unique()].rename(columns=LABELS)


def comparisons(differences: pd.DataFrame, *index: str) -> pd.DataFrame:
    """The rows of `statistics.compare` that compare something: differences in points, p after Holm."""
    shown = differences.dropna(subset="p").set_index(list(index or ("task", "method")))
    columns = [name for name in COMPARED if name in shown and name not in index]
    return shown[columns].round({"difference": 1, "low": 1, "high": 1, "smallest": 1, "p_holm": 3})


MINUS = "\N{MINUS SIGN}"
COMPARED = ("baseline", "difference", "low", "high", "smallest", "p_holm", "significant")


def in_words(differences: pd.DataFrame) -> str:
    """What `statistics.compare` found, a sentence a row."""
    said = []
    for row in differences.dropna(subset="p").itertuples():
        found = "cannot be told from"
        if row.significant:
            found = "is above" if row.difference > 0 else "is below"
        names = [LABELS.get(name, name) for name in (row.method, row.baseline)]
        numbers = f"{row.difference:+.1f} points [{row.low:.1f}, {row.high:.1f}]".replace("-", MINUS)
        said.append(f"On {row.task}, {names[0]} {found} {names[1]}: {numbers}.")
    return "\n".join(said)


# Files


def save_table(
    table: pd.DataFrame, path: str | Path, numbers: pd.DataFrame | None = None
) -> list[Path]:
    """Writes `path`.md, `path`.tex (needs `booktabs`) and `path`.csv, which holds `numbers` if given.

    The table's note stands below it in Markdown and as a comment above it in LaTeX; `for_paper` says
    how it is shown there. A table without rows is not written.
    """
    if table.empty:
        return []
    note, table = table.attrs.get("note"), for_paper(table)
    heads = [head if isinstance(head, tuple) else (head,) for head in table.columns]
    flat = table.set_axis([": ".join(filter(None, map(str, head))) for head in heads], axis=1)
    numbered = isinstance(table.index, pd.RangeIndex)
    csv = flat.to_csv(index=not numbered)
    csv = csv if numbers is None else numbers.to_csv(index=False, float_format="%.4f")
    markdown, latex = _markdown(flat), _latex(table)
    if note:
        markdown, latex = f"{markdown}\n{note}\n", f"% {' '.join(str(note).split())}\n{latex}"
    paths = [Path(f"{path}{suffix}") for suffix in (".md", ".tex", ".csv")]
    for path, text in zip(paths, (markdown, latex, csv)):
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8", errors="backslashreplace")
    return paths


def for_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The table with methods by their labels, small p values as "< 0.001", and no empty column.

    Several levels of an index become columns.
    """
    table = table.reset_index() if table.index.nlevels > 1 else table
    shown = table.dropna(axis=1, how="all")
    if not isinstance(table.index, pd.RangeIndex):
        shown = shown.rename(index=lambda name: LABELS.get(name, name))
    for name in shown:
        if name in ("method", "baseline"):
            shown[name] = shown[name].map(lambda value: LABELS.get(value, value))
        elif name in ("p", "p_holm"):
            small = shown[name] < 0.001
            shown[name] = shown[name].map("{:.3f}".format, na_action="ignore").mask(small, "< 0.001")
    return shown.rename(columns={"p_holm": "p (Holm)", "standard_error": "standard error"})


def _markdown(table: pd.DataFrame) -> str:
    def piped(value: Any) -> Any:  # a bar inside a cell would end it
        return value.replace("|", "\\|") if isinstance(value, str) else value

    texts = table.apply(lambda c: c if is_numeric_dtype(c) else c.map(_text).map(piped))
    texts = texts.rename(piped, axis=0).rename(piped, axis=1).rename_axis(index=piped)
    named = not isinstance(table.index, pd.RangeIndex)
    written = [place for place, kind in enumerate(table.dtypes, named) if not is_numeric_dtype(kind)]
    return texts.to_markdown(index=named, disable_numparse=written) + "\n"  # "55,889" stays as it is


def _text(cell: Any) -> str:
    return "" if pd.isna(cell) else str(cell)


def _latex(table: pd.DataFrame) -> str:
    style = table.rename_axis(index=_latex_cell).style.format(_latex_cell)
    style = style.format_index(_latex_cell).format_index(_latex_cell, axis=1)
    named = not isinstance(table.index, pd.RangeIndex)
    style = style if named else style.hide(axis="index")
    columns = "l" * named + "r" * table.shape[1]
    return style.to_latex(hrules=True, column_format=columns, multicol_align="c")


def _latex_cell(cell: Any) -> str:
    """A cell of Markdown in LaTeX."""
    text = _text(cell)
    if emphasis := re.match(r"(\*\*|_)(.+?)\1(?!\w)", text):
        command = {"**": "\\textbf", "_": "\\underline"}[emphasis[1]]
        return f"{command}{{{emphasis[2].translate(_LATEX)}}}{text[emphasis.end() :].translate(_LATEX)}"
    # After the \\ of the row before, [ and * would begin an argument.
    return re.sub(r"^-(?=\d)", "$-$", re.sub(r"^(?=[\[*])", "{}", text.translate(_LATEX)))


_COMMANDS = {"\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum"}
_COMMANDS |= {"<": "textless", ">": "textgreater", "|": "textbar"}
_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {character: f"\\{command}{{}}" for character, command in _COMMANDS.items()}
    | {"±": "$\\pm$", DAGGER: "$^{\\dagger}$", "\n": " "}
)
