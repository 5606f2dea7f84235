"""What one study of a method asks for, before anything runs: requests, tokens, agents to train.

A table says of every method who is evaluated, who learns and from what (see `methods`); the lengths of
texts are assumptions, named and argued below. Knows no model, engine or machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from maft_lib.config import Config, check_name
from maft_lib.tasks import canonical

# Mean tokens of a problem as it is asked, the answer format (about 30) and a chat template (about 15)
# included: questions have 240 characters in GSM8K, 190 in MATH, 300 with the options in MMLU, at four
# characters a token. The generated tasks are shorter.
QUESTION = {"gsm": 105, "math": 95, "mmlu": 120, "arithmetic": 60}
OTHER_QUESTION = 60
# Mean tokens of a response. Gold solutions have 290 characters in GSM8K and 360 (levels 1-3) to 520
# (all levels) in MATH, about 90, 120 and 170 tokens; an instruction-tuned model asked to explain its
# steps writes twice as much. Models trained to reason at length write several times this.
RESPONSE = {"gsm": 200, "math": 300, "mmlu": 250, "arithmetic": 120}
OTHER_RESPONSE = 120
# Who sets max_tokens leaves room: the miniature model writes 27 to 50 tokens of the 128 allowed.
ROOM = 0.3
# A batch ends with its longest response, here this many means; measured, 2 to 4.
LONGEST = 4
# A summary is half as long as the responses in it; measured with the miniature model, 0.4 to 0.6.
SUMMARY_SHARE = 0.5
SUMMARY_WORDS, CRITIC_WORDS = 30, 45  # tokens of the prompts around them, chat template included
# Shares of responses: the first agrees with the vote; only the last does; both do. The authors' count
# of training tokens (rebuttal; Mistral on MATH) fits these with the lengths above within a factor of
# two; the miniature model has 0.45, 0.3 and 0.3.
AGREES, CORRECTED, KEPT = 0.6, 0.17, 0.5


class Recipe(NamedTuple):
    """A method's pattern: how its agents are evaluated, how they learn, and which are trained.

    `whole` is a debate, `first` its first round alone, `alone` one response of one agent.
    """

    evaluated: str
    learns_from: str | None = None
    trained: tuple[str, ...] = ()


_MULTIAGENT = Recipe("whole", "whole", ("generation", "critic"))
_SINGLE = Recipe("whole", "whole", ("single",))
RECIPES = {
    "base": Recipe("alone"),
    "majority": Recipe("first"),
    "debate": Recipe("whole"),
    "cooperative": Recipe("whole"),
    "unique_id": Recipe("whole"),
    "vote_equal_budget": Recipe("whole"),
    "star": Recipe("alone", "alone", ("single",)),
    "majority_ft": Recipe("first", "first", ("single",)),
    "single_agent_ft": _SINGLE,
    "single_agent_ft_hot": _SINGLE,
    "single_agent_ft_wo_debate": Recipe("alone", "whole", ("single",)),
    "multiagent_ft": _MULTIAGENT,
    "multiagent_ft_wo_summary": _MULTIAGENT,
    "multiagent_ft_wo_critic": Recipe("whole", "whole", ("generation",)),
    "multiagent_ft_lora": _MULTIAGENT,
    "multiagent_ft_dpo": Recipe("whole", "whole", ("generation", "preference")),
    "cooperative_ft": _MULTIAGENT,
    "no_interaction": _MULTIAGENT,
    "distilled_society": Recipe("alone", "whole", ("generation", "critic")),
}


class Lengths(NamedTuple):
    """Tokens of a study's texts, and the shares of responses that are learned from."""

    question: float
    response: float
    summary: float
    longest: float
    agrees: float
    corrected: float
    kept: float


class Batch(NamedTuple):
    """Requests that are answered together: for how many models, tokens of each, times it happens.

    `swapped` models are finetuned ones, whose weights have to be fetched first.
    """

    requests: int
    models: int
    read: float
    written: float
    times: int = 1
    swapped: int = 0


class Training(NamedTuple):
    """Trainings alike: how many, examples and tokens of each, and epochs over them."""

    times: int
    examples: float
    tokens: float
    epochs: int


@dataclass(frozen=True)
class Workload:
    """All that a study generates and trains, and its longest example in tokens."""

    batches: tuple[Batch, ...]
    trainings: tuple[Training, ...]
    lengths: Lengths
    longest_example: int

    @property
    def requests(self) -> int:
        return sum(batch.requests * batch.times for batch in self.batches)

    @property
    def tokens_read(self) -> int:
        return round(sum(b.requests * b.times * b.read for b in self.batches))

    @property
    def tokens_written(self) -> int:
        return round(sum(b.requests * b.times * b.written for b in self.batches))

    @property
    def num_trainings(self) -> int:
        return sum(training.times for training in self.trainings)

    @property
    def tokens_per_training(self) -> float:
        """Mean tokens of one training, epochs included."""
        return self.tokens_trained / self.num_trainings if self.num_trainings else 0.0

    @property
    def tokens_trained(self) -> int:
        """Over all agents and epochs."""
        return round(sum(t.times * t.examples * t.tokens * t.epochs for t in self.trainings))


def expected_lengths(task: str, config: Config) -> Lengths:
    """What the constants above say of a task, a response bounded by `ROOM` of max_tokens."""
    name = canonical(task)
    response = min(RESPONSE.get(name, OTHER_RESPONSE), ROOM * config.max_tokens)
    question = QUESTION.get(name, OTHER_QUESTION)
    summary = min(SUMMARY_SHARE * (config.num_agents - 1) * response, config.max_tokens)
    longest = min(LONGEST * response, config.max_tokens)
    return Lengths(question, response, summary, longest, AGREES, CORRECTED, KEPT)


