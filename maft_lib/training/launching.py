"""Trains agents in processes of their own, by `torch.distributed.run`.

When they end, so does their memory: a GPU that has trained is free for the engine again, whatever the
trainer's libraries had cached. Several processes share one agent by FSDP2.
"""

from __future__ import annotations

import atexit
import json
import os
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

import psutil

from maft_lib.backends import BackendError
from maft_lib.store.files import StoreError
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.workers import as_completed, default_num_workers, interruptible

_running: set[subprocess.Popen] = set()


def launch(
    start: str,
    examples: Sequence[Example],
    settings: dict,
    device: str,
    folder: Path,
    gpus: str | None = None,
) -> None:
    """`trainer.train` in `nproc_per_node` new processes, on the GPUs numbered in `gpus`.

    Raises what the training raised; `FinetuneError`, too, if a library or the system ended it.
    """
    root = str(Path(__file__).parents[2])  # also where the library is not installed
    path = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory() as place:
        job, failure = Path(place) / "job.json", Path(place) / "error.json"
        rows = [asdict(example) for example in examples]
        job.write_text(json.dumps([start, rows, settings, device, str(folder)]), encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root,
            "TORCHELASTIC_ERROR_FILE": str(failure),
            **({"CUDA_VISIBLE_DEVICES": gpus} if gpus is not None else {}),
        }
        num_processes = str(settings.get("nproc_per_node", 1))
        run = ["torch.distributed.run", "--standalone", "--nproc_per_node", num_processes]
        command = [sys.executable, "-m", *run, "-m", "maft_lib.training.trainer", str(job)]
        if _exit_code(command, environment):
            raise _error(failure, start)


def _exit_code(command: list[str], environment: dict[str, str]) -> int:
    """Runs a command in a session of its own, which ends with this call however that ends."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _running.add(process)
    try:
        return process.wait()
    finally:
        _running.discard(process)
        _end(process)


def _end(process: subprocess.Popen) -> None:
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process.pid)
        launcher.suspend()  # so that it starts no others
        for one in (*launcher.children(recursive=True), launcher):
            one.kill()


@atexit.register
def stop_trainings() -> None:
    """Ends all trainings that this process has launched."""
    for process in list(_running):
        _end(process)


def _error(failure: Path, start: str) -> Exception:
    """What a training process raised, as torch.distributed.run hands it on; if killed, nothing."""
    said = "it died without a word (out of memory?)"
    if failure.is_file():
        said = json.loads(failure.read_text(encoding="utf-8"))["message"]["message"]
    kind, _, sentence = said.partition(": ")
    for own in (FinetuneError, BackendError, StoreError):
        if own.__name__ == kind:
            return own(sentence)
    return FinetuneError(
        f"the training of {start} failed: {said[:300]}. If memory is short, try lora_rank, "
        "optim: paged_adamw_8bit or gradient_checkpointing."
    )


def run_on_gpus(
    function: Callable, tasks: Sequence[tuple], nproc_per_node: int, device: str
) -> Iterator[tuple[int, Any]]:
    """Yields (index, `function(*task, gpus)`) as they finish, as many at a time as have room.

    On GPUs each gets `nproc_per_node` of its own; on a CPU as many cores, without numbers.
    """
    if device == "cpu":
        shares: list[str | None] = [None] * max(1, default_num_workers() // nproc_per_node)
    else:
        shares = _gpu_sets(nproc_per_node)
    free = SimpleQueue[str | None]()
    for share in shares:
        free.put(share)

    def one(task: tuple) -> Any:
        share = free.get()
        try:
            return function(*task, share)
        finally:
            free.put(share)

    with interruptible(delayed=True), ThreadPoolExecutor(len(shares)) as pool:
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
        raise BackendError(f"nproc_per_node is {size}, but there are {len(names)} GPUs: lower it.")
    return [",".join(names[i : i + size]) for i in range(0, len(names) - size + 1, size)]
