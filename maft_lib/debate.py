"""Multiagent debate (Section 2.1, Algorithm 2, Appendix B): rounds, roles, who sees what, and the vote.

All problems are debated in lock-step: round 1 is one batch of N requests a problem, then come one
batch of summaries and one of critic turns for every further round.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from maft_lib.backends import SPENT, Backend, Completion, Message, Request, Sampling, generate
from maft_lib.config import Config
from maft_lib.grading import extract_answer, group_equivalent, is_equivalent
from maft_lib.prompts import load_prompts
from maft_lib.reasoning import split_reasoning
from maft_lib.seeds import derive_seed
from maft_lib.society import Agent, Society
from maft_lib.tasks import answer_type
from maft_lib.tasks.problem import Problem


@dataclass(frozen=True)
class Turn:
    """What one agent was asked in one round, the summary in it, what it said and answered.

    `reasoning` holds its thoughts, which nobody else reads and nobody learns from; a response that ran
    into the limit of new tokens has the `finish_reason` `length`.
    """

    asked: str
    summary: str | None
    response: str
    answer: str | None
    reasoning: str = ""
    finish_reason: str = "stop"

    @property
    def cut(self) -> bool:
        """Whether the limit of new tokens ended the response before the agent did."""
        return self.finish_reason == "length"


class Cost(NamedTuple):
    """What a turn took: the seed of its response, tokens and seconds of response and summary."""

    seed: int
    num_prompt_tokens: int
    num_completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class Debate:
    """Everything said about one problem: `turns[agent][round]` and the vote over the last round.

    Its cost: tokens read and written in all requests, summaries and thoughts included, the number of
    requests and of responses that were cut at the limit, and the seconds that one worker or device was
    busy with them when they were first answered. `costs[agent][round]` has what each turn took of that,
    unless the debate was read from a file.
    """

    problem: Problem
    turns: tuple[tuple[Turn, ...], ...]
    vote: str | None
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_calls: int = 0
    num_cut: int = 0
    seconds: float = field(default=0.0, compare=False)
    costs: tuple[tuple[Cost, ...], ...] = field(default=(), compare=False, repr=False)

    @property
    def answers(self) -> list[list[str | None]]:
        """Final answers as `answers[agent][round]`; None where none could be read."""
        return [[turn.answer for turn in turns] for turns in self.turns]

    def conversation(self, agent: int) -> list[Message]:
        """An agent's whole conversation, exactly as its last turn was rendered and answered."""
        return [
            {"role": role, "content": content}
            for turn in self.turns[agent]
            for role, content in (("user", turn.asked), ("assistant", turn.response))
        ]

    def to_dict(self) -> dict:
        """The debate as plain JSON values, without the costs of turns."""
        return {name: value for name, value in asdict(self).items() if name != "costs"}

    @classmethod
    def from_dict(cls, values: dict) -> Debate:
        """The inverse of `to_dict`. Raises `ValueError` for values that are not a debate."""
        return TypeAdapter(cls).validate_python(values)


def run_debates(
    society: Society,
    problems: Sequence[Problem],
    config: Config,
    backend: Backend,
    iteration: int = 0,
) -> list[Debate]:
    """Debates every problem for `config.num_rounds` rounds and votes (Algorithm 2).

    Returns one debate per problem, in order. `iteration` only enters the seeds: debates of another
    iteration draw afresh, as those that make training data do. All agents of a round see the previous
    round only.
    """
    *_, debates = debate_rounds(society, problems, config, backend, iteration)
    return debates


OnTurn = Callable[[int, int, Turn], None]


