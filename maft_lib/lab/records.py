"""Problems, results and configs as HTML."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.lab.page import drawn, framed
from maft_lib.study import Result
from maft_lib.tasks.problem import Problem

# The first parameter of each group, in the order of `Config`.
GROUPS = {
    "model_name_or_path": "Base model",
    "executor": "Cluster",
    "tensor_parallel_size": "vLLM",
    "max_concurrency": "Server",
    "task": "Problems",
    "num_agents": "Debate",
    "num_iterations": "Finetuning",
    "scorer": "Diversity",
    "methods": "Study",
}


def problem_html(problem: Problem) -> str:
    """A question with its mathematics; the answer is folded."""
    return framed(drawn("problem", problem), "maft-problem")


def result_html(result: Result) -> str:
    """Accuracy per iteration; costs and config are folded."""
    accuracy = costs = Markup()
    if not result.frame.empty:
        shown = metrics.accuracy(result.frame)
        shown["accuracy"] = [
            f"{row.accuracy:.1f} ± {row.standard_error:.1f}" for row in shown.itertuples()
        ]
        names = ["iteration", "accuracy", "first_answers", "last_answers", "unreadable", "problems"]
        accuracy = _table(shown[names])
    if not result.costs.empty:
        sums = (
            result.costs.groupby(["iteration", "phase"], sort=False)[metrics.COSTS].sum().astype(float)
        )
        costs = _table(sums.reset_index(), "{:,.0f}")
    groups = _groups(result.config) if result.config else {}
    return framed(drawn("result", result, accuracy, costs, groups), "maft-result")


def _table(frame: pd.DataFrame, number: str = "{:.1f}") -> Markup:
    heads = {name: name.removeprefix("num_").replace("_", " ") for name in frame}
    plain: dict[str, Any] = {"border": 0, "index": False, "classes": "maft-table"}
    return Markup(frame.rename(columns=heads).to_html(**plain, float_format=number.format))


def config_html(config: Config) -> str:
    """The parameters that differ from the defaults, and, folded, all in their groups."""
    return framed(drawn("config", config.profile, _groups(config)), "maft-config")


def _groups(config: Config) -> dict[str, list[tuple[str, str, str]]]:
    """(name, value, default) of the parameters of each group."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    title = "Profile"
    for name, value in config:
        title = GROUPS.get(name, title)
        default = type(config).model_fields[name].get_default(call_default_factory=True)
        groups.setdefault(title, []).append((name, repr(value), repr(default)))
    return groups
