"""Runs the notebooks in order through papermill: what `make figures` does.

    python -m maft_lib.notebooks laptop

Executed copies go to runs/<profile>/notebooks/, figures and tables to figures/<profile>/. A notebook
that fails stops the run with a non-zero exit code; what is finished is kept, and running the command
again goes on from the store.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from maft_lib.config import NOTEBOOKS, ConfigError, load_config, project_root


def run_notebooks(profile: str, names: Sequence[str] = NOTEBOOKS) -> dict[str, float]:
    """Executes notebooks with a profile (a name or a path); returns the seconds that each took.

    Prints a line per notebook. Raises `ConfigError` for an unknown profile or notebook and
    papermill's `PapermillExecutionError` at the first that fails.
    """
    config = load_config(profile)
    for name in names:
        load_config(profile, notebook=name)  # what is wrong is said now, not hours later
    source = project_root() / "notebooks"
    executed = config.path(config.runs_dir) / config.profile / "notebooks"
    executed.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name} ...", end=" ", flush=True)
        start = time.perf_counter()
        papermill.execute_notebook(
            source / f"{name}.ipynb",
            executed / f"{name}.ipynb",
            parameters={"profile": profile},
            kernel_name="python3",
            cwd=source,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=50"],  # not the interrupt that ends it either
        )
        seconds[name] = time.perf_counter() - start
        print(f"{seconds[name]:.0f} s", flush=True)
    return seconds


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
    made = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(
        f"{len(seconds)} notebooks in {sum(seconds.values()):.0f} s. {os.path.relpath(folder)}: {made}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
