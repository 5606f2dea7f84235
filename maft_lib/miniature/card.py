"""What the miniature language model can do: measured per task and role, and written into its card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from maft_lib.backends import Backend
from maft_lib.config import Config
from maft_lib.debate import Debate, run_debates
from maft_lib.grading import is_correct, is_equivalent
from maft_lib.metrics import first_vote, scores, spent
from maft_lib.miniature.corpus import MAX_OPERAND
from maft_lib.miniature.pretraining import Recipe
from maft_lib.society import base_society
from maft_lib.tasks import GENERATED, load_problems

SAID = re.compile(r"answers (\S+?)\.(?= |$)")


class Measured(NamedTuple):
    """`table`: percent right per task and role; `following`: whom critics follow; counts of all."""

    table: pd.DataFrame
    following: pd.DataFrame
    num_tokens: int
    num_responses: int


def measure(config: Config, model: str, backend: Backend) -> Measured:
    """Debates the eval problems of every miniature task, sampled by three agents and greedily by two.

    Sampling is at temperature 1 and top_p 1, whatever the config says.
    """
    table, following, num_tokens, num_responses = {}, {}, 0, 0
    for task in GENERATED:
        problems = load_problems(task, "eval", config.num_eval, config.seed, max_operand=MAX_OPERAND)
        sampled, greedy = (
            run_debates(
                base_society(model, num_agents),
                problems,
                config.replace(temperature=temperature, top_p=1.0, num_rounds=2, summarize=True),
                backend,
            )
            for num_agents, temperature in ((3, 1.0), (2, 0.0))
        )
        table[task], following[task] = _roles(sampled, greedy), _following(sampled)
        for debates, askers in ((sampled, 1), (greedy, 2)):  # two who say the same are asked once
            num_tokens += int(spent(debates)["num_completion_tokens"]) // askers
            num_responses += int(spent(debates)["num_calls"]) // askers
    roles, critics = (pd.DataFrame(rows).T.rename_axis("task") for rows in (table, following))
    return Measured(roles, critics, num_tokens, num_responses)


def _roles(sampled: list[Debate], greedy: list[Debate]) -> dict[str, float]:
    """Accuracy in percent of each role, sampled and greedy, and of the two votes."""
    noisy, best = scores(sampled), scores(greedy)
    shares = {
        "direct, sampled": noisy.first_correct.mean(),
        "direct, greedy": best.first_correct.mean(),
        "critic, sampled": noisy.last_correct.mean(),
        "critic, greedy": best.last_correct.mean(),
        "summary, sampled": _faithful(sampled),
        "summary, greedy": _faithful(greedy),
        "vote of 3 first answers": scores(sampled, first_vote(0)).correct.mean(),
        "debate of 3": noisy.correct.mean(),
    }
    return {role: 100 * share for role, share in shares.items()}


def _faithful(debates: list[Debate]) -> float:
    """Share of summaries that name the answers of the other agents, all and in order."""
    checks = [
        SAID.findall(turns[1].summary or "") == [a[0] for k, a in enumerate(d.answers) if k != n]
        for d in debates
        for n, turns in enumerate(d.turns)
    ]
    return sum(checks) / len(checks)


def _following(debates: list[Debate]) -> dict[str, float]:
    """What critics answer who were wrong at first and heard one right and one wrong answer."""
    cases = []
    for debate in debates:
        problem = debate.problem
        for n, (own, new) in enumerate(debate.answers):
            others = [a[0] for k, a in enumerate(debate.answers) if k != n]
            right = [is_correct(other, problem) for other in others]
            if not is_correct(own, problem) and sum(right) == 1:
                bad = others[right.index(False)]
                cases.append((is_correct(new, problem), is_equivalent(new, bad, problem.task)))
    followed = pd.DataFrame(cases, columns=["follows the right one (%)", "follows the wrong one (%)"])
    return {"cases": len(cases), **(100 * followed.mean())}


def write(folder: Path, recipe: Recipe, measured: Measured, config: Config) -> Path:
    """Writes what was measured, and the recipe, into the model's card, `README.md` in its folder."""
    path = folder / "README.md"
    tables = iter((measured.table, measured.following))
    text = re.sub(
        r"(?m)^\|.*(?:\n\|.*)*",
        lambda _: next(tables).round(1).to_markdown(),
        path.read_text(encoding="utf-8"),
    )
    text = re.sub(r"`Recipe\(.*\)`", f"`{recipe}`", text)
    on = f"on {config.num_eval} eval problems a task, seed {config.seed};"
    text = re.sub(r"on \d+ eval problems a task, seed \d+;", on, text)
    path.write_text(text, encoding="utf-8")
    return path
