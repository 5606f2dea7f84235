"""The text that the miniature language model is pretrained on: conversations of noisy solvers.

Every conversation is built with the prompts of inference, about problems of the `corpus` split.
Solutions slip at random (`ACCURACY`), each style mostly in a step of its own, so that the model's
mistakes are not systematic and votes, debates and finetuning on consensus have something to improve.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from maft_lib.prompts import Message, load_prompts
from maft_lib.tasks.generated import draw_split
from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.tasks.worked import Solution, Worked, solve

ACCURACY = 0.56  # probability that a solution written alone has no slip in any of its steps
CONFORMING = 0.45  # share of critics who take an answer that two agents in sight gave, right or wrong
ATTENTIVE = 0.2  # share of critic turns that make no slip if a right answer is in sight
STRANGERS = 0.04  # share of critic turns that hear about another problem, and think for themselves
NAMED = 0.12  # share of conversations whose prompts name the agent (Appendix E.2)
FAVOURED = 0.5  # share of such an agent's solutions in the style of its number
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
    number = rng.randint(1, 5) if rng.random() < NAMED else None
    author, prompts = _author(task, rng, number), load_prompts()
    if kind == "hint":
        return [prompts.hint(author.problem), _said(author.direct(accuracy=1.0).text)]
    if kind == "summary":
        solutions = author.others()
        asked = prompts.summary([solution.text for solution in solutions])
        return [asked, _said(summarize(solutions))]

    def to(role: str, message: Message) -> Message:
        return prompts.identified(message, role, number) if number else message

    own = author.direct()
    turns = [to("generator", prompts.generation(author.problem)), _said(own.text)]
    if kind == "critic":
        form = _choose(rng, CRITIC_WEIGHTS)
        for _ in range(2 if rng.random() < 0.15 else 1):  # some debates have a third round
            strangers = rng.random() < STRANGERS
            others = (_author(task, rng) if strangers else author).others()
            own = author.direct() if strangers else author.critic(own, others)
            heard = [other.text for other in others] if "without" in form else summarize(others)
            asked = getattr(prompts, form)(author.problem, heard)
            turns += [to("critic", asked), _said(own.text)]
    return turns


@dataclass(frozen=True)
class Author:
    """Writes solutions to one problem with the corpus's habits; `number` is its own, if it has one."""

    problem: Problem
    worked: Worked
    rng: random.Random
    number: int | None = None

    def direct(self, accuracy: float = ACCURACY) -> Solution:
        """A solution in a random style, free of slips with probability `accuracy`."""
        num = len(self.worked.styles)
        style = self.rng.randrange(num)
        if self.number and self.rng.random() < FAVOURED:
            style = (self.number - 1) % num
        return solve(self.worked, style, accuracy, self.rng)

    def others(self) -> list[Solution]:
        """Responses of other agents; how good they are varies, as it does between societies."""
        accuracy = self.rng.uniform(0.3, 0.95)
        unnamed = replace(self, number=None)
        return [unnamed.direct(accuracy) for _ in range(_choose(self.rng, OTHERS_WEIGHTS))]

    def critic(self, own: Solution, others: list[Solution]) -> Solution:
        """An updated solution by an agent that has seen its own and the others' answers."""
        habit = self.rng.random()
        style = own.style if self.rng.random() < 0.5 else self.rng.randrange(len(self.worked.styles))
        seen = [solution.reached for solution in (own, *others)]
        leader = max(others, key=lambda other: seen.count(other.reached))
        if habit < CONFORMING and seen.count(leader.reached) > 1:
            return solve(self.worked, style, towards=leader)
        if habit > 1 - ATTENTIVE and solve(self.worked, style).reached in seen:
            return solve(self.worked, style)
        return solve(self.worked, style, ACCURACY, self.rng)


def _author(task: str, rng: random.Random, number: int | None = None) -> Author:
    return Author(*draw_split(task, "corpus", rng, max_operand=MAX_OPERAND), rng, number)


def summarize(solutions: list[Solution]) -> str:
    """What a summarizer writes of several solutions: each one's last step and answer."""
    return " ".join(
        f"Agent {n} ends with {solution.last_step} and answers {solution.answer}."
        for n, solution in enumerate(solutions, start=1)
    )


def questions(conversations: list[tuple[str, Conversation]]) -> set[str]:
    """Ids of the problems that conversations ask, hashed from their text."""
    asked = (turns[0]["content"].split("\n") for kind, turns in conversations if kind != "summary")
    return {problem_id(lines[lines[0].startswith("Agent ID")]) for lines in asked}


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _choose(rng: random.Random, weights: dict[Any, float]) -> Any:
    return rng.choices(list(weights), weights=list(weights.values()))[0]
