"""How many responses and trained agents one study of a method takes, by phase: counts, no guesses.

What `workload` turns into tokens with assumed lengths. Knows no model, engine or machine.
"""

from __future__ import annotations

from maft_lib.config import Config
from maft_lib.estimation.workload import RECIPES, iterations

PHASES = ("data", "training", "answers")  # as in `metrics.cost_frame`
OPEN = ("star", "vote_equal_budget")  # how much these take shows only while they run


def planned(method: str, config: Config, iteration: int = 0) -> dict[str, int]:
    """Responses (`data`, `answers`) and agents to train (`training`) of one study of a method.

    Of the methods in `OPEN` only what is sure in `iteration`: STaR stops when its loss saturates and
    asks again what it got wrong, the vote at equal budget counts the tokens of a debate first.
    """
    if method not in RECIPES:
        return dict.fromkeys(PHASES, 0)
    recipe, last = RECIPES[method], last_iteration(method, config, iteration)
    distilled = method == "distilled_society"  # the society's model is trained after the last iteration
    agents = sum(1 if kind == "single" else config.num_agents for kind in recipe.trained)
    learned = _responses(recipe.learns_from, method, config) if recipe.learns_from else 0
    answers = _responses(recipe.evaluated, method, config) * (1 + min(last, 1 if distilled else last))
    answers += config.num_agents if method == "vote_equal_budget" else 0  # its debates' first round
    return {
        "data": config.num_train * learned * (last + distilled),
        "training": agents * last + distilled,
        "answers": config.num_eval * answers,
    }


def _responses(pattern: str, method: str, config: Config) -> int:
    """Of one debate, summaries included."""
    agents = 1 if pattern == "alone" else config.num_agents
    if pattern != "whole":
        return agents
    summarized = config.summarize and method != "multiagent_ft_wo_summary"
    return agents * (1 + (config.num_rounds - 1) * (2 if summarized else 1))


def last_iteration(method: str, config: Config, iteration: int = 0) -> int:
    """The last iteration that is known of in `iteration`: STaR stops by itself, after one at least."""
    if method not in RECIPES:
        return 0
    last = iterations(method, config)
    return min(last, max(1, iteration)) if method == "star" else last
