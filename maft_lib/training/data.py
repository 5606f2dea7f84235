"""The finetuning datasets of Algorithm 1, from finished debates.

Ground truth is never looked at: what counts as right is the majority vote of the debate. A response
that was cut at the limit of new tokens is in no data.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maft_lib.backends import Message
from maft_lib.debate import Debate, contradicts_itself
from maft_lib.grading import is_correct, is_equivalent


@dataclass(frozen=True)
class Example:
    """One conversation to learn from: it ends with the assistant turn that is trained on."""

    problem_id: str
    messages: tuple[Message, ...]


class AgentData(NamedTuple):
    """What one agent pair learns from: D^G, D^C- and D^C+, and the mixture D^C of the last two."""

    generation: list[Example]
    critic: list[Example]
    corrected: list[Example]
    kept: list[Example]


def build_finetuning_data(debates: Sequence[Debate], w: float, seed: int = 0) -> list[AgentData]:
    """Each agent's datasets, in the order of the agents (Algorithm 1, lines 18-26).

    D_n^G holds agent n's first responses that agree with the vote, D_n^C- its conversations that
    began otherwise and ended in the vote, D_n^C+ those that did both, and D_n^C a share `w` of the
    former and 1 - w of the latter (equation 1). `seed` decides which of the larger set are left out.
    """
    if not 0 <= w <= 1:
        raise ValueError(f"w, the share of corrected conversations, is {w}: give a number from 0 to 1.")
    data = []
    for n in range(len(debates[0].turns)):
        right_first = [debate for debate in debates if _agrees(debate, n, 0)]
        whole = [debate for debate in debates if not any(turn.cut for turn in debate.turns[n])]
        right_last = [debate for debate in whole if _agrees(debate, n, -1)]
        generation = [_example(debate, n, num_messages=2) for debate in right_first]
        corrected = [_example(debate, n) for debate in right_last if not _agrees(debate, n, 0)]
        kept = [_example(debate, n) for debate in right_last if _agrees(debate, n, 0)]
        mixed = _mix(corrected, kept, w, random.Random(f"{seed} {n}"))
        data.append(AgentData(generation, mixed, corrected, kept))
    return data


def _mix(corrected: list[Example], kept: list[Example], w: float, rng: random.Random) -> list[Example]:
    """w D^C- + (1 - w) D^C+: the largest mixture of that proportion that the two sets allow.

    The proportion is met to within one example. The order is that of the problems, corrected
    conversations first.
    """
    sizes = [len(examples) / share for examples, share in ((corrected, w), (kept, 1 - w)) if share]
    total = int(min(sizes) + 1e-9)
    num_corrected = min(round(w * total), len(corrected))
    num_kept = min(total - num_corrected, len(kept))
    return [
        examples[i]
        for examples, num in ((corrected, num_corrected), (kept, num_kept))
        for i in sorted(rng.sample(range(len(examples)), num))
    ]


def final_responses(debates: Sequence[Debate], coherent: bool = False) -> list[Example]:
    """The data of the single-agent method (Section 2.2): each (x, y_Mn) that matches the vote.

    The last responses of all agents, as answers to the problem alone; with `coherent`, those whose last
    step has their answer as its result.
    """
    return [
        Example(
            debate.problem.id,
            (
                {"role": "user", "content": turns[0].asked},
                {"role": "assistant", "content": turns[-1].response},
            ),
        )
        for debate in debates
        for n, turns in enumerate(debate.turns)
        if _agrees(debate, n, -1)
        if not (coherent and contradicts_itself(turns[-1], debate.problem.task))
    ]


def single_agent_data(debates: Sequence[Debate], reading: str) -> list[Example]:
    """What one model learns from debates, as `Config.single_agent_data` reads Section 2.2."""
    if reading in ("final", "coherent"):
        return final_responses(debates, reading == "coherent")
    agents = build_finetuning_data(debates, w=0.5)
    return [
        example
        for agent in agents
        for example in (agent.generation if reading == "first" else agent.corrected + agent.kept)
    ]


def portion(examples: Sequence[Example], parts: int, seed: int) -> list[Example]:
    """One of so many equal parts of the examples, drawn at random, in their order."""
    num = round(len(examples) / parts)
    return [examples[i] for i in sorted(random.Random(seed).sample(range(len(examples)), num))]


def right_responses(debates: Sequence[Debate]) -> list[Example]:
    """STaR's data: each first response that is right by the *ground truth*; no other method looks."""
    return [
        _example(debate, n, num_messages=2)
        for debate in debates
        for n, turns in enumerate(debate.turns)
        if not turns[0].cut and is_correct(turns[0].answer, debate.problem)
    ]


def _agrees(debate: Debate, n: int, m: int) -> bool:
    """Whether agent n's response of round m is whole and agrees with the vote."""
    turn = debate.turns[n][m]
    return not turn.cut and is_equivalent(turn.answer, debate.vote, debate.problem.task)


def _example(debate: Debate, n: int, num_messages: int | None = None) -> Example:
    return Example(debate.problem.id, tuple(debate.conversation(n)[:num_messages]))
