"""What answers the agents: requests in, completions out, in batches.

A backend turns each `Request` into a `Completion` and yields it as soon as it is finished, in any
order: `transformers`, `vllm` or `openai`; `opening` puts the store in front.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from maft_lib.config import Config
from maft_lib.events import counted
from maft_lib.reasoning import split_reasoning
from maft_lib.workers import raise_if_interrupted

Message = dict[str, str]  # a role and its content
# What a completion, or a whole debate, costs
SPENT = ("num_calls", "num_cut", "num_prompt_tokens", "num_completion_tokens", "seconds")
OnText = Callable[[int, str], None]  # index of a request, and its text as far as it is written


class BackendError(RuntimeError):
    """A model cannot be loaded or run; the message says which and what to do."""


memory_holders: list[Callable[[], None]] = []  # each gives back what its module keeps on the GPU


def release_memory() -> None:
    """Frees the GPU of models and engines of this process, before something else needs it."""
    for release in memory_holders:
        release()


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, in vLLM's words. Temperature 0 takes the likeliest token."""

    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 2048

    @classmethod
    def of(cls, config: Config) -> Sampling:
        """What the config says; thoughts and response share one limit of new tokens."""
        return cls(config.temperature, config.top_p, config.max_tokens + config.max_thinking_tokens)


@dataclass(frozen=True)
class Request:
    """One response wanted: which model, after which messages, drawn how, from which seed."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int

    def drawn(self) -> list:
        """Sampling and seed, for a key; at temperature 0 nothing is drawn."""
        how = self.sampling
        return [[how.temperature, how.top_p, how.max_tokens], self.seed if how.temperature else None]


@dataclass(frozen=True)
class Completion:
    """One response: its text, its lengths in tokens, and `stop` or `length`.

    `reasoning` is what a thinking model wrote before the text, for itself. `seconds` is its share of
    the time that a worker or device was busy with its batch; `stored` says that it was taken from the
    store, not generated now.
    """

    text: str
    num_prompt_tokens: int
    num_completion_tokens: int
    finish_reason: str
    reasoning: str = ""
    seconds: float = field(default=0.0, compare=False)
    stored: bool = field(default=False, compare=False, repr=False)

    @property
    def num_calls(self) -> int:
        """1, beside the many of a debate."""
        return 1

    @property
    def num_cut(self) -> int:
        """1 if the limit of new tokens ended it, else 0."""
        return int(self.finish_reason == "length")

    def to_dict(self) -> dict:
        """The completion as plain JSON values, for the store."""
        return {name: value for name, value in asdict(self).items() if name != "stored"}


class Backend(Protocol):
    """What a debate needs of an engine."""

    name: str

    def describe(self, request: Request) -> list:
        """Everything that a response depends on, as JSON values: the store's key is its hash."""

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields (index of the request, completion), each as soon as it is there.

        `on_text` hears texts grow, where the engine can tell; what it raises ends the stream.
        """


def generate(
    backend: Backend,
    requests: Iterable[Request],
    on_text: OnText | None = None,
    on_completion: Callable[[int, Completion], None] | None = None,
) -> list[Completion]:
    """All completions, in the order of the requests, thoughts apart from texts.

    `on_text(index, text)` hears texts grow where the backend can stream, `on_completion(index,
    completion)` what is finished, at once. What these raise ends the generation: finished completions
    are kept by the store, others are not.
    """
    requests = list(requests)
    completions: dict[int, Completion] = {}
    stream = backend.stream(requests, on_text) if on_text else backend.stream(requests)
    with closing(stream):
        for index, completion in counted(stream):
            raise_if_interrupted()
            if not completion.reasoning:  # a server may have taken it out
                reasoning, text = split_reasoning(completion.text)
                completion = replace(completion, text=text, reasoning=reasoning)
            completions[index] = completion
            if on_completion is not None:
                on_completion(index, completion)
    return [completions[i] for i in range(len(requests))]


def chunks(items: Sequence, size: int) -> list:
    """Consecutive pieces of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]
