"""Runs one method on one task, or several side by side, and writes down what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from maft_lib import events
from maft_lib.backends import Backend
from maft_lib.backends.hub import resolve_device
from maft_lib.backends.opening import open_backend
from maft_lib.backends.ray import open_cluster, stop_clusters
from maft_lib.config import Config, check_name
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

Report = Callable[[str], None]


def run_study(
    method: str,
    task: str,
    config: Config,
    backend: Backend | None = None,
    report: Report | None = None,
) -> Result:
    """Runs one method of Section 3 on one task and evaluates it after every iteration.

    `method` is one of `maft_lib.methods.METHODS`. Without a backend the config's own is used, with the
    store in front. `report` gets a line per iteration; without one it is shown live in a notebook that
    somebody watches, and printed elsewhere. Raises `ConfigError` for an unknown method and for what is
    not a config, `DataError` for an unknown task.
    """
    return run_studies([(method, task, config)], backend, report)[0]


def run_studies(
    studies: Sequence[tuple[str, str, Config]],
    backend: Backend | None = None,
    report: Report | None = None,
) -> list[Result]:
    """`run_study` for several (method, task, config), on a CPU side by side; results in their order.

    One study alone leaves workers idle whenever it trains a single model or waits for its slowest
    batch. What two of them have in common is still generated and trained once. The first that fails
    stops the others as soon as they need a worker; what is finished is in the store. Raises as
    `run_study` does, before the first begins where it can be known.
    """
    for method, task, config in studies:
        check_name("method", method, METHODS)
        answer_type(task)
        if not isinstance(config, Config):
            raise ValueError(f"config is {config!r:.80}: give a Config, as load_config makes it.")
    num_threads = _side_by_side([config for *_, config in studies])
    with interruptible(), _shown(studies, report) as (say, listening):
        runs = [
            (method, task, config, backend or open_backend(config), say, listening(number))
            for number, (method, task, config) in enumerate(studies)
        ]
        return [_run(*run) for run in runs] if num_threads == 1 else _run_all(runs, num_threads)


def _run(
    method: str,
    task: str,
    config: Config,
    backend: Backend,
    report: Report,
    listening: AbstractContextManager[Any],
) -> Result:
    with listening:
        study = Study(method, task, config, backend, report)
        METHODS[method].recipe(study)
        result = study.result()
        save_provenance(method, study.task, study.config, result.frame)
        return result


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
    if len(configs) < 2:
        return 1
    if configs[0].executor == "ray":
        return 1 + open_cluster(configs[0]).num_workers
    on_cpu = all(c.backend != "vllm" and resolve_device(c.device) == "cpu" for c in configs)
    return 1 + max(c.num_workers or default_num_workers() for c in configs) if on_cpu else 1


@contextmanager
def _shown(
    studies: Sequence[tuple[str, str, Config]], report: Report | None
) -> Iterator[tuple[Report, Callable[[int], AbstractContextManager[Any]]]]:
    """Yields what takes the lines of studies, and the context in which the study of a number runs."""
    view = events.open_view(studies) if report is None and studies else None
    if view is None:
        yield report or print, lambda number: nullcontext()
    else:
        with view:
            yield view.say, view.study
