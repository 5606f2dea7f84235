"""The text that the miniature language model is pretrained on: conversations of noisy solvers.

Every conversation is built with the prompts of inference, about problems of the `corpus` split.
Solutions slip at random (`ACCURACY`), so that the model's mistakes are not systematic and votes,
debates and finetuning on consensus have something to improve.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from maft_lib.prompts import Message, load_prompts
from maft_lib.tasks.generated import draw_split
from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.tasks.worked import Solution, Worked, solve

ACCURACY = 0.55  # probability that a solution written alone has no slip in any of its steps
ATTENTIVE = 0.35  # share of critic turns that make no slip if a right answer is in sight
SWAYED = 0.10  # share of critic turns that end in the answer of another agent, right or wrong
MAX_OPERAND = 9  # arithmetic of single digits

TASK_WEIGHTS = {"arithmetic": 0.42, "mini_gsm": 0.18, "mini_math": 0.25, "mini_mmlu": 0.15}
KIND_WEIGHTS = {"direct": 0.33, "critic": 0.45, "summary": 0.17, "hint": 0.05}
CRITIC_WEIGHTS = {"critic": 0.8, "critic_without_summary": 0.12, "cooperative": 0.08}
OTHERS_WEIGHTS = {1: 0.1, 2: 0.7, 3: 0.08, 4: 0.12}  # how many other agents a critic hears

Conversation = list[Message]


def shard(seed: int, index: int, size: int = 1000) -> list[tuple[str, Conversation]]:
    """`size` (kind, conversation) pairs: one piece of the endless corpus, the same for its seed."""
    rng = random.Random(f"corpus {seed} {index}")
    kinds = [_choose(rng, KIND_WEIGHTS) for _ in range(size)]
    return [(kind, conversation(kind, _choose(rng, TASK_WEIGHTS), rng)) for kind in kinds]


def conversation(kind: str, task: str, rng: random.Random) -> Conversation:
    """One conversation of a kind (`direct`, `critic`, `summary` or `hint`) about a new problem."""
    author = Author(*draw_split(task, "corpus", rng, max_operand=MAX_OPERAND), rng)
    prompts = load_prompts()
    if kind == "hint":
        return [prompts.hint(author.problem), _said(author.direct(accuracy=1.0).text)]
    if kind == "summary":
        solutions = author.others()
        asked = prompts.summary([solution.text for solution in solutions])
        return [asked, _said(summarize(solutions))]
    own = author.direct()
    turns = [prompts.generation(author.problem), _said(own.text)]
    if kind == "critic":
        form = _choose(rng, CRITIC_WEIGHTS)
        for _ in range(2 if rng.random() < 0.15 else 1):  # some debates have a third round
            others = author.others()
            own = author.critic(own, others)
            heard = [other.text for other in others] if "without" in form else summarize(others)
            turns += [getattr(prompts, form)(author.problem, heard), _said(own.text)]
    return turns


@dataclass(frozen=True)
class Author:
    """Writes solutions to one problem with the corpus's habits."""

    problem: Problem
    worked: Worked
    rng: random.Random

    def direct(self, accuracy: float = ACCURACY) -> Solution:
        """A solution in a random style, free of slips with probability `accuracy`."""
        style = self.rng.randrange(len(self.worked.styles))
        return solve(self.worked, style, accuracy, self.rng)

    def others(self) -> list[Solution]:
        """Responses of other agents; how good they are varies, as it does between societies."""
        accuracy = self.rng.uniform(0.3, 0.95)
        return [self.direct(accuracy) for _ in range(_choose(self.rng, OTHERS_WEIGHTS))]

    def critic(self, own: Solution, others: list[Solution]) -> Solution:
        """An updated solution by an agent that has seen its own and the others' answers."""
        habit = self.rng.random()
        style = own.style if self.rng.random() < 0.5 else self.rng.randrange(len(self.worked.styles))
        right = any(seen.answer == solve(self.worked, seen.style).answer for seen in (own, *others))
        if habit < ATTENTIVE and right:
            return solve(self.worked, style)
        fresh = solve(self.worked, style, ACCURACY, self.rng)
        if habit < 1 - SWAYED:
            return fresh
        answer = self.rng.choice(others).answer
        text = fresh.text.replace(f"\\boxed{{{fresh.answer}}}", f"\\boxed{{{answer}}}")
        return replace(fresh, text=text, answer=answer)


def summarize(solutions: list[Solution]) -> str:
    """What a summarizer writes of several solutions: each one's last step and answer."""
    return " ".join(
        f"Agent {n} ends with {solution.last_step} and answers {solution.answer}."
        for n, solution in enumerate(solutions, start=1)
    )


def questions(conversations: list[tuple[str, Conversation]]) -> set[str]:
    """Ids of the problems that conversations ask, hashed from their text."""
    asked = (turns[0]["content"].split("\n")[0] for kind, turns in conversations if kind != "summary")
    return {problem_id(question) for question in asked}


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _choose(rng: random.Random, weights: dict[Any, float]) -> Any:
    return rng.choices(list(weights), weights=list(weights.values()))[0]
