"""What the miniature language model can do: measured per task and role, and written into its card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from maft_lib.backends import Backend
from maft_lib.config import Config
from maft_lib.debate import Debate, run_debates
from maft_lib.grading import is_correct, is_equivalent
from maft_lib.metrics import first_vote, scores
from maft_lib.miniature.corpus import MAX_OPERAND
from maft_lib.miniature.pretraining import Recipe
from maft_lib.society import base_society
from maft_lib.tasks import GENERATED, load_problems


def measure(config: Config, model: str, backend: Backend) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Debates every miniature task's eval problems, sampled by three agents and greedily by two.

    Returns the percent right per task and role, and whom critics follow.
    """
    roles, following = {}, {}
    noisy = config.replace(temperature=1.0, top_p=1.0, num_rounds=2, summarize=True)
    for task in GENERATED:
        problems = load_problems(
            task, "eval", config.num_problems("eval"), config.seed, max_operand=MAX_OPERAND
        )
        sampled = run_debates(base_society(model, 3), problems, noisy, backend)
        greedy = run_debates(base_society(model, 2), problems, noisy.replace(temperature=0.0), backend)
        roles[task], following[task] = _roles(sampled, greedy), _following(sampled)
    table, critics = (pd.DataFrame(rows).T.rename_axis("task") for rows in (roles, following))
    return table, critics


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
        "vote of 3 first answers": scores(sampled, first_vote).correct.mean(),
        "debate of 3": noisy.correct.mean(),
    }
    return {role: 100 * share for role, share in shares.items()}


def _faithful(debates: list[Debate]) -> float:
    """Share of summaries that name the answers of the other agents, all and in order."""
    checks = []
    for debate in debates:
        for n, turns in enumerate(debate.turns):
            named = re.findall(r"answers (\S+?)\.(?= |$)", turns[1].summary or "")
            checks.append(named == [a[0] for k, a in enumerate(debate.answers) if k != n])
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


def write(folder: Path, recipe: Recipe, tables: Sequence[pd.DataFrame], config: Config) -> Path:
    """Writes what was measured, and the recipe, into the model's card, `README.md` in its folder."""
    path, texts = folder / "README.md", (table.round(1).to_markdown() for table in tables)
    text = re.sub(r"(?m)^\|.*(?:\n\|.*)*", lambda _: next(texts), path.read_text(encoding="utf-8"))
    text = re.sub(r"`Recipe\(.*\)`", f"`{recipe}`", text)
    on = f"on {config.num_problems('eval')} eval problems a task, seed {config.seed};"
    text = re.sub(r"on \d+ eval problems a task, seed \d+;", on, text)
    path.write_text(text, encoding="utf-8")
    return path
