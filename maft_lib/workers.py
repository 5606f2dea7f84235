"""Worker processes for a CPU: one thread each, side by side, kept for the life of the process.

A tiny model gains nothing from several threads and loses much to two processes that fight over the
same cores; so each worker computes with one thread. On a GPU the work is done in this process.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

T = TypeVar("T")


class WorkerError(RuntimeError):
    """A worker process died."""


def run_parallel(
    function: Callable[..., T], tasks: Sequence[tuple], num_workers: int
) -> Iterator[tuple[int, T]]:
    """Yields (index of the task, `function(*task)`) as the workers finish; 0 workers: right here.

    `function` must be importable. Raises `WorkerError` if a worker is killed; what was yielded before
    stays valid. If the caller stops early, tasks that have not begun are dropped.
    """
    if num_workers == 0:
        yield from ((i, function(*task)) for i, task in enumerate(tasks))
        return
    futures = {}
    try:
        pool = _pool(num_workers)
        futures = {pool.submit(function, *task): i for i, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        _pool.cache_clear()  # the next call starts a new pool
        raise WorkerError(
            "a worker process was killed (out of memory?): run again, what is finished is kept; if it "
            "happens again, lower num_workers or max_batch_size."
        ) from error
    finally:
        for future in futures:
            future.cancel()


def default_num_workers() -> int:
    """One worker for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(num_workers: int) -> ProcessPoolExecutor:
    # spawn: a fork of a process that has used threads (Jupyter's kernel, PyTorch) can hang.
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_start)
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _start() -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted cell is the parent's to handle
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this worker when its parent is gone, however that ended: no orphans after a kill."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
