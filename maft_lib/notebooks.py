"""Runs the notebooks in order through papermill: what `make figures` does.

    python -m maft_lib.notebooks laptop

Executed copies go to runs/<profile>/notebooks/, figures and tables to figures/<profile>/, where
index.html shows them all. A notebook that fails stops the run with a non-zero exit code; what is
finished is kept, and running the command again goes on from the store.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from maft_lib import gallery
from maft_lib.config import NOTEBOOKS, Config, ConfigError, load_config, project_root


def run_notebooks(profile: str, names: Sequence[str] = NOTEBOOKS) -> dict[str, float]:
    """Executes notebooks with a profile (a name or a path); returns the seconds that each took.

    Prints a line per notebook. The contact sheet is written at the end, of what there is if one fails.
    Raises `ConfigError` for an unknown profile or notebook, papermill's `PapermillExecutionError` at
    the first that fails, nbclient's `DeadKernelError` if it is killed, and `OSError`.
    """
    config = load_config(profile)
    seeds = {name: _seeds(name, profile) for name in names}  # errors are said now, not hours later
    executed = config.path(config.runs_dir) / config.profile / "notebooks"
    executed.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    try:
        for number, name in enumerate(names, start=1):
            print(f"[{number}/{len(names)}] {name} ...", end=" ", flush=True)
            start = time.perf_counter()
            _execute(profile, executed / f"{name}.ipynb", config, seeds[name])
            seconds[name] = time.perf_counter() - start
            print(f"{seconds[name]:.0f} s", flush=True)
    finally:
        gallery.write_gallery(config)
    return seconds


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
            cwd=source,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=50"],  # not the interrupt that ends it either
        )
    finally:
        with suppress(OSError, ValueError):  # a copy cut short; the error is what ended the notebook
            notebook = nbformat.read(executed, as_version=4)
            if gallery.KEY not in notebook.metadata:  # else an earlier run's: this one never began
                artefacts = _written_since(before, config.figures)
                kept = {"profile": config.profile, "seeds": seeds, "artefacts": artefacts}
                notebook.metadata[gallery.KEY] = kept
                nbformat.write(notebook, executed)


def _times(folder: Path) -> dict[Path, int]:
    """When the figures and tables of a folder were last written; files of other kinds are left out."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in gallery.FORMATS)
    return {path: path.stat().st_mtime_ns for path in paths}


def _written_since(before: dict[Path, int], folder: Path) -> dict[str, str]:
    """Names and digests of what is newer than `before`: by their own times, as a file system's clock
    may be behind ours."""
    times = _times(folder)
    return {path.name: gallery.digest(path) for path in times if times[path] != before.get(path)}


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
    given = parser.parse_args(arguments)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        seconds = run_notebooks(given.profile, given.names or NOTEBOOKS)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        print(f"failed\n{error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    except (OSError, DeadKernelError) as error:
        print(f"failed\n{error} Mend that and run again: what is finished is kept.", file=sys.stderr)
        return 1
    folder = load_config(given.profile).figures
    made = ", ".join(sorted(path.name for path in folder.iterdir() if path.name != gallery.SHEET))
    where, total = os.path.relpath(folder), sum(seconds.values())
    sheet = os.path.join(where, gallery.SHEET)
    print(f"{len(seconds)} notebooks in {total:.0f} s. {where}: {made}. On one page: {sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
