"""One run of a method, or several side by side: `methods` has the recipes, `study` what they call.

`run_study` runs one method on one task, `run_studies` several. What came out is written down beside
the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from maft_lib.arguments import check_able, check_config, check_each
from maft_lib.backends import Backend
from maft_lib.backends.hub import resolve_device
from maft_lib.backends.opening import open_backend
from maft_lib.backends.ray import open_cluster, stop_clusters
from maft_lib.config import Config, check_name
from maft_lib.lab.live import followed
from maft_lib.methods import METHODS
from maft_lib.provenance import save_provenance
from maft_lib.study import Result, Study
from maft_lib.tasks import answer_type
from maft_lib.workers import (
    as_completed,
    default_num_workers,
    interruptible,
    stop_workers,
)


def run_study(
    method: str,
    task: str,
    config: Config,
    backend: Backend | None = None,
    report: Callable[[str], None] | None = None,
) -> Result:
    """Runs one method of Section 3 on one task and evaluates it after every iteration.

    `method` is one of `maft_lib.methods.METHODS`. Without a backend the config's own is used, with the
    store in front. `report` gets a line per iteration; without one it is shown live in a notebook that
    somebody watches, and printed elsewhere. Raises `ConfigError` for an unknown method, `DataError` for
    an unknown task and `ValueError` for arguments of another kind.
    """
    _check(method, task, config, backend, report)
    backend = backend or open_backend(config)
    with interruptible(), followed([(method, task, config)], [backend], report) as (say, watched):
        return _run(method, task, config, backend, say, watched(0))


def _check(
    method: str,
    task: str,
    config: Config,
    backend: Backend | None,
    report: Callable[[str], None] | None,
) -> None:
    """Says what is wrong with a study before anything is opened for it."""
    check_name("method", method, tuple(METHODS))
    answer_type(task)
    check_config(config)
    if backend is not None:
        check_able("backend", backend, "stream", "what open_backend(config) returns")
    if report is not None:
        check_able("report", report, "__call__", "a function that takes a line, as print")


def _run(
    method: str,
    task: str,
    config: Config,
    backend: Backend,
    report: Callable[[str], None],
    watched: AbstractContextManager[Any],
) -> Result:
    with watched:
        study = Study(method, task, config, backend, report)
        METHODS[method].recipe(study)
        result = study.result()
        save_provenance(method, study.task, study.config, result.frame)
        return result


def run_studies(
    studies: Sequence[tuple[str, str, Config]],
    backend: Backend | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Result]:
    """`run_study` for several (method, task, config), on a CPU side by side; results in their order.

    One study alone leaves workers idle whenever it trains a single model or waits for its slowest
    batch. What two of them have in common is still generated and trained once. The first that fails
    stops the others as soon as they need a worker; what is finished is in the store. Raises as
    `run_study` does, before the first begins where it can be known.
    """
    check_each("studies", studies, object)
    for place, study in enumerate(studies):
        if not isinstance(study, (tuple, list)) or len(study) != 3:
            raise ValueError(f"studies[{place}] is no study: give (method, task, config).")
        _check(*study, backend, report)
    backends = [backend or open_backend(config) for *_, config in studies]
    num_threads = _side_by_side([config for *_, config in studies])
    with interruptible(), followed(studies, backends, report) as (say, watched):
        runs = [(*s, backends[i], say, watched(i)) for i, s in enumerate(studies)]
        return [_run(*run) for run in runs] if num_threads == 1 else _run_all(runs, num_threads)


def _run_all(runs: Sequence[tuple], num_threads: int) -> list[Result]:
    with interruptible(delayed=True), ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(_run, *run) for run in runs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # an interrupted cell, too, leaves nothing running
            pool.shutdown(wait=False, cancel_futures=True)
            while any(future.running() for future in futures):
                stop_workers()
                stop_clusters()
                time.sleep(0.2)  # a study between two batches has no worker to lose yet
            raise
    return [future.result() for future in futures]


def _side_by_side(configs: Sequence[Config]) -> int:
    """One study more than there are workers; one at a time where one model is held at a time."""
    if configs and configs[0].executor == "ray":
        return 1 + open_cluster(configs[0]).num_workers
    if any(config.backend == "vllm" for config in configs):
        return 1
    if any(resolve_device(config.device) != "cpu" for config in configs):
        return 1
    return 1 + max((c.num_workers or default_num_workers() for c in configs), default=0)
