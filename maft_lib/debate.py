"""Multiagent debate (Section 2.1, Algorithm 2, Appendix B): rounds, roles, and who sees what.

All problems are debated in lock-step: round 1 is one batch of N requests a problem, then come one
batch of summaries and one of critic turns for every further round. Knows nothing of which engine
answers, nor of finetuning.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from maft_lib.arguments import (
    as_path,
    as_place,
    check_able,
    check_config,
    check_each,
    check_kind,
    check_whole,
)
from maft_lib.backends import Backend, Completion, Request, Sampling, generate
from maft_lib.config import Config
from maft_lib.grading import extract_answer, group_equivalent, is_equivalent
from maft_lib.prompts import Message, Prompts, load_prompts
from maft_lib.seeds import derive_seed
from maft_lib.society import Agent, Society
from maft_lib.store.files import replacing
from maft_lib.tasks import answer_type
from maft_lib.tasks.problem import Problem


@dataclass(frozen=True)
class Turn:
    """What one agent was asked in one round, the summary in it, what it said and answered."""

    asked: str
    summary: str | None
    response: str
    answer: str | None


@dataclass(frozen=True)
class Debate:
    """Everything said about one problem: `turns[agent][round]` and the vote over the last round.

    Its cost: tokens read and written in all requests, summaries included, the number of requests, and
    the seconds that one worker or device was busy with them when they were first answered.
    """

    problem: Problem
    turns: tuple[tuple[Turn, ...], ...]
    vote: str | None
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_calls: int = 0
    seconds: float = field(default=0.0, compare=False)

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
        """The debate as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Debate:
        """The inverse of `to_dict`. Raises `ValueError` for values that are no debate."""
        try:
            turns = tuple(tuple(map(_turn, agent)) for agent in values["turns"])
            return cls(**{**values, "problem": Problem.from_dict(values["problem"]), "turns": turns})
        except (LookupError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"values that are no debate ({why}): give what to_dict made.") from error


def _turn(values: dict) -> Turn:
    """What `asdict` made of a turn. Raises `TypeError` for anything else."""
    turn = Turn(**values)
    for words in (turn.asked, turn.response, turn.summary or "", turn.answer or ""):
        if not isinstance(words, str):
            raise TypeError(f"what is said is text, not {words!r:.80}")
    return turn


def save_debates(debates: Sequence[Debate], path: str | Path) -> None:
    """Writes debates as JSON lines.

    Raises `ValueError` without debates or a folder to write into, `StoreError` if the disk refuses.
    """
    check_each("debates", debates, Debate)
    lines = (json.dumps(debate.to_dict()) + "\n" for debate in debates)
    with replacing(as_place(path)) as new:
        new.write_text("".join(lines), encoding="utf-8")


