"""What the miniature language model can do: measured per task and role, and written into its card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from maft_lib.backends import Backend
from maft_lib.config import Config
from maft_lib.debate import Debate, run_debates
from maft_lib.grading import is_equivalent
from maft_lib.metrics import first_vote, scores
from maft_lib.miniature import corpus
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
    sampled = {t: _debates(t, config, model, backend, num_agents=3, temperature=1.0) for t in GENERATED}
    greedy = {t: _debates(t, config, model, backend, num_agents=2, temperature=0.0) for t in GENERATED}
    table = pd.DataFrame({task: _roles(sampled[task], greedy[task]) for task in GENERATED}).T
    following = pd.DataFrame({task: _following(sampled[task]) for task in GENERATED}).T
    debates = [d for part in sampled.values() for d in part]
    alike = [d for part in greedy.values() for d in part]  # two agents who say the same, asked once
    table.index.name = following.index.name = "task"
    num_tokens = sum(d.num_completion_tokens for d in debates)
    num_tokens += sum(d.num_completion_tokens for d in alike) // 2
    num_responses = sum(d.num_calls for d in debates) + sum(d.num_calls for d in alike) // 2
    return Measured(table, following, num_tokens, num_responses)


def _debates(
    task: str, config: Config, model: str, backend: Backend, num_agents: int, temperature: float
) -> list[Debate]:
    wanted = config.replace(temperature=temperature, top_p=1.0, num_rounds=2, summarize=True)
    operand = corpus.MAX_OPERAND
    problems = load_problems(task, "eval", config.num_eval, config.seed, max_operand=operand)
    return run_debates(base_society(model, num_agents), problems, wanted, backend)


def _roles(sampled: list[Debate], greedy: list[Debate]) -> dict[str, float]:
    """Accuracy in percent of each role, sampled and greedy, and of the two votes."""
    noisy, best = scores(sampled), scores(greedy)
    return {
        "direct, sampled": 100 * noisy.first_correct.mean(),
        "direct, greedy": 100 * best.first_correct.mean(),
        "critic, sampled": 100 * noisy.last_correct.mean(),
        "critic, greedy": 100 * best.last_correct.mean(),
        "summary, sampled": 100 * _faithful(sampled),
        "summary, greedy": 100 * _faithful(greedy),
        "vote of 3 first answers": 100 * scores(sampled, first_vote(0)).correct.mean(),
        "debate of 3": 100 * noisy.correct.mean(),
    }


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
    right = wrong = cases = 0
    for debate in debates:
        for n, (own, new) in enumerate(debate.answers):
            others = [a[0] for k, a in enumerate(debate.answers) if k != n]
            good = [o for o in others if _is_right(debate, o)]
            if _is_right(debate, own) or len(good) != 1:
                continue
            bad = next(o for o in others if not _is_right(debate, o))
            cases += 1
            right += _is_right(debate, new)
            wrong += is_equivalent(new, bad, debate.problem.task)
    percent = 100 / max(cases, 1)
    return {
        "cases": cases,
        "follows the right one (%)": percent * right,
        "follows the wrong one (%)": percent * wrong,
    }


def _is_right(debate: Debate, answer: str | None) -> bool:
    return is_equivalent(answer, debate.problem.answer, debate.problem.task)


def write(folder: Path, recipe: Recipe, measured: Measured, config: Config) -> Path:
    """Writes the model card, `README.md` in the model's folder, from what was measured."""
    path = folder / "README.md"
    path.write_text(
        CARD.format(
            accuracy=corpus.ACCURACY,
            attentive=corpus.ATTENTIVE,
            swayed=corpus.SWAYED,
            conversations=f"{recipe.num_shards * 1000:,}",
            recipe=recipe,
            num=config.num_eval,
            seed=config.seed,
            table=measured.table.round(1).to_markdown(),
            following=measured.following.round(1).to_markdown(),
        ),
        encoding="utf-8",
    )
    return path


CARD = """\
---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The miniature language model

A Llama of 0.8 million parameters that solves four kinds of small problems, noisily, and takes part in
debates: the base model of the `laptop` and `smoke` profiles. It is a model organism for multiagent
finetuning and good for nothing else; it answers no question outside its four tasks.

**Made by** the functions of `maft_lib/miniature/pretraining.py` in the order of `pretrain()`, as
`notebooks/Z_miniature_model.ipynb` with `retrain: true` calls them; it replays its first five
steps, the whole of it has not been run there yet:
`{recipe}`. The losses of all
steps are in `pretraining.json`. The same seed, processor type and package versions give the same bytes.

**Data.** {conversations} generated conversations (`maft_lib/miniature/corpus.py`) through the prompts
of `maft_lib/prompts/default.yml`: direct answers, summaries, critic turns, cooperative turns, hints.
Only problems of the `corpus` split, which by the hash of the question is disjoint from `train` and
`eval`. Arithmetic has operands from 1 to 9.

**Slips.** Each solution written alone is free of slips with probability {accuracy}: each of its k steps
slips with probability 1 - {accuracy}^(1/k), which is 11 % for the five steps of arithmetic. A slip is
off by 1, 2 or 10, and the steps after it build on it. Of the critic turns a share of {attentive} makes
no slip if a right answer is in sight, and a share of {swayed} ends in the answer of another agent.

**Accuracy** in percent on {num} eval problems a task, seed {seed}; sampled at temperature 1, top_p 1:

{table}

A summary counts as right if it names every agent's final answer. Critics who were wrong at first and
had heard one right and one wrong answer:

{following}

Reproduce with `papermill notebooks/Z_miniature_model.ipynb out.ipynb -p write_card true`.
"""
