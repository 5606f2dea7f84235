"""How tables are written: Markdown, CSV and LaTeX with booktabs rules. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from maft_lib.plots import LABELS

NOT_RUN = "not yet run"
TABLE_1 = ("base", "majority", "debate", "star", "majority_ft", "single_agent_ft", "multiagent_ft")


def methods_by_task(
    accuracies: pd.DataFrame, tasks: Sequence[str], methods: Sequence[str] = TABLE_1
) -> pd.DataFrame:
    """Table 1: a row per method and a column per task, cells "accuracy ± standard error" in percent.

    `accuracies` has `method`, `task`, `accuracy` and `standard_error`, one row per cell. The best
    value of a column is **bold**, the second _underlined_ (Markdown's emphasis). Methods that were
    not run say so.
    """
    cells = {(row.method, row.task): row for row in accuracies.itertuples()}
    table = pd.DataFrame(index=[LABELS[m] for m in methods], columns=list(tasks), dtype=object)
    for task in tasks:
        means = {m: round(cells[m, task].accuracy, 2) for m in methods if (m, task) in cells}
        ranks = sorted(set(means.values()), reverse=True)
        for method in methods:
            cell = cells.get((method, task))
            table.loc[LABELS[method], task] = NOT_RUN if cell is None else _cell(cell, ranks)
    table.index.name = "method"
    return table


def _cell(cell, ranks: Sequence[float]) -> str:
    mean = f"{cell.accuracy:.1f}"
    if round(cell.accuracy, 2) == ranks[0]:
        mean = f"**{mean}**"
    elif len(ranks) > 1 and round(cell.accuracy, 2) == ranks[1]:
        mean = f"_{mean}_"
    return f"{mean} ± {cell.standard_error:.1f}"


def save_table(table: pd.DataFrame, path: Path, numbers: pd.DataFrame | None = None) -> list[Path]:
    """Writes `path`.md, `path`.tex and `path`.csv; the CSV holds `numbers` where they are given."""
    paths = [path.with_suffix(suffix) for suffix in (".md", ".tex", ".csv")]
    paths[0].write_text(table.to_markdown() + "\n", encoding="utf-8")
    paths[1].write_text(_latex(table), encoding="utf-8")
    csv = table.to_csv() if numbers is None else numbers.to_csv(index=False, float_format="%.4f")
    paths[2].write_text(csv, encoding="utf-8")
    return paths


def _latex(table: pd.DataFrame) -> str:
    lines = [
        "\\begin{tabular}{l" + "c" * len(table.columns) + "}",
        "\\toprule",
        " & ".join(_escape(str(c)) for c in (table.index.name or "", *table.columns)) + r" \\",
        "\\midrule",
        *(
            " & ".join([_escape(str(i)), *map(_emphasis, row)]) + r" \\"
            for i, *row in table.itertuples()
        ),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _emphasis(cell: object) -> str:
    mean, *rest = str(cell).split(" ± ")
    if mean.startswith("**"):
        mean = f"\\textbf{{{mean.strip('*')}}}"
    elif mean.startswith("_"):
        mean = f"\\underline{{{mean.strip('_')}}}"
    return " $\\pm$ ".join([mean if mean.startswith("\\") else _escape(mean), *rest])


def _escape(text: str) -> str:
    return text.replace("_", "\\_").replace("%", "\\%")
