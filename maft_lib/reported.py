"""Published numbers as data frames, from `params/reported.yml`.

Accuracies and standard errors are in percent, as printed.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import yaml

from maft_lib.config import places

MODELS = {  # Appendix B.3
    "microsoft/Phi-3-mini-128k-instruct": "Phi-3",
    "mistralai/Mistral-7B-Instruct-v0.2": "Mistral",
    "meta-llama/Meta-Llama-3-8B-Instruct": "LLaMA-3",
    "gpt-3.5-turbo-0613": "GPT-3.5",
    "gpt-3.5-turbo-0125": "GPT-3.5",
}


def published(table: str = "table_1") -> pd.DataFrame:
    """`table_1` to `table_7` of the paper, or `openreview_gsm` of the rebuttal: a row per cell."""
    rows = [
        (model, method, task, *cell)
        for model, methods in _read()[table].items()
        for method, tasks in methods.items()
        for task, cell in tasks.items()
    ]
    return pd.DataFrame(rows, columns=["model", "method", "task", "accuracy", "standard_error"])


def about(table: str) -> dict[str, Any]:
    """What there is to know of a table or text: `title`, `section`, `page`, `problems`, `oddities`."""
    return _read()["about"][table]


def numbers(text: str) -> dict[str, Any]:
    """Numbers in sentences, with what they mean: `figure_1_text`, `cost_text` or `openreview`."""
    return _read()[text]


def _read() -> dict[str, Any]:
    return yaml.safe_load(places("params/reported.yml")[0].read_text(encoding="utf-8"))
