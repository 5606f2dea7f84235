"""Trains an agent in processes of its own, by `torch.distributed.run`.

When they end, so does their memory: a GPU that has trained is free for the engine again, whatever the
trainer's libraries had cached. Several processes share one agent by FSDP2. Knows no debates.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from maft_lib import backends
from maft_lib.store.files import StoreError
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.workers import as_completed, default_num_workers, interruptible

_RANK = re.compile(r"^\[rank\d+\]: *")
_TELLING = re.compile(r"^(\[rank\d+\]: *)?[\w.]*(?<!ChildFailed)Error\b")
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
        command = [sys.executable, "-m", *run, "-m", "maft_lib.training.trainer", str(job)]
        code, said = _watched(command, _environment(num_processes, gpus))
        if code:
            raise _error(Path(place) / ERROR, start, code, said)


def _watched(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a command in a session of its own, which ends with this call however that ends.

    Returns the exit code and what it wrote to stderr.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    _running.add(process)
    try:
        _, said = process.communicate()
        return process.returncode, said
    finally:
        _running.discard(process)
        _end(process)


_running: set[subprocess.Popen] = set()


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):  # its children, too
        os.killpg(process.pid, signal.SIGKILL)


def stop_trainings() -> None:
    """Ends all trainings that this process has launched."""
    for process in list(_running):
        _end(process)


atexit.register(stop_trainings)


def _environment(num_processes: int, gpus: str | None) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])  # also where the library is not installed
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


def _error(written: Path, start: str, code: int, said: str) -> Exception:

    if written.is_file():
        kind, message = json.loads(written.read_text())
        kinds = {"FinetuneError": FinetuneError, "StoreError": StoreError}
        return kinds.get(kind, backends.BackendError)(message)
    # torch.distributed.run ends with an error of its own about that of its children
    lines = [line for line in said.splitlines() if _TELLING.search(line)] or [""]
    killed = code < 0 or "(SIGKILL)" in said
    how = "was killed (out of memory?)" if killed else f"ended with {code}"
    why = _RANK.sub("", lines[-1]).strip()[:300]
    return LaunchError(
        f"the training of {start} {how}: {why} What is finished is kept; if memory is short, try "
        "lora_rank, optim: paged_adamw_8bit or gradient_checkpointing."
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

    with interruptible(delayed=True), ThreadPoolExecutor(len(sets)) as pool:
        futures = {pool.submit(one, task): i for i, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # one that fails or is interrupted ends all
            pool.shutdown(wait=False, cancel_futures=True)
            stop_trainings()
            raise


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
