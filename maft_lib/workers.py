"""Worker processes for a CPU, claims of what a thread makes, and interrupts that end all of it.

A tiny model gains nothing from several threads and loses much to two processes that fight over the
same cores, so each worker computes with one thread. On a GPU the work is done in this process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, forkserver, get_context, parent_process, resource_tracker
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
PRELOADED = ["maft_lib.workers", "maft_lib.backends.models"]  # a worker that trains imports the rest

_pools: dict[int, ProcessPoolExecutor] = {}
_lock = threading.RLock()
_interrupted = threading.Event()
num_stops = 0  # how often `stop_workers` was called, for those who wait for others


class WorkerError(RuntimeError):
    """A worker process died."""


@contextmanager
def interrupts_delayed() -> Iterator[None]:
    """Within the block an interrupt waits for `raise_if_interrupted`, or for the end.

    A queue that is interrupted keeps its lock for ever. A handler of the program's own stays in charge.
    """
    is_main = threading.current_thread() is threading.main_thread()  # which alone gets interrupts
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, lambda number, frame: _interrupted.set())
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        has_come = _interrupted.is_set()
        _interrupted.clear()
    if has_come:
        raise KeyboardInterrupt


def raise_if_interrupted() -> None:
    """Raises `KeyboardInterrupt` if the main thread was interrupted while it delays interrupts."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def as_completed(futures: Iterable[Future[T]]) -> Iterator[Future[T]]:
    """The futures as they finish; an interrupt ends the waiting."""
    left = set(futures)
    while left:
        raise_if_interrupted()
        done, left = wait(left, 0.2, FIRST_COMPLETED)
        yield from done


def run_parallel(
    function: Callable[..., T], tasks: Sequence[tuple], num_workers: int
) -> Iterator[tuple[int, T]]:
    """Yields (index of the task, `function(*task)`) as the workers finish; 0 workers: right here.

    Raises `WorkerError` if a worker is killed. If the caller stops early, the other tasks are dropped.
    """
    if num_workers == 0 or not tasks:
        yield from ((i, function(*task)) for i, task in enumerate(tasks))
        return
    futures: dict[Future[T], int] = {}
    try:
        with interrupts_delayed():
            with _lock, _main_hidden():
                if num_workers not in _pools:
                    warm_up()
                    context = get_context("forkserver")
                    _pools[num_workers] = ProcessPoolExecutor(num_workers, context, _start)
                submit = _pools[num_workers].submit
                futures = {submit(function, *task): i for i, task in enumerate(tasks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
    except BrokenProcessPool as error:
        stop_workers()
        raise WorkerError(
            "a worker process was killed (out of memory?): run again, what is finished is kept; if it "
            "happens again, lower num_workers or max_batch_size."
        ) from error
    finally:
        for future in futures:
            future.cancel()


def stream_threads(
    function: Callable[..., Iterable[list[T]]], tasks: Sequence[tuple], num_threads: int
) -> Iterator[tuple[int, T]]:
    """Yields (index of the task, item) of the lists that `function(*task)` yields in threads.

    It suits code that runs outside Python's lock. If the caller stops early, so do the threads, each
    after its next list.
    """
    results: SimpleQueue[Any] = SimpleQueue()
    left, stopped = iter([*enumerate(tasks)]), threading.Event()

    def work() -> None:
        try:
            for index, task in left:  # each thread takes the next one
                for items in function(*task):
                    for item in items:
                        results.put((index, item))
                    if stopped.is_set():
                        return
            results.put(None)
        except BaseException as error:
            results.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(num_threads, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            raise_if_interrupted()
            try:
                result = results.get(timeout=0.2)
            except Empty:
                continue
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def warm_up() -> None:
    """Starts the server that imports the workers' libraries once and is forked for each of them."""
    get_context("forkserver").set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # which would undo the next line
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for the server and all workers
    with _lock, _main_hidden():
        forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Processes that start meanwhile do not import this program, so it needs no `__main__` guard."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start() -> None:
    """Begins a worker, which ends with its parent, however that ends."""
    import torch

    def follow_parent() -> None:
        connection.wait([parent_process().sentinel])  # type: ignore[union-attr]
        os._exit(1)

    torch.set_num_threads(1)
    threading.Thread(target=follow_parent, daemon=True).start()


def stop_workers() -> None:
    """Kills the workers, so that threads that wait for them end; the next call starts new ones."""
    global num_stops
    with _lock:
        num_stops += 1
        for pool in _pools.values():
            for process in list((pool._processes or {}).values()):
                process.kill()
        _pools.clear()


class Claims:
    """Keys of what some thread of this process is making, so that no other makes it as well."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._lock = threading.Lock()  # taken itself, as an interrupted Condition would keep it
        self._changed = threading.Condition(self._lock)

    @contextmanager
    def claim(self, keys: Iterable[str]) -> Iterator[set[str]]:
        """Yields those of `keys` that nobody is making, claimed for this thread until the end."""
        with self._lock:
            mine = set(keys) - self._taken
            self._taken |= mine
        try:
            yield mine
        finally:
            with self._lock:
                self._taken -= mine
                self._changed.notify_all()

    def wait(self, keys: Iterable[str]) -> None:
        """Until nobody is making any of `keys`."""
        with self._lock:
            self._changed.wait_for(lambda: self._taken.isdisjoint(keys))


def busy_seconds(device: str) -> float:
    """A clock for what work costs: this process's own time on a CPU, the wall's on a GPU."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def may_have_gpu() -> bool:
    """Whether it is worth seconds of importing PyTorch to ask. On Linux every kind of GPU is a file."""
    files = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")
    return not sys.platform.startswith("linux") or any(map(os.path.exists, files))


def default_num_workers() -> int:
    """One worker for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
