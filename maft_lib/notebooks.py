"""Runs the notebooks in order through papermill: what `make figures` does.

    python -m maft_lib.notebooks laptop

On a CPU two run at a time, on Linux each on a half of the cores: while one imports, draws or grades,
the other computes. Those that share runs wait for each other, so nothing is computed twice. Executed
copies go to runs/<profile>/notebooks/, figures and tables to figures/<profile>/, where index.html
shows them all. A notebook that fails stops the run with a non-zero exit code; what is finished is
kept, and running the command again goes on from the store.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import chdir, suppress
from itertools import count
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from maft_lib import gallery
from maft_lib.config import Config, ConfigError, project_root
from maft_lib.profiles import NOTEBOOKS, load_config
from maft_lib.store.files import StoreError, explained
from maft_lib.workers import default_num_workers, may_have_gpu

# Whose runs a notebook takes from the store: it begins when those are finished.
AFTER = {
    "03_3_quantitative_results": ("02_3_multiagent_finetuning",),
    "03_4_multiple_iterations": ("03_3_quantitative_results",),
    "04_1_ablations": ("03_3_quantitative_results",),
    "04_2_diversity": ("03_4_multiple_iterations",),
    "04_3_zero_shot": ("03_3_quantitative_results",),
    "C_diversity_metrics": ("04_2_diversity",),
    "D_cooperative": ("03_3_quantitative_results",),
    "E_additional_comparisons": ("03_4_multiple_iterations",),
    "G_specialization_model": ("03_4_multiple_iterations",),
    "H_additional_evaluations": ("03_3_quantitative_results",),
    "R_reviewers_questions": ("04_1_ablations",),
    "S_cost_and_speed": ("03_3_quantitative_results",),
}


def run_notebooks(
    profile: str, names: Sequence[str] = NOTEBOOKS, num_jobs: int = 1
) -> dict[str, float]:
    """Executes notebooks with a profile (a name or a path); returns the seconds that each took.

    Up to `num_jobs` run at a time. Prints a line per notebook. The contact sheet is written at the end,
    of what there is if one fails. Raises `ConfigError` for an unknown profile or notebook, `StoreError`
    if the folder of runs cannot be used, papermill's `PapermillExecutionError` at the first that fails
    (what runs beside it is finished), nbclient's `DeadKernelError` if it is killed, and `OSError`.
    """
    if os.path.isfile(profile):
        profile = str(Path(profile).resolve())  # notebooks run in their own folder
    config = load_config(profile)
    if len(set(names)) < len(names) or num_jobs < 1:
        raise ConfigError(f"names, --jobs: each of {names} runs once, and at least one at a time.")
    seeds = {name: _seeds(name, profile) for name in names}  # errors are said now, not hours later
    executed = config.own("runs_dir") / "notebooks"
    with explained(executed):
        executed.mkdir(parents=True, exist_ok=True)

    def execute(name: str) -> float:
        start = time.perf_counter()
        _execute(profile, executed / f"{name}.ipynb", config, seeds[name])
        return time.perf_counter() - start

    seconds: dict[str, float] = {}
    try:
        with chdir(project_root() / "notebooks"):
            for name, taken in _side_by_side(execute, names, min(num_jobs, len(names))):
                seconds[name] = taken
                print(f"[{len(seconds)}/{len(names)}] {name} {taken:.0f} s", flush=True)
    finally:
        gallery.write_gallery(config)
    return seconds


def _side_by_side(
    execute: Callable[[str], float], names: Sequence[str], num_jobs: int
) -> Iterator[tuple[str, float]]:
    """Yields (name, seconds) as notebooks finish; the first in the list that is ready begins next."""
    waiting = list(names)
    running: dict[Future[float], str] = {}
    affinity = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if affinity else []
    numbers = count()

    def keep_to_a_share() -> None:  # this thread, and so the kernels that it starts
        if affinity:
            os.sched_setaffinity(0, cores[next(numbers) :: num_jobs])

    with ThreadPoolExecutor(num_jobs, initializer=keep_to_a_share) as pool:
        try:
            while waiting or running:
                unfinished = {*waiting, *running.values()}
                ready = [name for name in waiting if unfinished.isdisjoint(AFTER.get(name, ()))]
                for name in ready[: num_jobs - len(running)]:
                    waiting.remove(name)
                    running[pool.submit(execute, name)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except KeyboardInterrupt:
            for process in psutil.Process().children(recursive=True):  # kernels, so that threads end
                process.kill()
            raise


def _execute(profile: str, executed: Path, config: Config, seeds: list[int]) -> None:
    """Runs a notebook; its executed copy keeps, failed or not, what it wrote and with which seeds."""
    source = project_root() / "notebooks"
    before = _times(config.figures)
    try:
        papermill.execute_notebook(
            source / executed.name,
            executed,
            parameters={"profile": profile},
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=50"],  # not the interrupt that ends it either
        )
    finally:
        with suppress(OSError, ValueError):  # a copy cut short; the error is what ended the notebook
            notebook = nbformat.read(executed, as_version=4)
            if gallery.KEY not in notebook.metadata:  # else an earlier run's: this one never began
                own = "".join(cell.source for cell in notebook.cells)  # beside it others write, too
                written = dict(_times(config.figures).items() - before.items())
                artefacts = {p.name: gallery.digest(p) for p in sorted(written) if p.stem in own}
                kept = {"profile": config.profile, "seeds": seeds, "artefacts": artefacts}
                notebook.metadata[gallery.KEY] = kept
                nbformat.write(notebook, executed)


def _times(folder: Path) -> dict[Path, int]:
    """When the figures and tables of a folder were last written; files of other kinds are left out."""
    return {
        path: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix in gallery.FORMATS
    }


def _seeds(name: str, profile: str) -> list[int]:
    """The seeds of a notebook's study: where it does not ask for `seeds`, it is not repeated."""
    config = load_config(profile, notebook=name)
    text = (project_root() / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    return config.seeds if config.seeds and "config.seeds" in text else [config.seed]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Regenerate every figure and table.")
    parser.add_argument("profile", nargs="?", default="laptop", help="a file of params/")
    parser.add_argument("names", nargs="*", help="only these notebooks, by name")
    parser.add_argument(
        "--jobs", type=int, help="notebooks at a time (default: 2 on a CPU, 1 on a GPU)"
    )
    given = parser.parse_args(arguments)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    start = time.perf_counter()
    try:
        names, config = given.names or NOTEBOOKS, load_config(given.profile)
        on_cpu = config.device == "cpu" or (config.device == "auto" and not may_have_gpu())
        most = min(2, len(names), default_num_workers()) if on_cpu else 1  # a GPU holds one model
        run_notebooks(given.profile, names, most if given.jobs is None else given.jobs)
    except (ConfigError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        print(f"failed\n{error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run again, what is finished is kept.", file=sys.stderr)
        return 130
    except (OSError, DeadKernelError) as error:
        print(f"failed\n{error} Mend that and run again: what is finished is kept.", file=sys.stderr)
        return 1
    folder = config.figures
    made = ", ".join(sorted(path.name for path in folder.iterdir() if path.name != gallery.SHEET))
    where, total = os.path.relpath(folder), time.perf_counter() - start
    sheet = os.path.join(where, gallery.SHEET)
    print(f"{len(names)} notebooks in {total:.0f} s. {where}: {made}. On one page: {sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