def load_debates(path: str | Path) -> list[Debate]:
    """Reads what `save_debates` wrote. Raises `ValueError` for a file that holds something else."""
    try:
        lines = as_path("path", path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{path} cannot be read ({why}): name a file of save_debates.") from error
    if not lines:
        raise ValueError(f"{path} is empty: name a file of save_debates, or save it again.")
    return [_read(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _read(line: str, place: str) -> Debate:
    try:
        return Debate.from_dict(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: {str(error).rstrip('.')}; save the debates again.") from error


def run_debates(
    society: Society,
    problems: Sequence[Problem],
    config: Config,
    backend: Backend,
    iteration: int = 0,
) -> list[Debate]:
    """Debates every problem for `config.num_rounds` rounds and votes (Algorithm 2).

    Returns one debate per problem, in order. `iteration` only enters the seeds: agents of another
    iteration draw afresh. All agents of a round see the previous round only. Raises `ValueError` for
    arguments of another kind, and without problems.
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

    `on_turn(i, n, turn)` is told what is being written on problem i for agent n, both from 0: first the
    summary that the agent will read, then its response, with the answer once that is whole. A backend
    that cannot stream has whole texts told. What `on_turn` raises ends the debates.
    """
    check_kind("society", society, Society, ", as base_society makes it")
    check_each("problems", problems, Problem)
    check_config(config)
    check_able("backend", backend, "stream", "what open_backend(config) returns")
    check_whole("iteration", iteration)
    run = _Run(society, list(problems), config, backend, iteration, on_turn)
    run.first_round()
    for number in range(2, config.num_rounds + 1):
        yield [run.so_far(i) for i in range(len(run.problems))]
        run.critic_round(number)
    yield [run.finished(i) for i in range(len(run.problems))]


class _Run:
    """The state of debates in progress: `turns[problem][agent]` grows by one turn a round."""

    def __init__(
        self,
        society: Society,
        problems: list[Problem],
        config: Config,
        backend: Backend,
        iteration: int,
        on_turn: OnTurn | None = None,
    ):
        self.society, self.problems, self.config = society, problems, config
        self.backend, self.iteration, self.on_turn = backend, iteration, on_turn
        self.prompts: Prompts = load_prompts(config.path(config.prompts) if config.prompts else None)
        self.sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
        self.turns: list[list[list[Turn]]] = [[[] for _ in society.generators] for _ in problems]
        self.costs = [[0, 0, 0, 0.0] for _ in problems]

    def first_round(self) -> None:
        """Every generation agent answers every problem: one batch of N x P requests."""
        bare = [self.prompts.generation(p, answer_type(p.task))[0] for p in self.problems]
        places = self._places()
        asked = [self._named(bare[i], "generator", n) for i, n in places]
        requests = [
            self._request(self.society.generators[n], [turn], i, 1)
            for (i, n), turn in zip(places, asked)
        ]
        completions = self._generate(
            requests, places, lambda k, text: Turn(asked[k]["content"], None, text, None)
        )
        for (i, n), turn, completion in zip(places, asked, completions):
            self._record(i, n, turn, None, completion)

    def critic_round(self, number: int) -> None:
        """Every critic reads about the others' responses of the previous round and answers again."""
        places = self._places()
        others = [self._others(i, n) for i, n in places]
        summaries = self._summaries(places, others, number)
        asked = [
            self._named(self._critic_prompt(self.problems[i], summary, responses), "critic", n)
            for (i, n), summary, responses in zip(places, summaries, others)
        ]
        requests = [
            self._request(self.society.critics[n], [*self._so_far(i, n), turn], i, number)
            for (i, n), turn in zip(places, asked)
        ]
        completions = self._generate(
            requests, places, lambda k, text: Turn(asked[k]["content"], summaries[k], text, None)
        )
        for (i, n), turn, summary, completion in zip(places, asked, summaries, completions):
            self._record(i, n, turn, summary, completion)

    def so_far(self, i: int) -> Debate:
        """The debate of problem `i` as far as it has come, without a vote."""
        turns = tuple(map(tuple, self.turns[i]))
        return Debate(self.problems[i], turns, None, *self.costs[i])  # type: ignore[arg-type]

    def finished(self, i: int) -> Debate:
        """The debate of problem `i` with its majority vote."""
        problem, turns = self.problems[i], self.turns[i]
        seed = derive_seed(self.config.seed, self.iteration, problem.id, "vote")
        vote = majority_vote([agent[-1].answer for agent in turns], problem.task, seed)
        return replace(self.so_far(i), vote=vote)

    def _places(self) -> list[tuple[int, int]]:
        """(problem, agent) for every response of a round."""
        agents = range(len(self.society.generators))
        return [(i, n) for n in agents for i in range(len(self.problems))]

    def _others(self, i: int, n: int) -> list[str]:
        """The latest responses to problem `i` of all agents but `n`."""
        return [agent[-1].response for k, agent in enumerate(self.turns[i]) if k != n]

    def _summaries(
        self, places: list[tuple[int, int]], others: list[list[str]], number: int
    ) -> list[str | None]:
        """What each critic will read, from the summarizer; None where nothing is summarized."""
        if not self.config.summarize:
            return [None] * len(places)
        summarizer = self.society.summarizer
        requests = [
            self._request(summarizer, self.prompts.summary(responses), i, number, listener=n)
            for (i, n), responses in zip(places, others)
        ]
        completions = self._generate(requests, places, lambda k, text: Turn("", text, "", None))
        return [completion.text for completion in completions]

    def _critic_prompt(self, problem: Problem, summary: str | None, responses: list[str]) -> Message:
        wanted = answer_type(problem.task)
        if summary is None:
            return self.prompts.critic_without_summary(problem, wanted, responses)
        if self.config.cooperative:
            return self.prompts.cooperative(problem, wanted, summary)
        return self.prompts.critic(problem, wanted, summary)

    def _named(self, turn: Message, role: str, n: int) -> Message:
        """A prompt with the agent's identity before it, where the config wants that (Appendix E.2)."""
        return self.prompts.identified(turn, role, n + 1) if self.config.unique_ids else turn

    def _so_far(self, i: int, n: int) -> list[Message]:
        """Agent `n`'s own conversation on problem `i`."""
        return self.so_far(i).conversation(n)

    def _request(
        self, agent: Agent, messages: Sequence[Message], i: int, number: int, listener: int = -1
    ) -> Request:
        """A request with a seed of its own; agents that share a model must not share seeds."""
        who = (agent.name, number, agent.role if listener < 0 else f"for agent {listener + 1}")
        seed = derive_seed(self.config.seed, self.iteration, self.problems[i].id, *who)
        return Request(agent.model, tuple(messages), self.sampling, seed)

    def _generate(
        self,
        requests: list[Request],
        places: list[tuple[int, int]],
        written: Callable[[int, str], Turn],
    ) -> list[Completion]:
        """Completions of one batch; `written(k, text)` is the turn that request k goes into."""

        def on_text(k: int, text: str) -> None:
            if self.on_turn is not None:
                self.on_turn(*places[k], written(k, text))

        def on_completion(k: int, completion: Completion) -> None:
            if self.on_turn is not None:
                turn = written(k, completion.text)
                answer = self._answer(places[k][0], turn.response)
                self.on_turn(*places[k], replace(turn, answer=answer))

        watched = (on_text, on_completion) if self.on_turn else ()
        completions = generate(self.backend, requests, *watched)
        for (i, _), completion in zip(places, completions):
            spent = (
                completion.num_prompt_tokens,
                completion.num_completion_tokens,
                1,
                completion.seconds,
            )
            self.costs[i] = [total + part for total, part in zip(self.costs[i], spent)]
        return completions

    def _record(
        self, i: int, n: int, asked: Message, summary: str | None, completion: Completion
    ) -> None:
        answer = self._answer(i, completion.text)
        self.turns[i][n].append(Turn(asked["content"], summary, completion.text, answer))

    def _answer(self, i: int, response: str) -> str | None:
        problem = self.problems[i]
        return extract_answer(response, problem.task, problem.options)


def majority_vote(answers: Sequence[str | None], task: str, seed: int) -> str | None:
    """The answer that most agents gave, under mathematical equivalence; None if none can be read.

    Unreadable answers do not vote. A tie is broken at random by the seed, whatever the order of the
    answers (Section 3.2: "one of the potential answers is chosen at random"). Raises `ValueError` for
    answers that are no list of texts, and `DataError` for an unknown task.
    """
    check_whole("seed", seed)
    groups = [[answers[i] for i in group] for group in group_equivalent(answers, task)]
    if not groups:
        return None
    most = max(len(group) for group in groups)
    tied = sorted(_speaker(group, task) for group in groups if len(group) == most)
    return random.Random(seed).choice(tied)


def _speaker(group: list[str | None], task: str) -> str:
    """The answer that stands for its group: equal to most of the others, then the shortest."""
    given = [answer for answer in group if answer is not None]
    if len(set(given)) == 1:
        return given[0]

    def rank(answer: str) -> tuple[int, int, str]:
        return -sum(is_equivalent(answer, other, task) for other in given), len(answer), answer

    return min(given, key=rank)
