"""Problems, societies, results, configs and stores as HTML. Takes finished records, knows no models.

Nothing here raises: what cannot be read is said in its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.lab.mathematics import formula_html, text_html
from maft_lib.lab.page import chip, escaped, facts, fold, framed, letter, table
from maft_lib.society import Agent, Society
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
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


# --- problems ------------------------------------------------------------------------------------


def problem_html(problem: Problem) -> str:
    """A question with its mathematics; the answer is folded."""
    answer = fold(
        "answer", f"<p>{chip(problem.answer, 'plain', answer_html(problem.answer, problem.task))}</p>"
    )
    return framed(question_html(problem) + answer, "maft-problem")


def question_html(problem: Problem) -> str:
    """Task, level, subject and id in one line, then the question."""
    level = f"level {problem.level}" if problem.level is not None else None
    words = [part for part in (problem.task, level, problem.subject) if part]
    line = " · ".join(map(escaped, words))
    return (
        f'<div class="maft-meta">{line} <code>{escaped(problem.id)}</code></div>'
        f'<div class="maft-question">{text_html(problem.question)}</div>'
    )


def answer_html(answer: str, task: str) -> str:
    """A final answer: its LaTeX as mathematics where the answers of the task are expressions."""
    try:
        is_latex = answer_type(task) == "expression"
    except ValueError:  # somebody's own problem
        is_latex = True
    return formula_html(answer) if is_latex else text_html(answer)


# --- societies -----------------------------------------------------------------------------------


def society_html(society: Society) -> str:
    """The agents in a table; models that several share carry a letter."""
    agents = [*society.generators, *society.critics, society.summarizer]
    sharing = Counter(agent.model for agent in agents)
    shared = [model for model, number in sharing.items() if number > 1]
    rows = [_agent_row(agent, shared) for agent in agents]
    num_models = "one model" if len(sharing) == 1 else f"{len(sharing)} models"
    caption = f"Society of {len(agents)} agents, {num_models}"
    return framed(table(caption, ("agent", "role", "model", "shared as"), rows), "maft-society")


def _agent_row(agent: Agent, shared: Sequence[str]) -> tuple[str, ...]:
    place = shared.index(agent.model) if agent.model in shared else None
    group = "" if place is None else letter(place)
    model = f'<code title="{escaped(agent.model)}">{escaped(_short(agent.model))}</code>'
    return escaped(agent.name), escaped(agent.role), model, group


def _short(model: str) -> str:
    """A model's name: of a checkpoint the start of its hash, of a folder its last two parts."""
    parts = PurePath(model).parts
    if len(parts) > 1 and parts[-2] == checkpoints.FOLDER:
        return f"checkpoint {parts[-1][:12]}"
    return "/".join(parts[-2:])


# --- results -------------------------------------------------------------------------------------


def result_html(result: Result) -> str:
    """Accuracy per iteration; costs and config are folded."""
    title = f"{result.method} on {result.task}"
    note = f"<p>{escaped(result.note)}</p>" if result.note else ""
    if result.frame.empty:
        return framed(f"<p><b>{escaped(title)}</b>: nothing has been evaluated yet.</p>{note}")
    parts = [table(f"{title}: accuracy in percent", *_accuracies(result.frame)), note]
    if not result.costs.empty:
        parts.append(fold("costs", table("Costs", *_costs(result.costs))))
    if result.config is not None:
        parts.append(fold("config", config_body(result.config)))
    return framed("".join(parts), "maft-result")


def _accuracies(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    heads = ["iteration", "accuracy", "first answers", "last answers", "unreadable", "problems"]
    rows = [
        [
            escaped(row["iteration"]),
            f"<b>{row['accuracy']:.1f}</b> ± {row['standard_error']:.1f}",
            *(f"{row[name]:.1f}" for name in ("first_answers", "last_answers", "unreadable")),
            f"{row['problems']:,}",
        ]
        for row in metrics.accuracy(frame).to_dict("records")
    ]
    return heads, rows


def _costs(costs: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    sums = costs.groupby(["iteration", "phase"], sort=False)[metrics.COSTS].sum().reset_index()
    heads = [
        "iteration",
        "phase",
        "calls",
        "tokens read",
        "tokens written",
        "tokens trained on",
        "seconds",
    ]
    rows = [
        [
            escaped(row["iteration"]),
            escaped(row["phase"]),
            *(f"{row[name]:,.0f}" for name in metrics.COSTS[:-1]),
            f"{row['seconds']:,.1f}",
        ]
        for row in sums.to_dict("records")
    ]
    return heads, rows


# --- estimates -----------------------------------------------------------------------------------


def estimate_html(estimate: object) -> str:
    """The lines of an estimate's text as a table."""
    title, *lines = str(estimate).splitlines()
    rows = [map(escaped, re.split(r"\s{2,}", line.strip(), maxsplit=1)) for line in lines]
    return framed(table(title, (), rows), "maft-estimate")


# --- configs -------------------------------------------------------------------------------------


def config_html(config: Config) -> str:
    """All parameters in their groups; those that differ from the defaults are marked."""
    return framed(config_body(config), "maft-config")


def config_body(config: Config) -> str:
    """`config_html` without the frame and its stylesheet."""
    groups: dict[str, list[tuple[object, str]]] = {}
    title, num_changed = "Profile", 0
    for name, value in config:
        title = GROUPS.get(name, title)
        default = type(config).model_fields[name].get_default(call_default_factory=True)
        num_changed += value != default
        groups.setdefault(title, []).append((name, _value(value, default)))
    parts = "".join(f"<section><h4>{escaped(t)}</h4>{facts(p)}</section>" for t, p in groups.items())
    line = f"profile {escaped(config.profile)}, {num_changed} parameters differ from the defaults"
    return f'<div class="maft-meta">{line}</div><div class="maft-groups">{parts}</div>'


def _value(value: Any, default: Any) -> str:
    shown = f"<code>{escaped(repr(value))}</code>"
    if value == default:
        return shown
    return f"<mark>{shown}</mark> <small>default {escaped(repr(default))}</small>"


# --- stores --------------------------------------------------------------------------------------


def store_html(store: Store) -> str:
    """Where a store is, how many completions and checkpoints it keeps, and its size on disk."""
    try:
        completions = f"{len(store):,}"
    except StoreError as error:
        completions = escaped(error)
    inside = _inside(store.folder / checkpoints.FOLDER)
    folders = [folder for folder in inside if not folder.name.startswith(".")]
    files = [*_inside(store.folder), *(file for folder in folders for file in _inside(folder))]
    pairs = [
        ("store", f"<code>{escaped(store.folder)}</code>"),
        ("completions", completions),
        ("checkpoints", f"{len(folders):,}"),
        ("on disk", size_in_words(sum(map(_size, files)))),
    ]
    return framed(facts(pairs), "maft-store")


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # no folder, or one that is gone by now
        return []


def _size(path: Path) -> int:
    """Bytes of a file; 0 of a folder, and of a file that is gone by now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def size_in_words(number: float) -> str:
    """A number of bytes in the unit that suits it: 1234567 is `1.2 MB`."""
    place = 0
    while number >= 999.5 and place < len(_UNITS) - 1:
        number, place = number / 1000, place + 1
    return f"{number:.1f} {_UNITS[place]}" if place else f"{number:.0f} bytes"
