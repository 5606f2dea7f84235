"""What this machine has: GPUs, memory, cores and disk. Knows nothing of what a study needs.

Asks nvidia-smi rather than PyTorch, whose import takes seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from maft_lib.store import checkpoints
from maft_lib.store.files import size
from maft_lib.workers import default_num_workers, may_have_gpu


@dataclass(frozen=True)
class GPU:
    """A GPU: the name that nvidia-smi gives it, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Machine:
    """The hardware that a study is held against: GPUs, RAM and free disk in bytes, CPU cores.

    `free_disk` counts what checkpoints in the runs folder take already: a study that runs again needs
    no more room for them.
    """

    gpus: tuple[GPU, ...] = ()
    ram: int = 0
    free_disk: int = 0
    num_cores: int = 1


class Speed(NamedTuple):
    """Peak of a GPU as published: dense bf16 operations, and bytes of memory traffic, a second."""

    flops: float
    bandwidth: float


class Hardware(NamedTuple):
    """What a study runs on: its name, and GPUs with their speed and the memory of each, or a CPU.

    `num` counts GPUs, or workers where there is no speed.
    """

    name: str
    speed: Speed | None
    memory: int
    num: int


# Words of nvidia-smi's name, the more special first. T4 computes in fp16.
SPEEDS = (
    ("GH200", Speed(989e12, 4.0e12)),
    ("H200", Speed(989e12, 4.8e12)),
    ("H100 PCIe", Speed(756e12, 2.0e12)),
    ("H100", Speed(989e12, 3.35e12)),
    ("A100-SXM4-80GB", Speed(312e12, 2.04e12)),
    ("A100 80GB", Speed(312e12, 1.94e12)),
    ("A100", Speed(312e12, 1.56e12)),
    ("RTX A6000", Speed(155e12, 0.768e12)),
    ("L40S", Speed(362e12, 0.864e12)),
    ("RTX 4090", Speed(165e12, 1.01e12)),
    ("T4", Speed(65e12, 0.32e12)),
)
H200 = GPU("NVIDIA H200", 143_771 * 2**20)  # what a profile with device: cuda is planned for


def gpu_speed(gpu: GPU) -> Speed | None:
    """The published peak of a GPU; None for one that is not in the table."""
    words = gpu.name.replace("-PCIE-", " PCIe ")
    return next((speed for name, speed in SPEEDS if re.search(rf"\b{name}\b", words)), None)


def this_machine(runs_dir: str | Path) -> Machine:
    """The machine that this process runs on, with the disk that holds `runs_dir`."""
    import psutil

    ram = psutil.virtual_memory().total
    return Machine(_gpus(), ram, _room(Path(runs_dir)), default_num_workers())


@cache
def _gpus() -> tuple[GPU, ...]:
    """The GPUs that this process may use; nvidia-smi is asked once, as it can take a second."""
    if not may_have_gpu() or shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return visible(read_gpus(answer), os.environ.get("CUDA_VISIBLE_DEVICES"))


def read_gpus(answer: str) -> tuple[GPU, ...]:
    """The lines `name, MiB` of nvidia-smi; a line without a number is left out."""
    rows = (line.rsplit(",", 1) for line in answer.splitlines() if "," in line)
    return tuple(
        GPU(name.strip(), int(memory) * 2**20) for name, memory in rows if memory.strip().isdigit()
    )


def visible(gpus: tuple[GPU, ...], allowed: str | None) -> tuple[GPU, ...]:
    """Those that CUDA_VISIBLE_DEVICES allows; all where it names them otherwise than by number."""
    numbers = [number.strip() for number in (allowed or "").split(",")]
    if allowed is None or (allowed and not all(number.isdigit() for number in numbers)):
        return gpus
    return tuple(gpus[int(n)] for n in numbers if n and int(n) < len(gpus))


def _room(runs_dir: Path) -> int:
    folder = next(path for path in (runs_dir, *runs_dir.absolute().parents) if path.exists())
    return shutil.disk_usage(folder).free + size(runs_dir / checkpoints.FOLDER)
