"""The memory that each phase of a study takes on its hardware, and what training would take otherwise.

Puts the sizes of `memory` together with a workload's longest texts. Knows no time.
"""

from __future__ import annotations

from typing import NamedTuple

from maft_lib.config import Config
from maft_lib.estimation import memory
from maft_lib.estimation.machine import Hardware
from maft_lib.estimation.shapes import ModelShape
from maft_lib.estimation.workload import Workload

# What makes the training of an agent smaller, the least departure from the paper first.
SMALLER: tuple[dict, ...] = (
    {"gradient_checkpointing": True},
    {"optim": "paged_adamw_8bit"},
    {"gradient_checkpointing": True, "optim": "paged_adamw_8bit"},
    {"gradient_checkpointing": True, "lora_rank": 16},
    {"gradient_checkpointing": True, "lora_rank": 16, "load_in_4bit": True},
)


class Span(NamedTuple):
    """What is expected, and the most it can be: every response at max_tokens."""

    expected: float
    at_most: float


class Memory(NamedTuple):
    """Bytes on each GPU, or in RAM on a CPU.

    `generation` is what it fills, `least_generation` what it cannot do without; `training` is that of
    the agents trained at a time (one on a GPU, on a CPU one per worker), `pageable` the part of it that
    may move to RAM, `ram` what training on GPUs takes there in all, `smaller` what training would take
    of a GPU with the changes named. `weights`, `all_agents` and `adapters` are the finetuned agents in
    inference: one at a time (as here), all at once (as the authors do), as adapters of one base.
    """

    generation: int
    least_generation: int
    training: Span
    trained_at_a_time: int
    pageable: int
    ram: int
    smaller: tuple[tuple[str, int], ...]
    weights: int
    all_agents: int
    adapters: int


def memory_of_phases(
    shape: ModelShape, config: Config, expected: Workload, most: Workload, hardware: Hardware
) -> Memory:
    """Generation, training, and the agents' weights in inference."""
    tokens = max(batch.read for batch in expected.batches) + expected.lengths.longest
    requests = max(-(-batch.requests // batch.models) for batch in expected.batches)
    if hardware.speed is None:
        generation = least = memory.cpu_generation(shape, config, tokens, requests, hardware.num)
    else:
        generation = memory.generation(shape, config, tokens, requests, hardware.memory)
        least = memory.least_generation(shape, config, tokens)
    return Memory(
        generation,
        least,
        Span(*(_training(shape, config, work, hardware) for work in (expected, most))),
        _at_a_time(expected, hardware),
        _pageable(shape, config, hardware) if expected.num_trainings else 0,
        _ram(shape, config, hardware) if expected.num_trainings else 0,
        tuple(_smaller(shape, config, expected, hardware)) if expected.num_trainings else (),
        *memory.agents_in_inference(shape, config, 2 * config.num_agents),
    )


def _training(shape: ModelShape, config: Config, work: Workload, hardware: Hardware) -> int:
    if not work.num_trainings:
        return 0
    longest = min(work.longest_example, shape.max_position_embeddings)
    each = memory.training(shape, config, longest, hardware.speed is not None)
    return _at_a_time(work, hardware) * each


def _at_a_time(work: Workload, hardware: Hardware) -> int:
    """Agents trained side by side: on a CPU one per worker."""
    return min(hardware.num, work.num_trainings) if hardware.speed is None else 1


def _pageable(shape: ModelShape, config: Config, hardware: Hardware) -> int:
    paged = config.optim.startswith("paged") and hardware.speed is not None
    return round(memory.optimizer_states(shape, config)) if paged else 0


def _ram(shape: ModelShape, config: Config, hardware: Hardware) -> int:
    """Of all agents that the GPUs train side by side; on a CPU it is what `training` says."""
    if hardware.speed is None:
        return 0
    agents = min(max(1, hardware.num // config.nproc_per_node), 2 * config.num_agents)
    each = memory.training_ram(shape, config) + _pageable(shape, config, hardware)
    return agents * each + memory.sleeping(shape, config)


def _smaller(
    shape: ModelShape, config: Config, work: Workload, hardware: Hardware
) -> list[tuple[str, int]]:
    """(what to set, bytes that a GPU must then hold) for changes that are not made yet."""
    found = []
    for change in SMALLER:
        news = {key: value for key, value in change.items() if getattr(config, key) != value}
        if not news or (config.lora_rank is not None and "lora_rank" in news):
            continue
        changed = config.model_copy(update=news)  # valid values, so no need to look again
        needed = _training(shape, changed, work, hardware) - _pageable(shape, changed, hardware)
        named = " and ".join(f"{key}: {str(value).lower()}" for key, value in news.items())
        found.append((named, needed))
    return found
