"""Work on a Ray cluster: what `workers.run_parallel` does on this machine, by actors on its nodes.

A node that is lost takes with it only the tasks that it had not finished: others begin them anew.
Every node sees the same `runs_dir` and models (on a shared file system) and has the same packages.
Only this process writes completions to the store: SQLite is not safe on network file systems.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maft_lib.backends import BackendError
from maft_lib.config import Config
from maft_lib.wording import one_line
from maft_lib.workers import WorkerError, default_num_workers

RETRIES = 3  # of a task whose actor was lost: what has killed four would kill the fifth as well
PATIENCE = 60  # seconds that a network file system may take to show a new folder
_lock = threading.Lock()  # studies side by side share the actors
_num_actors: Counter[int] = Counter()  # by the GPUs that each has
_idle: dict[int, list] = defaultdict(list)  # actors, by the same
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

    def run(
        self, function: Callable, tasks: Sequence[tuple], num_gpus: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index, `function(*task)`) as actors finish; they stay, with what they have loaded.

        `function` must be importable on the nodes; what it raises is raised here. If the caller stops
        early, tasks that have begun run to their end and the others are dropped. Raises `WorkerError`
        if a task's actor is lost too often.
        """
        import ray

        size = (num_gpus or self.num_gpus) if self.device == "cuda" else 0
        waiting, losses, stops = deque(range(len(tasks))), Counter[int | None](), _stops
        awaited: dict[Any, tuple[Any, int | None]] = {}  # actor and task; None: it is about to begin
        try:
            while waiting or any(index is not None for _, index in awaited.values()):
                if _stops != stops:
                    raise WorkerError("stopped with the study beside it: run again.")
                beginning = sum(index is None for _, index in awaited.values())
                awaited |= self._hire(size, len(waiting) - beginning)
                for reference in ray.wait(list(awaited), timeout=1)[0]:
                    actor, index = awaited[reference]
                    try:
                        result = _result(reference)
                    except ray.exceptions.RayError as error:
                        del awaited[reference]
                        _num_actors[size] -= 1
                        losses[index] += 1
                        if losses[index] > (RETRIES if index is not None else 10 * RETRIES):
                            raise WorkerError(
                                f"actors on Ray were lost {losses[index]} times at the same "
                                "task (out of memory?): lower max_batch_size or "
                                f"per_device_train_batch_size and run again. {one_line(error)}"
                            ) from error
                        waiting.extend([] if index is None else [index])
                        continue
                    del awaited[reference]
                    if waiting:
                        following = waiting.popleft()
                        awaited[actor.run.remote(function, tasks[following])] = (actor, following)
                    else:
                        _idle[size].append(actor)
                    if index is not None:
                        yield index, result
        finally:
            _idle[size] += [actor for actor, _ in awaited.values()]

    def _hire(self, size: int, wanted: int) -> dict[Any, tuple[Any, None]]:
        """Idle actors, then new ones while there is room; those of another size give theirs back."""
        import ray

        room = self._room(size)
        with _lock:
            for other in _idle.keys() - {size}:
                for actor in _idle.pop(other):
                    actor.__ray_terminate__.remote()  # after what it may still be doing
                    _num_actors[other] -= 1
            hired = [_idle[size].pop() for _ in range(min(wanted, len(_idle[size])))]
            new = range(min(wanted - len(hired), room - _num_actors[size]))
            _num_actors[size] += len(new)
        remote: Any = ray.remote(num_gpus=size, num_cpus=0 if size else 1)(_Actor)
        hired += [remote.remote() for _ in new]
        return {actor.begin.remote(self.device): (actor, None) for actor in hired}

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


class _Actor:
    """Runs one task after another in a process of a node."""

    def begin(self, device: str) -> None:
        """Returns when the process is ready to compute as one of the driver's machine would."""
        if device == "cpu":
            import torch

            torch.set_num_threads(1)  # as `workers` do: the order of sums decides the last bits

    def run(self, function: Callable, task: tuple) -> Any:
        """The result of one task."""
        return function(*task)


def _result(reference: Any) -> Any:
    """What a task returned; a path only once it is seen here."""
    import ray

    try:
        result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    give_up = time.monotonic() + PATIENCE
    while isinstance(result, Path) and not result.exists() and time.monotonic() < give_up:
        time.sleep(0.5)
    return result


def open_cluster(config: Config) -> Cluster:
    """Joins the cluster at `config.ray_address`; without an address, starts Ray on this machine.

    `device: auto` is cuda if any node has a GPU, whatever this machine has. Raises `BackendError` if
    Ray is missing or nothing answers.
    """
    try:
        import ray
    except ImportError as error:
        raise BackendError('executor is ray, but Ray is missing: pip install -e ".[ray]".') from error
    if not ray.is_initialized():
        _join(config.ray_address, config.num_workers or default_num_workers())
    device = config.device
    if device == "auto":
        device = "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    return Cluster(device, int(device == "cuda"), config.num_workers)


def _join(address: str | None, num_cpus: int) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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


def stop_clusters() -> None:
    """Ends what other threads wait for with a `WorkerError`; tasks that have begun run to their end."""
    global _stops
    _stops += 1