def debate_rounds(
    society: Society,
    problems: Sequence[Problem],
    config: Config,
    backend: Backend,
    iteration: int = 0,
    on_turn: OnTurn | None = None,
) -> Iterator[list[Debate]]:
    """`run_debates` for one who watches: yields the debates after every round, the last with a vote.

    `on_turn(i, n, turn)` gets what is being written on problem i for agent n, both from 0: first the
    summary that the agent will read, then its response, with the answer once that is whole. A backend
    that cannot stream hands over whole texts. What `on_turn` raises ends the debates.
    """
    run = _Run(society, problems, config, backend, iteration, on_turn)
    run.first_round()
    for number in range(2, config.num_rounds + 1):
        yield run.debates()
        run.critic_round(number)
    yield [
        replace(debate, vote=majority_vote([a[-1] for a in debate.answers], debate.problem.task, seed))
        for debate in run.debates()
        for seed in [derive_seed(config.seed, iteration, debate.problem.id, "vote")]
    ]


class _Run:
    """The state of debates in progress: `turns[problem][agent]` grows by one turn a round."""

    def __init__(
        self,
        society: Society,
        problems: Sequence[Problem],
        config: Config,
        backend: Backend,
        iteration: int,
        on_turn: OnTurn | None,
    ):
        self.society, self.problems, self.config = society, problems, config
        self.backend, self.iteration, self.on_turn = backend, iteration, on_turn
        self.prompts = load_prompts(config.path(config.prompts) if config.prompts else None)
        self.sampling = Sampling.of(config)
        # (problem, agent) for every response of a round
        agents = range(len(society.generators))
        self.places = [(i, n) for n in agents for i in range(len(problems))]
        self.turns: list[list[list[Turn]]] = [[[] for _ in agents] for _ in problems]
        self.spent: list[Any] = [Counter() for _ in problems]
        self.costs: list[list[list[Cost]]] = [[[] for _ in agents] for _ in problems]

    def debates(self) -> list[Debate]:
        """The debates as far as they have come, without votes."""
        parts = zip(self.problems, self.turns, self.spent, self.costs)
        return [
            Debate(problem, tuple(map(tuple, turns)), None, **spent, costs=tuple(map(tuple, costs)))
            for problem, turns, spent, costs in parts
        ]

    def first_round(self) -> None:
        """Every generation agent answers every problem: one batch of N x P requests."""
        asked = [self.prompts.generation(self.problems[i]) for i, _ in self.places]
        self._respond(self.society.generators, asked, [None] * len(asked), 1)

    def critic_round(self, number: int) -> None:
        """Every critic reads about the others' responses of the previous round and answers again."""
        summaries: Sequence[str | None] = [None] * len(self.places)
        itself, away = (self.config.critics_read == who for who in ("itself", "another problem"))
        others = [
            [agent[-1].response for k, agent in enumerate(self.turns[i - away]) if (k == n) == itself]
            for i, n in self.places  # of the first problem, the other is the last
        ]
        problems = [self.problems[i] for i, _ in self.places]
        if self.config.summarize:
            summaries = written = self._summaries(others, number)
            prompt = self.prompts.cooperative if self.config.cooperative else self.prompts.critic
            asked = list(map(prompt, problems, written))
        else:
            asked = list(map(self.prompts.critic_without_summary, problems, others))
        self._respond(self.society.critics, asked, summaries, number)

    def _summaries(self, others: list[list[str]], number: int) -> list[str]:
        """What each critic will read of the others' responses, from the summarizer."""
        own, writer = self.config.summarized_by == "agent", self.society.summarizer
        writers = [replace(writer, model=c.model) if own else writer for c in self.society.critics]
        requests = [
            self._request(writers[n], [self.prompts.summary(texts)], i, number, f"for agent {n + 1}")
            for (i, n), texts in zip(self.places, others)
        ]
        completions = self._generate(requests, lambda k, text: Turn("", text, "", None))
        return [completion.text for completion in completions]

    def _respond(
        self,
        agents: Sequence[Agent],
        asked: Sequence[Message],
        summaries: Sequence[str | None],
        number: int,
    ) -> None:
        """One batch in which every agent continues its own conversation; each turn is recorded."""
        if self.config.unique_ids:  # Appendix E.2
            asked = [
                self.prompts.identified(message, agents[n].role, n + 1)
                for (_, n), message in zip(self.places, asked)
            ]
        so_far = self.debates()
        requests = [
            self._request(agents[n], [*so_far[i].conversation(n), message], i, number, agents[n].role)
            for (i, n), message in zip(self.places, asked)
        ]

        def turn(k: int, text: str) -> Turn:
            return Turn(asked[k]["content"], summaries[k], text, None)

        for k, completion in enumerate(self._generate(requests, turn)):
            i, n = self.places[k]
            self.turns[i][n].append(answered(turn(k, completion.text), completion, self.problems[i]))

    def _request(
        self, agent: Agent, messages: Sequence[Message], i: int, number: int, purpose: str
    ) -> Request:
        """A request with a seed of its own; agents that share a model must not share seeds."""
        who = (agent.name, number, purpose)
        seed = derive_seed(self.config.seed, self.iteration, self.problems[i].id, *who)
        return Request(agent.model, tuple(messages), self.sampling, seed)

    def _generate(self, requests: list[Request], turn: Callable[[int, str], Turn]) -> list[Completion]:
        """Completions of one batch; `turn(k, text)` is the turn that request k goes into."""

        def show(k: int, said: str | Completion) -> None:
            i, n = self.places[k]
            if isinstance(said, str):
                reasoning, text = split_reasoning(said)
                new = replace(turn(k, text), reasoning=reasoning)
            else:
                new = answered(turn(k, said.text), said, self.problems[i])
            self.on_turn(i, n, new)  # type: ignore[misc]

        watched = (show, show) if self.on_turn else ()
        completions = generate(self.backend, requests, *watched)
        for (i, n), request, done in zip(self.places, requests, completions):
            for name in SPENT:
                self.spent[i][name] += getattr(done, name)
            cost = Cost(request.seed, done.num_prompt_tokens, done.num_completion_tokens, done.seconds)
            costs = self.costs[i][n]
            if len(costs) > len(self.turns[i][n]):  # the summary that this response reads
                _, *summary = costs.pop()
                cost = Cost._make((request.seed, *map(sum, zip(cost[1:], summary))))
            costs.append(cost)
        return completions


