"""What a machine cannot hold, each in one sentence that says why and what to change.

Held against the machine are expected sizes. Knows no backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maft_lib.estimation.report import size

if TYPE_CHECKING:
    from maft_lib.estimation import Estimate
    from maft_lib.estimation.machine import GPU, Machine
    from maft_lib.estimation.phases import Memory


def problems(made: Estimate) -> Iterator[str]:
    """Disk, GPUs, their memory, RAM, in this order; none where the GPU that is wanted is missing, since
    then nothing will run and the backend says why."""
    config, machine, needs = made.config, made.machine, made.memory
    if config.device == "cuda" and not machine.gpus and config.executor == "local":
        return
    if made.disk_bytes > machine.free_disk:
        yield _disk(made)
    if needs is None or config.executor == "ray":
        return
    if machine.gpus and config.device != "cpu":
        yield from _too_few_gpus(made)
        yield from _gpu_memory(made, needs, machine.gpus[0])
    else:
        yield from _ram(made, needs, machine)


def _disk(made: Estimate) -> str:
    smaller = "" if made.config.lora_rank else "set lora_rank, "
    return (
        f"{made.method} with {made.model} writes {size(made.disk_bytes)} into runs_dir "
        f"{made.config.path(made.config.runs_dir)}, where {size(made.machine.free_disk)} are free: "
        f"name a folder on a larger disk as runs_dir, {smaller}or lower num_iterations."
    )


def _too_few_gpus(made: Estimate) -> Iterator[str]:
    for name in ("nproc_per_node", "tensor_parallel_size"):
        wanted, there = getattr(made.config, name), len(made.machine.gpus)
        if wanted > there:
            yield f"{name} is {wanted}, but this machine has {there} GPU(s): lower it."


def _gpu_memory(made: Estimate, needs: Memory, gpu: GPU) -> Iterator[str]:
    has = f"but {gpu.name} has {size(gpu.memory)}"
    if needs.least_generation > gpu.memory:
        several = "raise tensor_parallel_size, " if made.config.backend == "vllm" else ""
        yield (
            f"{made.model} needs {size(needs.least_generation)} of GPU memory to generate, {has}: "
            f"{several}lower max_model_len or max_tokens, or take a smaller model."
        )
    held = needs.training.expected - needs.pageable
    if held > gpu.memory:
        yield (
            f"training an agent of {made.model} needs {size(held)} of GPU memory, {has}: "
            f"{_remedy(made, needs, gpu)}."
        )
    if needs.ram > made.machine.ram:
        yield (
            f"training agents of {made.model} needs {size(needs.ram)} of RAM beside the GPUs, but this "
            f"machine has {size(made.machine.ram)}: set lora_rank, or take a smaller model."
        )


def _remedy(made: Estimate, needs: Memory, gpu: GPU) -> str:
    """The first change with which the training fits."""
    fits = next((f"set {change}" for change, held in needs.smaller if held <= gpu.memory), None)
    several = len(made.machine.gpus) > made.config.nproc_per_node
    if several:
        more = f"nproc_per_node: {len(made.machine.gpus)}"
        return f"{fits}, or {more}" if fits else f"set {more}, or take a smaller model"
    return fits or "take a smaller model, or a lower max_tokens"


def _ram(made: Estimate, needs: Memory, machine: Machine) -> Iterator[str]:
    peak = max(needs.generation, needs.training.expected)
    if peak > machine.ram:
        yield (
            f"{made.model} needs {size(peak)} of memory on this CPU, which has {size(machine.ram)}: "
            "lower num_workers or per_device_train_batch_size, set lora_rank, or take a smaller model."
        )
