"""Trains agents in processes of their own, by `torch.distributed.run`.

When they end, so does their memory: a GPU that has trained is free for the engine again, whatever the
trainer's libraries had cached. Several processes share one agent by FSDP2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from maft_lib.backends import BackendError
from maft_lib.store.files import StoreError
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.workers import as_completed, interrupts_delayed

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
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _running.add(process)
        try:
            process.wait()
        finally:
            _running.discard(process)
            process.terminate()  # if this is interrupted; it ends the processes that it has started
            process.wait()
        if process.returncode:
            raise _error(failure, settings.get("agent", start))


def _error(failure: Path, agent: str) -> Exception:
    """What a training process raised, as torch.distributed.run hands it on; if killed, nothing."""
    said = "it died without a word (out of memory?)"
    if failure.is_file():
        said = json.loads(failure.read_text(encoding="utf-8"))["message"]["message"]
    kind, _, sentence = said.partition(": ")
    for own in (FinetuneError, BackendError, StoreError):
        if own.__name__ == kind:
            return own(sentence)
    return FinetuneError(
        f"the training of {agent} failed: {said[:300]}. If memory is short, try lora_rank, "
        "optim: paged_adamw_8bit or gradient_checkpointing."
    )


def run_on_gpus(
    function: Callable, tasks: Sequence[tuple], nproc_per_node: int, device: str
) -> Iterator[tuple[int, Any]]:
    """Yields (index, `function(*task, gpus)`) as they finish, each on `nproc_per_node` GPUs of its own.

    As many run at a time as there are GPUs for; on a CPU one after another, without numbers.
    """
    shares = SimpleQueue[str | None]()
    for share in [None] if device == "cpu" else _gpu_sets(nproc_per_node):
        shares.put(share)

    def one(task: tuple) -> Any:
        share = shares.get()
        try:
            return function(*task, share)
        finally:
            shares.put(share)

    with interrupts_delayed(), ThreadPoolExecutor(shares.qsize()) as pool:
        futures = {pool.submit(one, task): i for i, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # one that fails or is interrupted ends all
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                process.terminate()


def _gpu_sets(size: int) -> list[str]:
    """The visible GPUs in sets of `size`, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(names) < size:
        raise BackendError(f"nproc_per_node is {size}, but there are {len(names)} GPUs: lower it.")
    return [",".join(names[i : i + size]) for i in range(0, len(names) - size + 1, size)]