def longest_lengths(task: str, config: Config) -> Lengths:
    """Every response at max_tokens, all of them learned from: what a study cannot exceed by much."""
    most = config.max_tokens
    question = expected_lengths(task, config).question
    return Lengths(question, most, most, most, 1.0, config.w, 1 - config.w)


def workload(method: str, config: Config, lengths: Lengths) -> Workload:
    """What `method` asks for under these lengths. Raises `ConfigError` for an unknown method."""
    check_name("method", method, tuple(RECIPES))
    config = _as_changed(method, config)
    batches = tuple(_batches(method, config, lengths))
    trainings = tuple(_trainings(method, config, lengths))
    longest = lengths._replace(response=lengths.longest, summary=lengths.longest)
    rounds = config.num_rounds if "critic" in RECIPES[method].trained else 1
    tokens = _conversation(config, longest, rounds) + longest.response
    return Workload(batches, trainings, lengths, round(tokens) if trainings else 0)


def iterations(method: str, config: Config) -> int:
    """How often a method finetunes: L times, STaR until its loss saturates, at most."""
    if not RECIPES[method].trained:
        return 0
    return config.star_max_rounds if method == "star" else config.num_iterations


def _as_changed(method: str, config: Config) -> Config:
    """The parameters that a method's definition changes and that change what it costs."""
    if method == "multiagent_ft_wo_summary":
        return config.replace(summarize=False)
    if method == "multiagent_ft_lora":
        return config.replace(lora_rank=config.lora_rank or 16)
    return config


def _batches(method: str, config: Config, lengths: Lengths) -> Iterator[Batch]:
    """Of the base agents, then of the finetuned ones: evaluation and, before each training, data."""
    recipe, last = RECIPES[method], iterations(method, config)
    num = 1 if "single" in recipe.trained else config.num_agents
    yield from _debates(recipe.evaluated, config.num_eval, 1, 0, 1, config, lengths)
    if method == "vote_equal_budget":
        yield Batch(_extra_samples(config, lengths), 1, lengths.question, lengths.response)
    if not last or recipe.learns_from is None:
        return
    evaluations, extra = (1, 1) if method == "distilled_society" else (last, 0)
    learned = recipe.learns_from
    yield from _debates(learned, config.num_train, 1, 0, 1, config, lengths)
    yield from _debates(learned, config.num_train, num, num, last - 1 + extra, config, lengths)
    alone = 1 if extra else num
    yield from _debates(recipe.evaluated, config.num_eval, alone, alone, evaluations, config, lengths)
    if method == "star":  # wrong answers are asked again
        wrong = round((1 - lengths.agrees) * config.num_train)
        yield Batch(wrong, 1, lengths.question + SUMMARY_WORDS, lengths.response, last)


def _debates(
    pattern: str, problems: int, models: int, swapped: int, times: int, config: Config, lengths: Lengths
) -> Iterator[Batch]:
    """The batches of debates of all `problems`, `times` over, by agents that are `models` models."""
    agents, rounds = {
        "alone": (1, 1),
        "first": (config.num_agents, 1),
        "whole": (config.num_agents, config.num_rounds),
    }[pattern]
    if times == 0:
        return
    num, answer = problems * agents, lengths.response
    yield Batch(num, models, lengths.question, answer, times, swapped)
    for number in range(2, rounds + 1):
        if config.summarize:
            read = (agents - 1) * answer + SUMMARY_WORDS
            yield Batch(num, 1, read, lengths.summary, times, min(1, swapped))
        yield Batch(num, models, _conversation(config, lengths, number), answer, times, swapped)


def _conversation(config: Config, lengths: Lengths, number: int) -> float:
    """Tokens that an agent reads before its response of round `number`: its whole conversation."""
    advice = lengths.summary if config.summarize else (config.num_agents - 1) * lengths.response
    turn = lengths.response + advice + CRITIC_WORDS + lengths.question
    return lengths.question + (number - 1) * turn


def _extra_samples(config: Config, lengths: Lengths) -> int:
    """Samples of `vote_equal_budget` beside the first round's: as many as the debate's tokens pay."""
    advice = lengths.summary if config.summarize else 0
    return round(
        config.num_eval * config.num_agents * (config.num_rounds - 1) * (1 + advice / lengths.response)
    )


def _trainings(method: str, config: Config, lengths: Lengths) -> Iterator[Training]:
    """Who is trained on how much, over all iterations (Sections 2.3 and 2.4)."""
    times, agents, train = iterations(method, config), config.num_agents, config.num_train
    direct = lengths.question + lengths.response
    critic = _conversation(config, lengths, config.num_rounds) + lengths.response
    first = Training(0, lengths.agrees * train, direct, config.num_train_epochs)
    all_agents = first._replace(examples=first.examples * agents)
    kinds = {
        "generation": first._replace(times=times * agents),
        "critic": Training(
            times * agents, _mixture(config, lengths) * train, critic, config.critic_num_train_epochs
        ),
        # both responses of a pair are read, by the policy and by the reference
        "preference": Training(
            times * agents, lengths.corrected * train, 2 * critic, config.critic_num_train_epochs
        ),
        "single": (first if method == "star" else all_agents)._replace(times=times),
    }
    yield from (kinds[kind] for kind in RECIPES[method].trained)
    if method == "distilled_society":
        yield all_agents._replace(times=1)


def _mixture(config: Config, lengths: Lengths) -> float:
    """Examples of D^C per problem: the largest mixture of D^C- and D^C+ with the share w."""
    sides = ((lengths.corrected, config.w), (lengths.kept, 1 - config.w))
    return min(size / share for size, share in sides if share)