def answered(turn: Turn, said: Completion, problem: Problem) -> Turn:
    """A turn whose response is written: with the final answer in it, the thoughts, and how it ended."""
    cut = said.finish_reason == "length"
    answer = extract_answer(turn.response, problem.task, problem.options, cut=cut)
    return replace(turn, answer=answer, reasoning=said.reasoning, finish_reason=said.finish_reason)


def contradicts_itself(turn: Turn, task: str) -> bool:
    """Whether the result of a response's last step, `... = 7`, is not the answer in its box.

    False where it cannot be told: for tasks whose answers are no numbers, and without such a step.
    """
    results = re.findall(r"=\s*(-?\d+(?:\.\d+)?)", turn.response.split("\\boxed")[0])
    if not results or turn.answer is None or answer_type(task) != "number":
        return False
    return not is_equivalent(results[-1], turn.answer, task)


def majority_vote(answers: Sequence[str | None], task: str, seed: int) -> str | None:
    """The answer that most agents gave, under mathematical equivalence; None if none can be read.

    Unreadable answers do not vote. A tie is broken at random by the seed, whatever the order of the
    answers (Section 3.2: "one of the potential answers is chosen at random").
    """
    groups = [[answers[i] or "" for i in group] for group in group_equivalent(answers, task)]
    if not groups:
        return None
    most = max(len(group) for group in groups)
    tied = sorted(_speaker(group, task) for group in groups if len(group) == most)
    return random.Random(seed).choice(tied)


def _speaker(given: list[str], task: str) -> str:
    """The answer that stands for its group: equal to most of the others, then the shortest."""
    if len(set(given)) == 1:
        return given[0]

    def rank(answer: str) -> tuple[int, int, str]:
        return -sum(is_equivalent(answer, other, task) for other in given), len(answer), answer

    return min(given, key=rank)
