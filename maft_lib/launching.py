"""Trains an agent in processes of its own, by `torch.distributed.run`.

When they end, so does their memory: a GPU that has trained is free for the engine again, whatever the
trainer's libraries had cached. Several processes share one agent by FSDP2. Knows no debates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from maft_lib import backends
from maft_lib.finetune_data import Example
from maft_lib.workers import default_num_workers

ERROR = "error.json"  # in the job's folder: what a training process says when it fails


class LaunchError(RuntimeError):
    """The training processes of an agent ended without a checkpoint; the message says how."""


def launch(
    start: str,
    examples: Sequence[Example],
    settings: dict,
    device: str,
    folder: Path,
    gpus: str | None = None,
) -> None:
    """`training.train` in `nproc_per_node` new processes, on the GPUs numbered in `gpus`.

    Raises what the training raised (`FinetuneError`, `BackendError`), else `LaunchError`.
    """
    num_processes = settings.get("nproc_per_node", 1)
    with tempfile.TemporaryDirectory() as place:
        job = Path(place) / "job.json"
        rows = [asdict(example) for example in examples]
        job.write_text(json.dumps([start, rows, settings, device, str(folder)]), encoding="utf-8")
        run = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
        command = [sys.executable, "-m", *run, "-m", "maft_lib.training", str(job)]
        done = subprocess.run(
            command, env=_environment(num_processes, gpus), text=True, capture_output=True
        )
        if done.returncode:
            raise _error(Path(place) / ERROR, start, done)


def _environment(num_processes: int, gpus: str | None) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)  # also where the library is not installed
    before = os.environ.get("PYTHONPATH")
    threads = max(1, default_num_workers() // num_processes)
    changed = {
        "PYTHONPATH": f"{root}{os.pathsep}{before}" if before else root,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if gpus is not None:
        changed["CUDA_VISIBLE_DEVICES"] = gpus
    return {**os.environ, **changed}


def _error(said: Path, start: str, done: subprocess.CompletedProcess) -> Exception:
    from maft_lib.finetuning import FinetuneError

    if said.is_file():
        kind, message = json.loads(said.read_text())
        return (FinetuneError if kind == "FinetuneError" else backends.BackendError)(message)
    lines = [line for line in done.stderr.splitlines() if "Error" in line] or [""]
    how = "was killed (out of memory?)" if done.returncode < 0 else f"ended with {done.returncode}"
    return LaunchError(
        f"the training of {start} {how}: {lines[-1].strip()[:300]} What is finished is kept; if memory "
        "is short, try lora_rank, optim: paged_adamw_8bit or gradient_checkpointing."
    )


def run_on_gpus(
    function: Callable, tasks: Sequence[tuple], nproc_per_node: int, device: str
) -> Iterator[tuple[int, Any]]:
    """Yields (index, `function(*task, gpus)`) as they finish, as many at a time as have room.

    On GPUs each gets `nproc_per_node` of its own; on a CPU as many cores, without numbers.
    """
    shares = SimpleQueue[str | None]()
    sets = _gpu_sets(nproc_per_node) if device != "cpu" else [None] * _rooms(nproc_per_node)
    for share in sets:
        shares.put(share)

    def one(task: tuple) -> Any:
        share = shares.get()
        try:
            return function(*task, share)
        finally:
            shares.put(share)

    with ThreadPoolExecutor(len(sets)) as pool:
        futures = {pool.submit(one, task): i for i, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _gpu_sets(size: int) -> list[str | None]:
    """The visible GPUs in sets of `size`, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(names) < size:
        raise backends.BackendError(
            f"nproc_per_node is {size}, but there are {len(names)} GPUs here: lower it."
        )
    return [",".join(names[i : i + size]) for i in range(0, len(names) - size + 1, size)]


def _rooms(size: int) -> int:
    return max(1, default_num_workers() // size)
