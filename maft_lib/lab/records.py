"""Problems, results and configs as HTML."""

from __future__ import annotations

import pandas as pd

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.lab.page import chip, escaped, facts, fold, formula_html, framed, table, text_html
from maft_lib.study import Result
from maft_lib.tasks import answer_type
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
    answer = chip(problem.answer, "plain", answer_html(problem.answer, problem.task))
    return framed(question_html(problem) + fold("answer", f"<p>{answer}</p>"), "maft-problem")


def question_html(problem: Problem) -> str:
    """Task, level, subject and id in one line, then the question."""
    level = f"level {problem.level}" if problem.level is not None else None
    line = " · ".join(escaped(part) for part in (problem.task, level, problem.subject) if part)
    return (
        f'<div class="maft-meta">{line} <code>{escaped(problem.id)}</code></div>'
        f'<div class="maft-question">{text_html(problem.question)}</div>'
    )


def answer_html(answer: str, task: str) -> str:
    """A final answer: its LaTeX as mathematics where the answers of the task are expressions."""
    try:
        is_latex = answer_type(task) == "expression"
    except ValueError:  # a task of one's own
        is_latex = True
    return formula_html(answer) if is_latex else text_html(answer)


def result_html(result: Result) -> str:
    """Accuracy per iteration; costs and config are folded."""
    title = f"{result.method} on {result.task}"
    note = f"<p>{escaped(result.note)}</p>" if result.note else ""
    if result.frame.empty:
        return framed(f"<p><b>{escaped(title)}</b>: nothing has been evaluated yet.</p>{note}")
    heads = ("iteration", "accuracy", "first answers", "last answers", "unreadable", "problems")
    rows = [
        (
            escaped(row.iteration),
            f"<b>{row.accuracy:.1f}</b> ± {row.standard_error:.1f}",
            *(f"{share:.1f}" for share in (row.first_answers, row.last_answers, row.unreadable)),
            f"{row.problems:,}",
        )
        for row in metrics.accuracy(result.frame).itertuples()
    ]
    parts = [table(f"{title}: accuracy in percent", heads, rows), note]
    if not result.costs.empty:
        parts.append(fold("costs", _costs(result.costs)))
    if result.config is not None:
        parts.append(fold("config", _parameters(result.config)))
    return framed("".join(parts), "maft-result")


def _costs(costs: pd.DataFrame) -> str:
    sums = costs.groupby(["iteration", "phase"], sort=False)[metrics.COSTS].sum()
    rows = [
        (*map(escaped, place), *(f"{count:,.0f}" for count in counts), f"{seconds:,.1f}")
        for place, *counts, seconds in sums.itertuples(name=None)
    ]
    counted = ("calls", "tokens read", "tokens written", "tokens trained on")
    return table("Costs", ("iteration", "phase", *counted, "seconds"), rows)


def config_html(config: Config) -> str:
    """All parameters in their groups; those that differ from the defaults are marked."""
    return framed(_parameters(config), "maft-config")


def _parameters(config: Config) -> str:
    groups: dict[str, list[tuple[object, str]]] = {}
    title, num_changed = "Profile", 0
    for name, value in config:
        title = GROUPS.get(name, title)
        default = type(config).model_fields[name].get_default(call_default_factory=True)
        shown = f"<code>{escaped(repr(value))}</code>"
        if value != default:
            num_changed += 1
            shown = f"<mark>{shown}</mark> <small>default {escaped(repr(default))}</small>"
        groups.setdefault(title, []).append((name, shown))
    parts = "".join(f"<section><h4>{escaped(t)}</h4>{facts(p)}</section>" for t, p in groups.items())
    line = f"profile {escaped(config.profile)}, {num_changed} parameters differ from the defaults"
    return f'<div class="maft-meta">{line}</div><div class="maft-groups">{parts}</div>'
