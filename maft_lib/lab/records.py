"""Problems, societies, results, estimates, configs and stores as HTML."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath

import pandas as pd

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.lab.page import chip, escaped, facts, fold, formula_html, framed, letter, table, text_html
from maft_lib.society import Society
from maft_lib.store import Store, checkpoints
from maft_lib.store.files import StoreError
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


def society_html(society: Society) -> str:
    """The agents in a table; models that several share carry a letter."""
    agents = [*society.generators, *society.critics, society.summarizer]
    sharing = Counter(agent.model for agent in agents)
    shared = [model for model, number in sharing.items() if number > 1]
    rows = [
        (
            escaped(agent.name),
            escaped(agent.role),
            f'<code title="{escaped(agent.model)}">{escaped(_short(agent.model))}</code>',
            letter(shared.index(agent.model)) if agent.model in shared else "",
        )
        for agent in agents
    ]
    num_models = "one model" if len(sharing) == 1 else f"{len(sharing)} models"
    caption = f"Society of {len(agents)} agents, {num_models}"
    return framed(table(caption, ("agent", "role", "model", "shared as"), rows), "maft-society")


def _short(model: str) -> str:
    """A model's name: of a checkpoint the start of its hash, of a folder its last two parts."""
    parts = PurePath(model).parts
    if len(parts) > 1 and parts[-2] == checkpoints.FOLDER:
        return f"checkpoint {parts[-1][:12]}"
    return "/".join(parts[-2:])


def result_html(result: Result) -> str:
    """Accuracy per iteration; costs and config are folded."""
    title = f"{result.method} on {result.task}"
    note = f"<p>{escaped(result.note)}</p>" if result.note else ""
    if result.frame.empty:
        return framed(f"<p><b>{escaped(title)}</b>: nothing has been evaluated yet.</p>{note}")
    parts = [_accuracies(f"{title}: accuracy in percent", result.frame), note]
    if not result.costs.empty:
        parts.append(fold("costs", _costs(result.costs)))
    if result.config is not None:
        parts.append(fold("config", _parameters(result.config)))
    return framed("".join(parts), "maft-result")


def _accuracies(caption: str, frame: pd.DataFrame) -> str:
    heads = ("iteration", "accuracy", "first answers", "last answers", "unreadable", "problems")
    rows = [
        (
            escaped(row["iteration"]),
            f"<b>{row['accuracy']:.1f}</b> ± {row['standard_error']:.1f}",
            *(f"{row[name]:.1f}" for name in ("first_answers", "last_answers", "unreadable")),
            f"{row['problems']:,}",
        )
        for row in metrics.accuracy(frame).to_dict("records")
    ]
    return table(caption, heads, rows)


def _costs(costs: pd.DataFrame) -> str:
    sums = costs.groupby(["iteration", "phase"], sort=False)[metrics.COSTS].sum().reset_index()
    counts = ("calls", "tokens read", "tokens written", "tokens trained on")
    rows = [
        (
            escaped(row["iteration"]),
            escaped(row["phase"]),
            *(f"{row[name]:,.0f}" for name in metrics.COSTS[:-1]),
            f"{row['seconds']:,.1f}",
        )
        for row in sums.to_dict("records")
    ]
    return table("Costs", ("iteration", "phase", *counts, "seconds"), rows)


def estimate_html(estimate: object) -> str:
    """The lines of an estimate's text as a table."""
    title, *lines = str(estimate).splitlines()
    rows = [map(escaped, re.split(r"\s{2,}", line.strip(), maxsplit=1)) for line in lines]
    return framed(table(title, (), rows), "maft-estimate")


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


def store_html(store: Store) -> str:
    """Where a store is, how many completions and checkpoints it keeps, and its size on disk."""
    try:
        completions = f"{len(store):,}"
    except StoreError as error:
        completions = escaped(error)
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    made = (store.folder / checkpoints.FOLDER).glob("[!.]*")
    pairs = [
        ("store", f"<code>{escaped(store.folder)}</code>"),
        ("completions", completions),
        ("checkpoints", f"{len(list(made)):,}"),
        ("on disk", f"{sum(path.stat().st_size for path in files) / 1e6:,.1f} MB"),
    ]
    return framed(facts(pairs), "maft-store")
