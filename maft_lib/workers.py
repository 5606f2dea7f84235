"""Worker processes for a CPU: one thread each, side by side, kept for the life of the process.

A tiny model gains nothing from several threads and loses much to two processes that fight over the
same cores; so each worker computes with one thread. On a GPU the work is done in this process.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from maft_lib.interrupts import as_completed, put_off

T = TypeVar("T")
WORK = (
    "maft_lib.backends.transformers",
    "maft_lib.backends.decoding",
    "maft_lib.backends.forward_passes",
    "maft_lib.training.trainer",
)


class WorkerError(RuntimeError):
    """A worker process died."""


def run_parallel(
    function: Callable[..., T], tasks: Sequence[tuple], num_workers: int
) -> Iterator[tuple[int, T]]:
    """Yields (index of the task, `function(*task)`) as the workers finish; 0 workers: right here.

    `function` must be importable. Raises `WorkerError` if a worker is killed; what was yielded before
    stays valid. If the caller stops early, tasks that have not begun are dropped.
    """
    if num_workers == 0 or not tasks:
        yield from ((i, function(*task)) for i, task in enumerate(tasks))
        return
    futures: dict[Future[T], int] = {}
    with put_off():  # an interrupted pool would keep a lock that its own threads need
        try:
            pool = _pool(num_workers)
            with _opening, _program_left_out():
                futures = {pool.submit(function, *task): i for i, task in enumerate(tasks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            with _opening:
                if _pools.get(num_workers) is pool:
                    del _pools[num_workers]  # the next call starts a new pool
            raise WorkerError(
                "a worker process was killed (out of memory?): run again, what is finished is kept; if "
                "it happens again, lower num_workers or max_batch_size."
            ) from error
        finally:
            for future in futures:
                future.cancel()


class Claims:
    """Keys of what some thread of this process is making, so that no other makes it as well."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._lock = threading.Lock()  # taken itself, as an interrupted Condition would keep it
        self._changed = threading.Condition(self._lock)

    @contextmanager
    def making(self, keys: Iterable[str]) -> Iterator[set[str]]:
        """Claims those of `keys` that nobody is making, and yields them."""
        with self._lock:
            mine = set(keys) - self._taken
            self._taken |= mine
        try:
            yield mine
        finally:  # what was made is in its place, or its making has failed
            with self._lock:
                self._taken -= mine
                self._changed.notify_all()

    def wait(self, keys: Iterable[str]) -> None:
        """Until nobody is making any of `keys`."""
        wanted = set(keys)
        with self._lock:
            self._changed.wait_for(lambda: not wanted & self._taken)


def stop_workers() -> None:
    """Kills the workers, so that threads that wait for them end; the next call starts new ones."""
    with _opening:
        pools = list(_pools.values())
        _pools.clear()
    for pool in pools:
        for process in list((pool._processes or {}).values()):
            process.kill()


def busy_seconds(device: str) -> float:
    """A clock for what work costs: a CPU worker's own time, whatever else the machine does meanwhile;
    on a GPU, which works for one, the wall's."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def may_have_gpu() -> bool:
    """Whether it is worth seconds of importing PyTorch to ask. On Linux every kind of GPU is a file."""
    if not sys.platform.startswith("linux"):
        return True
    return any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")))


def default_num_workers() -> int:
    """One worker for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_pools: dict[int, ProcessPoolExecutor] = {}
_opening = threading.Lock()
_leaving_out = threading.Lock()


def _pool(num_workers: int) -> ProcessPoolExecutor:
    with _opening:
        if num_workers not in _pools:
            warm_up()
            pool = ProcessPoolExecutor(num_workers, mp_context=_context(), initializer=_start)
            _pools[num_workers] = pool
        return _pools[num_workers]


@contextmanager
def _program_left_out() -> Iterator[None]:
    """Workers that start meanwhile do not import the program that starts them.

    They need nothing of it, and a script without `if __name__ == "__main__"` would begin anew in each.
    """
    main = vars(sys.modules["__main__"])
    with _leaving_out:
        known: dict[str, Any] = {n: main[n] for n in ("__spec__", "__file__") if n in main}
        try:
            main.pop("__file__", None)
            main["__spec__"] = None
            yield
        finally:
            main.update(known)


def warm_up() -> None:
    """Lets the workers' libraries be imported while this process does something else."""
    _context()
    resource_tracker.ensure_running()  # which would undo the next line
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _program_left_out():
            forkserver.ensure_running()  # inherits the mask: an interrupt is for this process alone
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> BaseContext:
    """How workers start: a server imports the libraries once and is forked for each of them.

    This process itself is not forked: one that has used threads can hang then.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["maft_lib.preloading", *WORK])
    return context


def _start() -> None:
    for module in WORK:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # collecting garbage need not look at all the libraries
    gc.enable()  # which `preloading` has put off
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted cell is the parent's to handle
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this worker when its parent is gone, however that ended: no orphans after a kill."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
