"""The nodes of a Ray cluster: how this process joins them, and how tasks run there. Knows no queues."""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maft_lib.backends import BackendError
from maft_lib.wording import one_line
from maft_lib.workers import WorkerError

PATIENCE = 60  # seconds that a network file system may take to show a new folder
OBJECT_STORE = 200_000_000  # bytes; prompts and responses are small, weights do not travel


class Lost(Exception):
    """A task's process or node is gone; the message is Ray's."""


def join(address: str | None, num_cpus: int) -> None:
    """Connects this process to the cluster at `address`, or starts one on this machine.

    Raises `BackendError` if Ray is missing or nothing answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray would print advice on it
    try:
        import ray
    except ImportError as error:
        raise BackendError('executor is ray, but Ray is missing: pip install -e ".[ray]".') from error
    if ray.is_initialized():  # by the user
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"num_cpus": num_cpus, "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_STORE}
    else:
        _knock(address)
    try:
        ray.init(address or "local", **options)
    except (Exception, SystemExit) as error:  # Ray leaves the process if what answers is not Ray
        raise _no_cluster(address, error) from error


def _knock(address: str) -> None:
    """Raises `BackendError` if nothing listens: Ray itself would try for minutes and then exit."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:  # auto, or a form that Ray judges itself
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: BaseException) -> BackendError:
    if address is None:
        return BackendError(f"Ray does not start on this machine: {one_line(error)}")
    return BackendError(
        f"no Ray cluster answers at ray_address {address!r} ({one_line(error)}): start one with "
        "`ray start --head`, or name the address that it printed."
    )


def places(kind: str, amount: int) -> int:
    """How often a living node has `amount` of a resource, GPU or CPU."""
    import ray

    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(int(resources.get(kind, 0) // amount) for resources in alive)


class Actor:
    """Runs one batch after another in a process of its own, which keeps what it has loaded."""

    def begin(self, versions: dict[str, str], device: str) -> None:
        """Answers once the actor is ready for a batch."""
        _begin(versions, device)

    def run(self, function: Callable, task: tuple) -> Any:
        """The result of one batch."""
        return function(*task)


def begin_and_run(versions: dict[str, str], device: str, function: Callable, task: tuple) -> Any:
    """The result of one task in whatever process it comes to."""
    _begin(versions, device)
    return function(*task)


def _begin(versions: dict[str, str], device: str) -> None:
    """Makes a process of the cluster compute as one of this machine would."""
    if (here := package_versions()) != versions:
        raise BackendError(
            f"node {platform.node()} of the Ray cluster has {here} where the driver has {versions}: "
            "install the same versions on all nodes."
        )
    if device == "cpu":
        import torch

        torch.set_num_threads(1)  # as `workers` do: the order of sums decides the last bits


def package_versions() -> dict[str, str]:
    """What results depend on; builds of PyTorch for different devices are one version."""
    import maft_lib

    packages = {name: version(name).split("+")[0] for name in ("torch", "transformers")}
    return {"maft_lib": maft_lib.__version__, **packages}


def result_of(reference: Any) -> Any:
    """What a finished task returned. Raises its own error, or `Lost` if it could not finish."""
    import ray

    try:
        return _arrived(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        ours = type(error.cause).__module__.startswith("maft_lib")
        raise error.cause from (None if ours else error)  # a sentence needs no remote traceback
    except ray.exceptions.RayError as error:
        raise Lost(one_line(error)) from error


def _arrived(result: Any) -> Any:
    """A result; a path only once it is seen here, which a network file system may delay."""
    give_up = time.monotonic() + PATIENCE
    while isinstance(result, Path) and not result.exists():
        if time.monotonic() > give_up:
            raise WorkerError(
                f"{result} was written on a node of the Ray cluster but is not seen here: name as "
                "runs_dir a folder that all nodes share."
            )
        time.sleep(0.5)
    return result
