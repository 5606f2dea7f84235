"""Published numbers as data frames, from `params/reported.yml`. Knows nothing of what is measured here.

Accuracies and standard errors are in percent, as printed. The pages, the numbers of problems, and what
is odd about a table come with it: `about("table_1")["oddities"]`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from maft_lib.arguments import check_text
from maft_lib.config import ConfigError, check_name, project_root

COLUMNS = ["model", "method", "task", "accuracy", "standard_error"]
TABLES = (*(f"table_{number}" for number in range(1, 8)), "openreview_gsm")
MODELS = {  # Appendix B.3
    "microsoft/Phi-3-mini-128k-instruct": "Phi-3",
    "mistralai/Mistral-7B-Instruct-v0.2": "Mistral",
    "meta-llama/Meta-Llama-3-8B-Instruct": "LLaMA-3",
    "gpt-3.5-turbo-0613": "GPT-3.5",
    "gpt-3.5-turbo-0125": "GPT-3.5",
}
TEXTS = ("figure_1_text", "cost_text", "openreview")


def published(table: str = "table_1") -> pd.DataFrame:
    """A published table, long: `model`, `method`, `task`, `accuracy`, `standard_error`, a row per cell.

    `table` is one of `TABLES`: those of the paper, and the rebuttal's GSM with 1,000 problems.
    """
    check_name("published table", table, TABLES)
    rows = [
        (model, method, task, *cell)
        for model, methods in _read()[table].items()
        for method, tasks in methods.items()
        for task, cell in tasks.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def model_of(model_name_or_path: str) -> str | None:
    """What the paper's tables call a model, or None for one that they do not have."""
    check_text("model_name_or_path", model_name_or_path)
    return MODELS.get(model_name_or_path)


def about(table: str) -> dict[str, Any]:
    """What there is to know of a table or text: `title`, `section`, `page`, `problems`, `oddities`.

    `page` is None where the source does not say it. `problems_elsewhere`, where there, has the numbers
    of problems of a model's tasks that differ from `problems`.
    """
    check_name("published table", table, TABLES + TEXTS)
    return deepcopy(_read()["about"][table])


def numbers(text: str) -> dict[str, Any]:
    """Numbers that stand in sentences, with what they mean: one of `TEXTS`, as in the file."""
    check_name("published text", text, TEXTS)
    return deepcopy(_read()[text])


def _read() -> dict[str, Any]:
    path = project_root() / "params" / "reported.yml"
    if not path.is_file():
        raise ConfigError(f"the published numbers are not at {path}; restore the file.")
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, _changed: int) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
