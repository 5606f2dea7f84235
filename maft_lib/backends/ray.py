"""Work on a Ray cluster: what `workers.run_parallel` does on this machine, by tasks on its nodes.

A node that is lost takes with it only the tasks that it had not finished: Ray begins them anew.
Every node sees the same `runs_dir` and models (on a shared file system) and has the same packages.
Only this process writes completions to the store: SQLite is not safe on network file systems.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from maft_lib import workers
from maft_lib.backends import BackendError
from maft_lib.config import Config
from maft_lib.wording import one_line
from maft_lib.workers import WorkerError, default_num_workers

RETRIES = 3  # of a task whose process was lost: what has killed four would kill the fifth as well


@dataclass(frozen=True)
class Cluster:
    """The nodes that this process has joined; a task has `num_gpus` GPUs, or one CPU and one thread."""

    device: str
    num_gpus: int

    @property
    def num_workers(self) -> int:
        """Tasks that the living nodes have room for."""
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
        return room

    def run(
        self, function: Callable, tasks: Sequence[tuple], num_gpus: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index, `function(*task)`) as Ray's tasks finish.

        `function` must be importable on the nodes; what it raises is raised here. If the caller stops
        early, or `stop_workers` is called, the other tasks are cancelled. Raises `WorkerError` if a
        task's process is lost too often.
        """
        import ray

        size = (num_gpus or self.num_gpus) if self.device == "cuda" else 0
        self._room(size)
        resources: Any = {"num_gpus": size} if size else {"num_cpus": 1}
        remote: Any = ray.remote(**resources, max_retries=RETRIES)(function)
        left, stops = {remote.remote(*task): i for i, task in enumerate(tasks)}, workers.num_stops
        try:
            while left:
                for reference in ray.wait(list(left), timeout=1)[0]:
                    index = left.pop(reference)
                    try:
                        result = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error
                    except ray.exceptions.RayError as error:
                        raise WorkerError(
                            f"a task on Ray was lost {1 + RETRIES} times (out of memory?): lower "
                            "max_batch_size or per_device_train_batch_size and run again. "
                            f"{one_line(error)}"
                        ) from error
                    yield index, result
                if workers.num_stops != stops:
                    raise WorkerError("stopped with the study beside it: run again.")
        finally:
            for reference in left:
                ray.cancel(reference)


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
    return Cluster(device, int(device == "cuda"))
