"""What a study will cost, said before it begins: tokens, memory of each phase, disk and time.

`estimate(config)` reads a model's config.json and asks nvidia-smi; it loads no weights and imports
neither PyTorch nor transformers. Its assumptions are constants of `workload` (lengths of texts) and
`roofline` (speeds). Knows no backend, and nothing of a study that has run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from maft_lib.arguments import check_config, check_kind
from maft_lib.config import Config, ConfigError
from maft_lib.estimation import limits, memory, phases, report, roofline
from maft_lib.estimation.machine import H200, Hardware, Machine, gpu_speed, this_machine
from maft_lib.estimation.phases import Memory, Span
from maft_lib.estimation.roofline import Seconds
from maft_lib.estimation.shapes import ModelShape, model_shape
from maft_lib.estimation.workload import (
    Workload,
    expected_lengths,
    iterations,
    longest_lengths,
    workload,
)


@dataclass(frozen=True)
class Estimate:
    """What one study of `method` on one `task` costs: bytes, tokens and seconds as plain numbers.

    `training_tokens` are those of one training, epochs included, of which there are `num_trainings`.
    What depends on the model is None where its shape is unknown or a server's. `hardware` is what the
    seconds are for, `notes` say what was assumed; `config` and `machine` are what was asked about.
    """

    method: str
    task: str
    model: str
    num_iterations: int
    num_agents: int
    num_parameters: int | None
    requests: int
    tokens_read: Span
    tokens_generated: Span
    num_trainings: int
    training_tokens: Span
    memory: Memory | None
    checkpoint_bytes: int | None
    completion_bytes: Span
    seconds: Seconds | None
    seconds_at_most: float | None
    hardware: str
    notes: tuple[str, ...]
    config: Config = field(repr=False)
    machine: Machine = field(repr=False)

    @property
    def disk_bytes(self) -> float:
        """Checkpoints and the expected completions."""
        return (self.checkpoint_bytes or 0) + self.completion_bytes.expected

    @property
    def headline(self) -> str:
        """Memory, disk and time in one line, as at the head of the params files."""
        return report.headline(self)

    def check(self) -> Estimate:
        """Raises `ConfigError`, one sentence with what to change, if the machine cannot hold the study.

        Held against it are the expected sizes, not the largest possible. A GPU that is not there at
        all is the backend's to report; a Ray cluster's machines are not known here. Returns itself.
        """
        problem = next(limits.problems(self), None)
        if problem:
            raise ConfigError(problem)
        return self

    def __str__(self) -> str:
        lines = (f"  {name:<12}{text}" for name, text in report.rows(self))
        return "\n".join([report.title(self), *lines])


def estimate(config: Config, method: str = "multiagent_ft", machine: Machine | None = None) -> Estimate:
    """What one study of `method` on `config.task` costs, with L = `config.num_iterations`.

    `machine` is what the study is held against; None: this one. Where `device: cuda` finds no GPU, one
    H200 is assumed, and said. Raises `ConfigError` for an unknown method.
    """
    check_config(config)
    if method == "multiagent_ft_lora":
        config = config.replace(lora_rank=config.lora_rank or 16)
    if machine is not None:
        check_kind("machine", machine, Machine, ", or leave it out")
    machine = machine or this_machine(config.path(config.runs_dir))
    expected = workload(method, config, expected_lengths(config.task, config))
    most = workload(method, config, longest_lengths(config.task, config))
    shape = None if config.backend == "openai" else model_shape(config.base_model)
    return Estimate(
        method=method,
        task=config.task,
        model=config.model_name_or_path,
        num_iterations=iterations(method, config),
        num_agents=config.num_agents,
        requests=expected.requests,
        tokens_read=Span(expected.tokens_read, most.tokens_read),
        tokens_generated=Span(expected.tokens_written, most.tokens_written),
        num_trainings=expected.num_trainings,
        training_tokens=Span(expected.tokens_per_training, most.tokens_per_training),
        completion_bytes=Span(
            *(memory.completions(w.requests, w.tokens_written) for w in (expected, most))
        ),
        notes=tuple(_notes(config, machine, expected, shape)),
        config=config,
        machine=machine,
        **_of_the_model(shape, config, machine, expected, most),
    )


def _of_the_model(
    shape: ModelShape | None, config: Config, machine: Machine, expected: Workload, most: Workload
) -> dict:
    """The fields that depend on the model's shape."""
    hardware = _hardware(config, machine)
    if shape is None:
        nothing = ("num_parameters", "memory", "checkpoint_bytes", "seconds", "seconds_at_most")
        return {**dict.fromkeys(nothing), "hardware": hardware.name}
    return {
        "num_parameters": shape.num_parameters,
        "memory": phases.memory_of_phases(shape, config, expected, most, hardware),
        "checkpoint_bytes": expected.num_trainings * memory.checkpoint(shape, config),
        "seconds": roofline.seconds(expected, shape, config, hardware),
        "seconds_at_most": roofline.seconds(most, shape, config, hardware).total,
        "hardware": hardware.name,
    }


def _on_cpu(config: Config, machine: Machine) -> bool:
    return config.device == "cpu" or (config.device == "auto" and not machine.gpus)


def _hardware(config: Config, machine: Machine) -> Hardware:
    """What the study runs on: this machine's GPUs, H200s that are assumed, or the CPU."""
    if _on_cpu(config, machine):
        workers = config.num_workers or machine.num_cores
        return Hardware(f"a CPU, {workers} workers", None, machine.ram, workers)
    gpu = machine.gpus[0] if machine.gpus else H200
    num = len(machine.gpus) or max(config.nproc_per_node, config.tensor_parallel_size)
    name = f"{'one' if num == 1 else num} {gpu.name.removeprefix('NVIDIA ')}"
    return Hardware(name, gpu_speed(gpu) or gpu_speed(H200), gpu.memory, num)


def _notes(config: Config, machine: Machine, work: Workload, shape: ModelShape | None) -> Iterator[str]:
    yield (
        f"{work.lengths.response:.0f} tokens a response (at most {config.max_tokens}), "
        f"{work.lengths.summary:.0f} a summary, {work.lengths.question:.0f} a problem"
    )
    if config.backend == "openai":
        yield "memory, time and price are the server's"
    elif shape is None:
        yield "the model's shape is unknown before it is downloaded: no memory, disk or time"
    elif _on_cpu(config, machine):
        yield "speed as measured on a core of 2.8 GHz"
    elif not machine.gpus:
        yield "no GPU is here, so one H200 is assumed"
    elif gpu_speed(machine.gpus[0]) is None:
        yield f"the speed of {machine.gpus[0].name} is not known, so an H200's is taken"
