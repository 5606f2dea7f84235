"""Runs one method on one task, or several side by side, and writes down what came out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from maft_lib import events
from maft_lib.backends import Backend
from maft_lib.backends.hub import resolve_device
from maft_lib.backends.opening import open_backend
from maft_lib.backends.ray import open_cluster
from maft_lib.config import Config
from maft_lib.methods import METHODS, Recipe, name_of
from maft_lib.provenance import made_with
from maft_lib.store.files import STUDIES, save_record
from maft_lib.study import Result, Study
from maft_lib.tasks import answer_type
from maft_lib.workers import as_completed, default_num_workers, interrupts_delayed, stop_workers

Report = Callable[[str], None]


def run_study(
    method: str | Recipe,
    task: str,
    config: Config,
    backend: Backend | None = None,
    report: Report | None = None,
) -> Result:
    """Runs one method of Section 3 on one task and evaluates it after every iteration.

    `method` is a name in `maft_lib.methods.METHODS`, or a recipe like those there. Without a backend
    the config's own is used, with the store in front. `report` gets a line per iteration; without one
    it is shown live in a notebook that somebody watches, and printed elsewhere. Raises `ConfigError`
    for an unknown method and `DataError` for an unknown task.
    """
    return run_studies([(method, task, config)], backend, report)[0]


def run_studies(
    studies: Sequence[tuple[str | Recipe, str, Config]],
    backend: Backend | None = None,
    report: Report | None = None,
) -> list[Result]:
    """`run_study` for several (method, task, config), on a CPU side by side; results in their order.

    One study alone leaves workers idle whenever it trains a single model or waits for its slowest
    batch. What two of them have in common is still generated and trained once. The first that fails
    stops the others as soon as they need a worker; what is finished is in the store.
    """
    named = [(name_of(method), task, config) for method, task, config in studies]
    for _, task, config in named:
        answer_type(task)
        if not isinstance(config, Config):
            raise ValueError(f"config is {config!r:.80}: give a Config, as load_config makes it.")
    num_threads = _side_by_side([config for *_, config in named])
    view = events.open_view(named) if report is None and named else None
    with view or nullcontext():
        runs = [
            (
                *study,
                backend or open_backend(study[-1]),
                view.say if view else report or print,
                view.study(number) if view else nullcontext(),
            )
            for number, study in enumerate(named)
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
        study = Study(method, task, config, backend, report, METHODS[method].learns)
        METHODS[method].recipe(study)
        result = study.result()
        runs = config.path(config.runs_dir)
        if os.access(runs, os.W_OK):
            means = result.frame.groupby("iteration").correct.mean()
            values = {"method": method, "task": study.task, "accuracy": means.rename(str).to_dict()}
            values |= {"config": study.config.model_dump(mode="json"), "made_with": made_with()}
            save_record(runs / STUDIES, values)
        return result


def _run_all(runs: Sequence[tuple], num_threads: int) -> list[Result]:
    with interrupts_delayed(), ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(_run, *run) for run in runs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # an interrupted cell, too, leaves nothing running
            pool.shutdown(wait=False, cancel_futures=True)
            while any(future.running() for future in futures):
                stop_workers()
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
