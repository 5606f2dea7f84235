"""How long a study takes: arithmetic and memory traffic against what the hardware can do.

A roofline: reading a prompt and training are bound by arithmetic, writing a response by reading the
weights once a step. The efficiencies are what common engines reach, on the cautious side.
"""

from __future__ import annotations

from typing import NamedTuple

from maft_lib.config import Config
from maft_lib.estimation import memory
from maft_lib.estimation.machine import Hardware, Speed
from maft_lib.estimation.shapes import BF16, FP32, ModelShape
from maft_lib.estimation.workload import Batch, Training, Workload

# Shares of a GPU's published peak. Prefill of long batches reaches 40-60 % of the arithmetic, decoding
# 60-80 % of the bandwidth, Hugging Face's Trainer with one short example at a time 30-40 %.
PREFILL, DECODE, TRAIN = 0.4, 0.6, 0.3
PARALLEL = 0.8  # what each of several GPUs adds, the others being waited for
VLLM_STEP = (
    0.010  # seconds a step beside the model: scheduling, top_p's sort, one generator per request
)
LAYER_LAUNCH = 0.8e-3  # seconds to launch a layer's kernels from Python; no step is faster
PCIE = 10e9  # bytes a second between a GPU and memory that is not pinned
ENGINE_START = 120  # seconds, once: vLLM loads, compiles and records graphs
TRAIN_START = 20  # seconds of a training process before it reads its weights
DISK = 1e9  # bytes a second, a network disk or a slow NVMe
HASH = 0.8e9  # bytes a second of sha256 on one core, measured; each checkpoint is hashed twice
# One core of a CPU, measured at 2.8 GHz: operations a second in fp32, and bytes a second of weights
# that a step of decoding or of the optimizer goes through (a model of SmolLM2-135M's shape); seconds a
# token beside that, for a pass over the layers and for drawing (the miniature model).
CORE_FLOPS, CORE_BANDWIDTH = 60e9, 4e9
CORE_PASS, CORE_DRAW = 2.5e-5, 1.5e-4
CORE_START = 10  # seconds until the workers have imported their libraries
CORE_SHARE = 0.85  # of the time that all workers have something to do


class Seconds(NamedTuple):
    """Of a study: generating, training, and moving weights between disk and device (start included)."""

    generation: float
    training: float
    moving: float

    @property
    def total(self) -> float:
        return self.generation + self.training + self.moving


