"""What a study will cost, told before it begins: requests, tokens, memory, disk and time.

The recipe of the method runs on a `CountingStudy`, with made-up problems and answers, so that what is
counted is what it asks for. Lengths of texts are assumptions, named and argued below.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextvars import Context
from typing import Any, cast
from zlib import crc32

from maft_lib.backends import Completion, Request
from maft_lib.config import Config, ConfigError, check_name
from maft_lib.debate import Debate
from maft_lib.methods import METHODS
from maft_lib.roofline import Batch, Machine, Roofline, Training, model_shape, this_machine
from maft_lib.society import Agent, Society
from maft_lib.study import Study
from maft_lib.tasks import canonical
from maft_lib.tasks.problem import Problem
from maft_lib.training.data import Example

# Characters of a question and tokens of a response, by task. Gold solutions have some 90 tokens in
# GSM8K and 120 to 170 in MATH; an instruction-tuned model that explains its steps writes twice as much.
QUESTION, OTHER_QUESTION = {"gsm": 240, "math": 190, "mmlu": 300}, 80
RESPONSE, OTHER_RESPONSE = {"gsm": 200, "math": 300, "mmlu": 250}, 120
ROOM = 0.3  # the mean response as a share of max_tokens, at most
LONGEST = 4  # the longest response of a batch in mean ones
SUMMARY = 0.5  # of the responses in it; measured with the miniature model, 0.4 to 0.6
CHARACTERS, TURN = 4, 5  # of a token; tokens of the chat template around a message
# Shares of responses: the first agrees with the vote; only the last does; both do. The authors' count
# of training tokens (rebuttal; Mistral on MATH) fits these within a factor of two.
AGREES, CORRECTED, KEPT = 0.6, 0.17, 0.5
SAMPLE = 25  # made-up problems of a split, which stand for all


class CountingStudy(Study):
    """A study that counts: problems and answers are made up, nothing is finetuned or kept.

    It is its own backend. Right answers are 1, wrong ones unreadable. One problem is hard: all that is
    said about it is as long as the longest of a batch. `counts` has responses and trainings by phase.
    """

    name = "counting"

    def __init__(self, method: str, config: Config):
        self.method, self.task, self.config = method, "arithmetic", config
        self.backend = cast(Any, self)
        task = canonical(config.task)
        self.train, self.eval = (
            [
                Problem(f"{split} {i}", "arithmetic", ("?" if i else "!!").ljust(length, "?"), "1")
                for i in range(min(num, SAMPLE))
            ]
            for length in [QUESTION.get(task, OTHER_QUESTION)]
            for split, num in (("train", config.num_train), ("eval", config.num_eval))
        )
        usual = len(self.train) / (len(self.train) + LONGEST - 1)  # so that the mean is what it should
        mean = min(RESPONSE.get(task, OTHER_RESPONSE), ROOM * config.max_tokens)
        self.response, self.phase, self.weight = round(usual * mean), "answers", 1.0
        self.counts = {"data": 0.0, "training": 0.0, "answers": 0.0}
        self.batches, self.trainings = list[Batch](), list[Training]()
        self._costs, self._stored = list[dict[str, Any]](), set[tuple]()
        Context().run(METHODS[method].recipe, self)  # unheard by who listens to another study

    def debate(
        self, society: Society, asked: Sequence[Problem], iteration: int = 0, **changes: Any
    ) -> list[Debate]:
        learns = asked is self.train
        self.phase = "data" if learns else "answers"
        self.weight = (self.config.num_train if learns else self.config.num_eval) / len(asked)
        return super().debate(society, asked, iteration, **changes)

    def learn(self, society: Society, iteration: int, **changes: Any) -> list[Debate]:
        return self.debate(society, self.train, iteration, **changes)

    def remember(self, data: Sequence[Any]) -> None:
        pass

    def evaluate(self, society: Society, iteration: int = 0, pick: Any = None, **changes: Any) -> None:
        self.debate(society, self.eval, iteration, **changes)

    def finetune(self, jobs: Sequence[tuple[Agent, Sequence[Example]]], iteration: int) -> list[str]:
        for agent, examples in jobs:
            critic = agent.role == "critic"
            epochs = self.config.critic_num_train_epochs if critic else self.config.num_train_epochs
            tokens = [_tokens(e.messages) * (1 if e.rejected is None else 2) for e in examples]
            times = epochs * self.weight
            self.trainings += [
                Training(times * len(tokens), times * sum(tokens), max(tokens, default=0))
            ]
        self.counts["training"] += len(jobs)
        return [f"{agent.name} after {iteration}" for agent, _ in jobs]

    def final_loss(self, model: str) -> float:
        """It falls for ever, so that STaR makes as many rounds as it may."""
        return -self.counts["training"]

    def stream(
        self, requests: Sequence[Request], on_text: Any = None
    ) -> Iterator[tuple[int, Completion]]:
        """Answers a batch, and counts it as far as it is not stored."""
        completions = [self._complete(request) for request in requests]
        keys = [(r.model, r.seed, *(m["content"] for m in r.messages)) for r in requests]
        new = [i for i, key in enumerate(keys) if key not in self._stored]
        self._stored.update(keys)
        self.counts[self.phase] += self.weight * len(requests)
        read, written = (
            self.weight * sum(getattr(completions[i], f"num_{kind}_tokens") for i in new)
            for kind in ("prompt", "completion")
        )
        longest = max((c.num_completion_tokens for c in completions), default=0)
        models = len({requests[i].model for i in new})
        if new:
            self.batches.append(Batch(self.weight * len(new), models, read, written, longest))
        yield from enumerate(completions)

    def _complete(self, request: Request) -> Completion:
        first, *before = [message["content"] for message in request.messages][::-1]
        hard, num, end = "!!" in first, float(self.response), ""
        if "~~" in first and not before:  # responses, to be summarized
            num *= SUMMARY * (self.config.num_agents - 1)
        else:
            share = AGREES
            if before:
                share = KEPT / AGREES if "boxed" in before[-2] else CORRECTED / (1 - AGREES)
            end = "\\boxed{1}" if hard or random.Random(request.seed).random() < share else ""
        num = round(min(LONGEST * num if hard else num, self.config.max_tokens))
        text = f"{request.model}, {crc32(first.encode())} ~~{'!!' if hard else ''}"  # its own
        text = text.ljust(CHARACTERS * num - len(end), "~") + end
        return Completion(text, _tokens(request.messages), num, "stop")


def _tokens(messages: Sequence[dict[str, str]]) -> int:
    return sum(len(message["content"]) // CHARACTERS + TURN for message in messages)


def planned(method: str, config: Config) -> dict[str, int]:
    """Responses (`data`, `answers`) and agents to train (`training`) of one study of a method.

    Of STaR, which stops when its loss saturates, the most there can be; of no method nothing.
    """
    if method not in METHODS:
        return {"data": 0, "training": 0, "answers": 0}
    return {phase: round(count) for phase, count in CountingStudy(method, config).counts.items()}


def estimate(config: Config, method: str = "multiagent_ft", machine: Machine | None = None) -> Estimate:
    """What one study of `method` on `config.task` costs, on `machine` (None: on this one).

    Raises `ConfigError` for an unknown method.
    """
    check_name("method", method, tuple(METHODS))
    machine = machine or this_machine(config.path(config.runs_dir))
    return Estimate(CountingStudy(method, config), machine)


class Estimate:
    """What one study costs: numbers of requests, tokens and trainings; bytes; seconds.

    `training_tokens` are those of all trainings and epochs. What depends on the model is None where its
    shape is unknown or a server's; `seconds` are those of generating, training and moving weights.
    """

    def __init__(self, study: CountingStudy, machine: Machine):
        self.method, self.config, self.machine = study.method, study.config, machine
        self.requests = round(sum(batch.requests for batch in study.batches))
        self.tokens_read = round(sum(batch.read for batch in study.batches))
        self.tokens_generated = round(sum(batch.written for batch in study.batches))
        self.num_trainings = len(study.trainings)
        self.training_tokens = round(sum(training.tokens for training in study.trainings))
        self.disk_bytes = 300.0 * self.requests + CHARACTERS * self.tokens_generated
        self.generation_bytes: Any = None
        self.training_bytes: Any = None
        self.seconds: Any = None
        self.roofline: Any = None
        shape = model_shape(self.config.base_model) if self.config.backend != "openai" else None
        if shape is not None:
            self.roofline = roofline = Roofline(shape, self.config, machine)
            self.generation_bytes = max(map(roofline.generation, study.batches))
            self.training_bytes = max(map(roofline.training, study.trainings), default=0.0)
            self.disk_bytes += self.num_trainings * roofline.checkpoint
            self.seconds = roofline.seconds(study.batches, study.trainings)

    @property
    def headline(self) -> str:
        """In one line, as at the head of the params files."""
        times = f", L = {self.config.num_iterations}" if self.num_trainings else ""
        text = f"{self.method} on {self.config.task}{times}: "
        if self.roofline is None:
            return f"{text}{self._tokens()}"
        text += f"generation {_size(self.generation_bytes)} at least, "
        if self.num_trainings:
            text += f"training {_size(self.training_bytes)}, disk {_size(self.disk_bytes)}, "
        return f"{text}{_time(sum(self.seconds))} on {self.roofline.hardware}"

    def _tokens(self) -> str:
        counts = (self.tokens_read, self.tokens_generated, self.training_tokens)
        read, written, trained = (
            f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.3g} k" for count in counts
        )
        text = f"{self.requests:,} requests, {read} tokens read, {written} generated"
        return f"{text}, {trained} trained on" if self.num_trainings else text

    def __repr__(self) -> str:
        seconds = "unknown: the model is a server's, or not here yet"
        if self.seconds is not None:
            seconds = "generation {}, training {}, moving {}".format(*map(_time, self.seconds))
        mean = f"{self.tokens_generated / self.requests:.0f} tokens a response"
        rows = {"model": self.config.model_name_or_path, "tokens": self._tokens()}
        rows |= {"time": seconds, "assumed": mean}
        return "\n".join([self.headline, *(f"  {name:<10}{text}" for name, text in rows.items())])

    def check(self) -> Estimate:
        """Raises `ConfigError`, one sentence with what to change, if the machine cannot hold the study.

        A GPU that is not there at all is the backend's to report, and a Ray cluster's machines are not
        known here. Returns itself.
        """
        config, roofline, num_gpus = self.config, self.roofline, len(self.machine.gpus)
        if config.device == "cuda" and not num_gpus and config.executor == "local":
            return self
        remedy = "name a larger disk's folder as runs_dir, set lora_rank, or lower num_iterations"
        held = [("of disk", self.disk_bytes, self.machine.free_disk, remedy)]
        if roofline and config.executor == "local":
            remedy = "lower max_tokens, max_model_len or num_workers, or take a smaller model"
            held += [("of memory to generate", self.generation_bytes, roofline.memory, remedy)]
            remedy = "set gradient_checkpointing, optim: paged_adamw_8bit or lora_rank"
            paged = roofline.states if config.optim.startswith("paged") else 0  # may move to RAM
            held += [("of memory to train", self.training_bytes - paged, roofline.memory, remedy)]
        for what, needed, there, remedy in held:
            if needed > there:
                raise ConfigError(
                    f"{self.method} with {config.model_name_or_path} needs {_size(needed)} {what}, but "
                    f"there are {_size(there)}: {remedy}."
                )
        wanted = max(config.nproc_per_node, config.tensor_parallel_size)
        if 0 < num_gpus < wanted and config.executor == "local":
            raise ConfigError(
                f"nproc_per_node, tensor_parallel_size: {wanted} is more than {num_gpus} GPUs."
            )
        return self


def _size(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _time(seconds: float) -> str:
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
