"""Work on a Ray cluster: batches of generation in actors, finetunes in tasks. Knows no models.

A node that is lost takes with it only the batches that it had not finished: they are given to others.
Every node sees the same `runs_dir` and models (on a shared file system) and has the same packages. Ray
carries tasks and results; only this process, the driver, writes completions to the store, since SQLite
is not safe on network file systems.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from maft_lib import nodes
from maft_lib.backends import BackendError
from maft_lib.config import Config
from maft_lib.task_queue import TaskQueue
from maft_lib.workers import WorkerError, default_num_workers

_clusters: dict[tuple, Cluster] = {}
_opening = threading.Lock()


def open_cluster(config: Config) -> Cluster:
    """The cluster of `config.ray_address`, the same one for the same settings; None: this machine.

    Raises `BackendError` if Ray is missing, if nothing answers there, if this process has joined
    another cluster, or if no node is large enough.
    """
    num_gpus = config.tensor_parallel_size if config.backend == "vllm" else 1
    key = (config.ray_address, config.device, num_gpus, config.num_workers)
    with _opening:
        _check_same(config.ray_address)
        if key not in _clusters:
            nodes.join(config.ray_address, config.num_workers or default_num_workers())
            _clusters[key] = Cluster(config.device, num_gpus, config.num_workers)
        return _clusters[key]


def _check_same(address: str | None) -> None:
    """A process is in one cluster at a time."""
    joined = next((key[0] for key in _clusters), address)
    if joined != address:
        raise BackendError(
            f"ray_address is {address!r}, but this process is in the Ray cluster of {joined!r}: "
            "restart the kernel, or call close_clusters() first."
        )


def stop_clusters() -> None:
    """Ends what threads wait for with a `WorkerError`; batches that have begun run to their end."""
    for cluster in list(_clusters.values()):
        cluster.stop()


def close_clusters() -> None:
    """Leaves the cluster and gives back what this process holds of it; one of its own ends."""
    with _opening:
        if _clusters:
            import ray

            _clusters.clear()
            ray.shutdown()


@dataclass(eq=False)
class _Worker:
    """An actor, whether it has begun to work, and the first value of its last task: its model."""

    actor: Any
    begun: bool = False
    holds: tuple = ()


class Cluster:
    """Runs tasks on the Ray cluster that this process has joined.

    `device` is auto, cpu or cuda; auto is cuda if any node has a GPU, whatever this machine has. An
    actor has `num_gpus` GPUs, or one CPU where work runs on CPUs; `max_workers` bounds the latter.
    """

    def __init__(self, device: str = "auto", num_gpus: int = 1, max_workers: int | None = None):
        self.device = "cuda" if device != "cpu" and nodes.places("GPU", 1) else "cpu"
        if device == "cuda" != self.device:
            raise BackendError(
                "device is cuda, but no node of the Ray cluster has a GPU: use auto or cpu."
            )
        self._num_gpus = num_gpus if self.device == "cuda" else 0
        self._max_workers = max_workers
        self._lock = threading.Lock()  # studies side by side share the actors
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._in_training = 0  # finetunes that want what actors have
        self._stops = 0
        self._check_places(self._num_gpus)

    @property
    def num_workers(self) -> int:
        """Actors that the cluster's nodes have room for now."""
        return self._places(self._num_gpus)

    def generate(self, function: Callable, tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Yields (index, `function(*task)`) as actors finish; they stay, with what they have loaded.

        `function` must be importable on the nodes. Its own errors are raised here as they are. Raises
        `WorkerError` if a task's actor is lost too often. If the caller stops early, tasks that have
        not begun are dropped.
        """
        queue, stops = TaskQueue(tasks), self._stops
        crew: dict[Any, tuple[_Worker, int | None]] = {}  # what is awaited: whose, and which task's
        try:
            while queue.waiting or any(index is not None for _, index in crew.values()):
                self._hire(queue, crew)
                for done in self._wait(crew, stops, self._num_gpus):
                    worker, index = crew[done]
                    try:
                        result = nodes.result_of(done)
                    except nodes.Lost as loss:
                        self._dismiss(crew.pop(done)[0])
                        queue.put_back(index, loss)
                        continue
                    del crew[done]
                    worker.begun = True
                    self._go_on(worker, function, queue, crew)  # before the caller takes its time
                    if index is not None:
                        yield index, result
        finally:
            for worker, _ in crew.values():
                self._let_go(worker)

    def train(
        self, function: Callable, tasks: Sequence[tuple], num_gpus: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index, `function(*task)`) as Ray tasks finish, each on `num_gpus` GPUs or one CPU.

        Actors without work make room for them. A task whose node is lost begins again on another, so
        `function` should find what it has finished before. After an error no further task begins, and
        it is raised as it is once those that have begun are finished. If the caller stops early, all
        are cancelled. Raises `WorkerError` if a task's node is lost too often.
        """
        queue, stops, failures = TaskQueue(tasks), self._stops, []
        running: dict[Any, int] = {}
        self._reserve(len(tasks))
        try:
            while running or queue.waiting:
                self._begin_tasks(function, queue, running, num_gpus)
                for done in self._wait(running, stops, num_gpus):
                    index = running.pop(done)
                    try:
                        result = nodes.result_of(done)
                    except nodes.Lost as loss:
                        queue.put_back(index, loss)
                    except Exception as error:
                        failures.append(error)
                        queue.waiting.clear()
                    else:
                        yield index, result
        finally:
            self._reserve(-len(tasks))
            _cancel(running)
        if failures:
            raise failures[0]

    def stop(self) -> None:
        """Ends what other threads wait for with a `WorkerError`."""
        self._stops += 1

    def release(self) -> None:
        """Ends the actors that have no work, which gives back what they hold."""
        self._dismiss_idle(0)

    def _places(self, num_gpus: int) -> int:
        if num_gpus:
            return nodes.places("GPU", num_gpus)
        found = nodes.places("CPU", 1)
        return min(found, self._max_workers or found)

    def _check_places(self, num_gpus: int) -> None:
        if not self._places(num_gpus):
            raise BackendError(
                f"no node of the Ray cluster has {f'{num_gpus} GPUs' if num_gpus else 'a CPU'} for "
                "this: add one, or lower tensor_parallel_size or nproc_per_node, and run again."
            )

    def _allowed(self) -> int:
        """Actors that there may be: a finetune on GPUs may need those of any, on CPUs of one each."""
        if self._num_gpus and self._in_training:
            return 0
        return max(0, self.num_workers - self._in_training)

    def _reserve(self, num_tasks: int) -> None:
        with self._lock:
            self._in_training += num_tasks
        self._dismiss_idle(self._allowed())

    @cached_property
    def _actor(self) -> Any:
        # Ray is not to restart them: batches would wait with an actor for which there is no place
        return _remote(nodes.Actor, self._num_gpus, max_restarts=0)

    def _hire(self, queue: TaskQueue, crew: dict) -> None:
        """Gets workers for the waiting tasks: those without work, then new ones while there is room."""
        self._drop_without_place(crew)
        wanted = len(queue.waiting) - sum(index is None for _, index in crew.values())
        if wanted <= 0:
            return
        with self._lock:
            self._idle.sort(key=lambda worker: not worker.begun)
            hired, self._idle = self._idle[:wanted], self._idle[wanted:]
            room = min(wanted - len(hired), self._allowed() - len(self._workers))
            new = [_Worker(self._actor.remote()) for _ in range(room)]
            self._workers.update(new)
        if new:  # those of other settings hold what these need
            for other in set(_clusters.values()) - {self}:
                other.release()
        for worker in hired + new:
            ready = worker.actor.begin.remote(nodes.package_versions(), self.device)
            crew[ready] = (worker, None)

    def _drop_without_place(self, crew: dict) -> None:
        """Gives up actors that still wait for a place when there are fewer places than actors."""
        for ready, (worker, _) in list(crew.items()):
            if not worker.begun and len(self._workers) > self._allowed():
                del crew[ready]
                self._dismiss(worker)

    def _go_on(self, worker: _Worker, function: Callable, queue: TaskQueue, crew: dict) -> None:
        """Gives a worker its next task, if there is one and the worker may stay."""
        with self._lock:
            stays = worker in self._workers and len(self._workers) <= self._allowed()
        if not (queue.waiting and stays):
            self._let_go(worker)
            return
        # a GPU keeps one model: rather one that this worker has loaded, or that no other has
        others = [other.holds for other, _ in crew.values()] if self._num_gpus else []
        index = queue.take(worker.holds, others)
        worker.holds = queue.tasks[index][:1]
        crew[worker.actor.run.remote(function, queue.tasks[index])] = (worker, index)

    def _let_go(self, worker: _Worker) -> None:
        with self._lock:
            if worker in self._workers:
                self._idle.append(worker)
        self._dismiss_idle(self._allowed())

    def _dismiss_idle(self, allowed: int) -> None:
        with self._lock:
            surplus = max(0, len(self._workers) - allowed)
            keep = max(0, len(self._idle) - surplus)
            leaving, self._idle = self._idle[keep:], self._idle[:keep]
            self._workers.difference_update(leaving)
        for worker in leaving:
            if worker.begun:
                worker.actor.__ray_terminate__.remote()  # after what it may still be doing
            else:
                self._dismiss(worker)  # it waits for a place

    def _dismiss(self, worker: _Worker) -> None:
        import ray

        with self._lock:
            self._workers.discard(worker)
        ray.kill(worker.actor)  # it may only have seemed lost

    def _begin_tasks(self, function: Callable, queue: TaskQueue, running: dict, num_gpus: int) -> None:
        """Hands Ray as many tasks as there are places, so that the others can still be dropped."""
        # Ray is not to retry them: it would do so without end where memory runs out
        remote = _remote(nodes.begin_and_run, num_gpus, max_retries=0)
        while queue.waiting and len(running) < self._places(num_gpus):
            index = queue.take()
            task = (nodes.package_versions(), self.device, function, queue.tasks[index])
            running[remote.remote(*task)] = index

    def _wait(self, awaited: dict, stops: int, num_gpus: int) -> list:
        """The next of what is awaited, or nothing yet. Raises if it can never come."""
        import ray

        if self._stops != stops:
            raise WorkerError("stopped with the study beside it: run again, what is finished is kept.")
        done = ray.wait(list(awaited), timeout=1)[0] if awaited else []
        if not done:
            self._check_places(num_gpus)
        if not awaited:
            time.sleep(0.2)  # finetunes beside this have all places
        return done


def _remote(work: Any, num_gpus: int, **options: int) -> Any:
    """A class or function to run on the cluster, on so many GPUs or on one CPU."""
    import ray

    remote: Any = ray.remote
    return remote(num_gpus=num_gpus, num_cpus=0 if num_gpus else 1, **options)(work)


def _cancel(references: dict) -> None:
    import ray

    for reference in references:
        ray.cancel(reference)