def seconds(work: Workload, shape: ModelShape, config: Config, hardware: Hardware) -> Seconds:
    """How long the whole workload takes, one phase after the other."""
    if hardware.speed is None:
        return _on_cpu(work, shape, config, hardware.num)
    generation = sum(
        batch.times * _batch(batch, work.lengths.longest, shape, config, hardware)
        for batch in work.batches
    )
    spill = _spill(work, shape, config, hardware.memory)
    training = sum(_training(t, shape, config, hardware.speed, spill) for t in work.trainings)
    side_by_side = min(max(1, hardware.num // config.nproc_per_node), 2 * config.num_agents)
    return Seconds(generation, training / side_by_side, _moving(work, shape, config, side_by_side))


def _batch(
    batch: Batch, longest: float, shape: ModelShape, config: Config, hardware: Hardware
) -> float:
    """One lock-step batch: each model in it answers its share of the requests, one after the other.

    Adapters of one base are answered together by vLLM.
    """
    together = config.backend == "vllm" and config.lora_rank is not None
    models = 1 if together else batch.models
    num = batch.requests / models
    rows = memory.rows_together(shape, config, batch.read + longest, hardware.memory)
    return models * (
        _prefill(num * batch.read, shape, config, hardware)
        + _decode(num, batch, longest, rows, shape, config, hardware)
    )


def _gpus(config: Config) -> float:
    """How many GPUs' worth of speed generate."""
    num = config.tensor_parallel_size if config.backend == "vllm" else 1
    return 1 + PARALLEL * (num - 1)


def _prefill(tokens: float, shape: ModelShape, config: Config, hardware: Hardware) -> float:
    assert hardware.speed is not None
    return 2 * shape.num_parameters * tokens / (hardware.speed.flops * PREFILL * _gpus(config))


def _decode(
    num: float,
    batch: Batch,
    longest: float,
    rows: int,
    shape: ModelShape,
    config: Config,
    hardware: Hardware,
) -> float:
    """Writing `num` responses, `rows` at a time: every step reads all weights and the rows' caches."""
    assert hardware.speed is not None
    steps = _steps(num, batch.written, longest, rows, config)
    tokens = num * batch.written
    cached = memory.cache(shape, config, tokens * (batch.read + batch.written / 2))
    traffic = (steps * memory.weights(shape, config) + cached) / (hardware.speed.bandwidth * DECODE)
    arithmetic = 2 * shape.num_parameters * tokens / (hardware.speed.flops * PREFILL)
    launch = VLLM_STEP if config.backend == "vllm" else LAYER_LAUNCH * shape.num_hidden_layers
    return max(traffic, arithmetic) / _gpus(config) + steps * launch


def _steps(num: float, written: float, longest: float, rows: int, config: Config) -> float:
    """Steps until the last row is finished.

    vLLM fills the places of finished responses at once, and only the last ones run thin; a batch of
    the transformers backend ends with its longest response.
    """
    longest = max(longest, written)
    if config.backend == "vllm":
        return max(longest, num * written / rows + longest - written)
    return -(-num // rows) * longest


def _training(
    training: Training, shape: ModelShape, config: Config, speed: Speed, spill: float
) -> float:
    """All trainings of a kind: forward and backward passes, and a step of the optimizer a batch."""
    batches = training.examples * training.epochs / config.per_device_train_batch_size
    tokens = training.tokens * config.per_device_train_batch_size
    passes = _passes(config)
    work = 2 * shape.num_parameters * passes * tokens / (speed.flops * TRAIN)
    launch = LAYER_LAUNCH * shape.num_hidden_layers * passes
    casts = 0 if config.dtype == "float32" else (FP32 + BF16) * shape.num_parameters * passes
    batch = max(work, launch) + casts / (speed.bandwidth * DECODE)
    traffic = memory.trained(shape, config) * _step_bytes(config) / (speed.bandwidth * DECODE)
    step = traffic / memory.shards(config) + 2 * spill / PCIE
    processes = 1 + PARALLEL * (config.nproc_per_node - 1)
    steps = batches / (config.nproc_per_node * config.gradient_accumulation_steps)
    return training.times * (batches * batch / processes + steps * step)


def _passes(config: Config) -> int:
    """Passes over the model of a forward's cost: a frozen base needs no gradients of its weights."""
    return (3 if config.lora_rank is None else 2) + (1 if config.gradient_checkpointing else 0)


def _spill(work: Workload, shape: ModelShape, config: Config, gpu: int) -> float:
    """Bytes of a paged optimizer's states that do not fit the GPU."""
    if not config.optim.startswith("paged"):
        return 0.0
    needed = memory.training(shape, config, work.longest_example)
    return min(max(0.0, needed - gpu), memory.optimizer_states(shape, config))


def _moving(work: Workload, shape: ModelShape, config: Config, side_by_side: int) -> float:
    """Starting engine and trainings, reading, writing and hashing checkpoints, swapping weights.

    Trainings side by side share the disk. Each copies its weights to RAM four times, in case it
    diverges.
    """
    kept, base = memory.checkpoint(shape, config), FP32 * shape.num_parameters
    copies = 4 * FP32 * memory.trained(shape, config) / PCIE
    each = (TRAIN_START + 2 * kept / HASH + copies) / side_by_side + (base + kept) / DISK
    together = config.backend == "vllm" and config.lora_rank is not None
    swaps = 0 if together else sum(batch.swapped * batch.times for batch in work.batches)
    start = ENGINE_START if config.backend == "vllm" else TRAIN_START
    first = BF16 * shape.num_parameters * (1 / DISK + 1 / HASH)
    return start + first + work.num_trainings * each + swaps * base / DISK


def _on_cpu(work: Workload, shape: ModelShape, config: Config, workers: int) -> Seconds:
    """Workers of one thread each share the batches; agents are trained side by side."""
    share = CORE_SHARE * workers
    batches = sum(
        batch.times * _cpu_batch(batch, work, shape, config, workers) for batch in work.batches
    )
    trainings = sum(_cpu_training(training, shape, config) for training in work.trainings)
    return Seconds(batches / share, trainings / share, CORE_START)


def _cpu_pass(shape: ModelShape) -> float:
    """Seconds that a core needs for one token to pass all layers."""
    return 2 * shape.num_parameters / CORE_FLOPS + CORE_PASS


def _cpu_batch(batch: Batch, work: Workload, shape: ModelShape, config: Config, workers: int) -> float:
    """Seconds of all workers together: each decodes as many rows at a time as it gets."""
    num = batch.requests / batch.models
    rows = min(config.max_batch_size or memory.CPU_ROWS, max(1.0, num / workers))
    steps = batch.models * num / rows * max(work.lengths.longest, batch.written)
    weights = steps * memory.weights(shape, config) / CORE_BANDWIDTH
    tokens = batch.read * _cpu_pass(shape) + batch.written * (_cpu_pass(shape) + CORE_DRAW)
    return batch.requests * tokens + weights


def _cpu_training(training: Training, shape: ModelShape, config: Config) -> float:
    """Seconds of the workers, each with an agent of its own."""
    examples = training.times * training.examples * training.epochs
    steps = examples / (config.per_device_train_batch_size * config.gradient_accumulation_steps)
    traffic = steps * memory.trained(shape, config) * _step_bytes(config) / CORE_BANDWIDTH
    return examples * training.tokens * _passes(config) * _cpu_pass(shape) + traffic


def _step_bytes(config: Config) -> int:
    """Read and written of a parameter in a step: its weight and gradient (accumulated, clipped, used),
    and the optimizer's states."""
    return 6 * FP32 + 2 * memory.STATE_BYTES[config.optim]
