"""Work on a Ray cluster: what `workers.run_parallel` does on this machine, by actors on its nodes.

A node that is lost takes with it only the tasks that it had not finished: others begin them anew.
Every node sees the same `runs_dir` and models (on a shared file system) and has the same packages.
Only this process writes completions to the store: SQLite is not safe on network file systems.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from maft_lib.backends import BackendError
from maft_lib.config import Config
from maft_lib.wording import one_line
from maft_lib.workers import WorkerError, default_num_workers

RETRIES = 3  # of a task whose actor was lost: what has killed four would kill the fifth as well
_stops = 0


@dataclass(frozen=True)
class Cluster:
    """The nodes that this process has joined; actors have `num_gpus` GPUs each, or one CPU."""

    device: str
    num_gpus: int
    max_workers: int | None

    @property
    def num_workers(self) -> int:
        """Actors that the living nodes have room for."""
        return self._room(self.num_gpus)

    def _room(self, size: int) -> int:
        import ray

        kind, amount = ("GPU", size) if size else ("CPU", 1)
        alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
        room = sum(int(resources.get(kind, 0) // amount) for resources in alive)
        if not room:
            raise BackendError(
                f"no node of the Ray cluster has {amount} {kind}s: add one, or lower nproc_per_node."
            )
        return room if size else min(room, self.max_workers or room)

    def run(
        self, function: Callable, tasks: Sequence[tuple], num_gpus: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index, `function(*task)`) as actors finish; they keep what they load until the end.

        `function` must be importable on the nodes; what it raises is raised here. If the caller stops
        early, tasks that have begun run to their end and the others are dropped. Raises `WorkerError`
        if a task's actor is lost too often.
        """
        import ray

        size = (num_gpus or self.num_gpus) if self.device == "cuda" else 0
        room: Any = {"num_gpus": size} if size else {"num_cpus": 1}
        hire: Any = ray.remote(**room)(_Actor)
        free: list[Any] = []  # actors; one that nothing refers to ends
        busy: dict[Any, tuple[int, Any]] = {}  # by Ray's reference: which task, by which actor
        waiting, losses, stops = deque(range(len(tasks))), Counter[int](), _stops
        try:
            while waiting or busy:
                while waiting and (free or len(busy) < self._room(size)):
                    actor = free.pop() if free else hire.remote(self.device)
                    index = waiting.popleft()
                    busy[actor.run.remote(function, tasks[index])] = index, actor
                for reference in ray.wait(list(busy), timeout=1)[0]:
                    index, actor = busy.pop(reference)
                    try:
                        result = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error
                    except ray.exceptions.RayError as error:
                        losses[index] += 1
                        if losses[index] > RETRIES:
                            raise WorkerError(
                                f"actors on Ray were lost {losses[index]} times at the same task (out "
                                "of memory?): lower max_batch_size or per_device_train_batch_size and "
                                f"run again. {one_line(error)}"
                            ) from error
                        waiting.append(index)
                        continue
                    free += [actor] if waiting else []
                    actor = None
                    yield index, result
                if _stops != stops:
                    raise WorkerError("stopped with the study beside it: run again.")
        finally:  # nor does a traceback refer to any
            free, busy, actor = [], {}, None


class _Actor:
    """Runs one task after another in a process of a node."""

    def __init__(self, device: str):
        if device == "cpu":
            import torch

            torch.set_num_threads(1)  # as `workers` do: the order of sums decides the last bits

    def run(self, function: Callable, task: tuple) -> Any:
        """The result of one task."""
        return function(*task)


def open_cluster(config: Config) -> Cluster:
    """Joins the cluster at `config.ray_address`; without an address, starts Ray on this machine.

    `device: auto` is cuda if any node has a GPU, whatever this machine has. Raises `BackendError` if
    Ray is missing or nothing answers.
    """
    try:
        import ray
    except ImportError as error:
        raise BackendError('executor is ray, but Ray is missing: pip install -e ".[ray]".') from error
    address = config.ray_address
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        num_cpus = config.num_workers or default_num_workers()
        alone: dict[str, Any] = {} if address else {"num_cpus": num_cpus, "include_dashboard": False}
        host, _, port = (address or "").rpartition(":")
        try:
            if port.isdigit():  # Ray would try for minutes where nothing listens
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **alone)
        except (Exception, SystemExit) as error:  # Ray leaves the process if what answers is not Ray
            raise BackendError(
                f"no Ray cluster at ray_address {address!r} ({one_line(error)}): start one with "
                "`ray start --head` and give the address that it prints."
            ) from error
    device = config.device
    if device == "auto":
        device = "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    return Cluster(device, int(device == "cuda"), config.num_workers)


def stop_clusters() -> None:
    """Ends what other threads wait for with a `WorkerError`; tasks that have begun run to their end."""
    global _stops
    _stops += 1
