"""Runs the notebooks in order through papermill: what `maft figures` does.

On a CPU two run at a time, on Linux each on a half of the cores: while one draws, the other computes.
Those that share runs wait for each other, so nothing is computed twice. Executed copies go to
runs/<profile>/notebooks/, figures and tables to figures/<profile>/, where index.html shows them all. A
notebook that fails stops the run with a non-zero exit code; what is finished is kept, and the same
command goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

import papermill
import psutil

from maft_lib import gallery
from maft_lib.config import ConfigError, places
from maft_lib.profiles import NOTEBOOKS, load_config
from maft_lib.store.files import explained
from maft_lib.workers import default_num_workers, may_have_gpu

# A kernel says nothing of its own, not even of the interrupt or the shutdown that ends it
QUIET = [
    "--IPKernelApp.log_level=50",
    '--IPKernelApp.exec_lines=__import__("logging").getLogger("asyncio").setLevel(50)',
]
# Whose runs a notebook takes from the store: it begins when those are finished.
AFTER = {
    "03_3_quantitative_results": "02_3_multiagent_finetuning",
    "03_4_multiple_iterations": "03_3_quantitative_results",
    "04_1_ablations": "03_3_quantitative_results",
    "04_2_diversity": "03_4_multiple_iterations",
    "04_3_zero_shot": "03_3_quantitative_results",
    "C_diversity_metrics": "04_2_diversity",
    "D_cooperative": "03_3_quantitative_results",
    "E_additional_comparisons": "03_4_multiple_iterations",
    "G_specialization_model": "03_4_multiple_iterations",
    "H_additional_evaluations": "03_3_quantitative_results",
    "R_reviewers_questions": "04_1_ablations",
    "S_cost_and_speed": "03_3_quantitative_results",
}


def run_notebooks(
    profile: str, names: Sequence[str] = NOTEBOOKS, num_jobs: int | None = None
) -> dict[str, float]:
    """Executes notebooks with a profile (a name or a path); returns the seconds that each took.

    Up to `num_jobs` run at a time (None: 2 on a CPU, 1 on a GPU, which holds one model). Prints a line
    when one begins and when it ends. The contact sheet is written at the end,
    of what there is if one fails. Raises `ConfigError` for an unknown profile or notebook, `StoreError`
    if the folder of runs cannot be used, papermill's `PapermillExecutionError` at the first that fails
    (what runs beside it is finished), nbclient's `DeadKernelError` if it is killed, and `OSError`.
    """
    config = load_config(profile)
    if len(set(names)) < len(names) or (num_jobs is not None and num_jobs < 1):
        raise ConfigError(f"names, num_jobs: each of {names} runs once, at least one at a time.")
    for name in names:  # wrong ones are refused now
        load_config(profile, notebook=name)
    executed = config.own("runs_dir") / "notebooks"
    with explained(executed):
        executed.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    waiting, running, numbers = list(names), dict[Future[float], str](), count()
    on_cpu = config.device == "cpu" or (config.device == "auto" and not may_have_gpu())
    num_jobs = min(num_jobs or (min(2, default_num_workers()) if on_cpu else 1), len(names))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

    def keep_to_a_share() -> None:  # this thread, and so the kernels that it starts
        if cores:
            os.sched_setaffinity(0, cores[next(numbers) :: num_jobs])

    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    pool = ThreadPoolExecutor(num_jobs, initializer=keep_to_a_share)
    with pool:
        try:
            while waiting or running:
                unfinished = {*waiting, *running.values()}
                ready = [name for name in waiting if AFTER.get(name) not in unfinished]
                for name in ready[: num_jobs - len(running)]:
                    waiting.remove(name)
                    print(f"{name} begins", flush=True)
                    running[pool.submit(_execute, profile, executed / f"{name}.ipynb")] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if future.exception():
                        print(f"{name} has failed, see {executed / name}.ipynb", flush=True)
                    seconds[name] = future.result()
                    print(f"[{len(seconds)}/{len(names)}] {name} {seconds[name]:.0f} s", flush=True)
        except KeyboardInterrupt:
            for process in psutil.Process().children(recursive=True):  # kernels, so that threads end
                process.kill()
            raise
        finally:
            wait(running)
            gallery.write_gallery(config)
    return seconds


def _execute(profile: str, executed: Path) -> float:
    """Runs a notebook and returns its seconds; its copy is kept whether it fails or not."""
    start = time.perf_counter()
    papermill.execute_notebook(
        places(f"notebooks/{executed.name}")[0],
        executed,
        parameters={"profile": profile},
        kernel_name="python3",
        progress_bar=False,
        extra_arguments=QUIET,
    )
    return time.perf_counter() - start
