"""The command `maft`: figures and tables, what they cost, what they still need, and JupyterLab."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

import maft_lib as maft
from maft_lib import gallery
from maft_lib.config import COPIES, Config, ConfigError, places, project_root
from maft_lib.notebooks import run_notebooks
from maft_lib.profiles import NOTEBOOKS, load_config
from maft_lib.setup_cell import missing_models, missing_packages, studies_of
from maft_lib.store.files import size
from maft_lib.tasks import PUBLISHED, load_problems
from maft_lib.wording import nearest

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
GIB = 2**30
UsageError: Any = typer.BadParameter.__base__  # typer exports no other of its errors
NAMED = "A file of params/, by its name or its path."
Profile = Annotated[str, typer.Argument(help=NAMED)]


@app.callback()
def _about() -> None:
    """Multiagent finetuning: figures and tables, what they cost, what they need, and JupyterLab."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> int:
    """Open JupyterLab at the quickstart; other options, as --no-browser, are JupyterLab's."""
    from jupyterlab.labapp import LabApp

    root = project_root()
    copies = root / COPIES
    copies.mkdir(exist_ok=True)
    for notebook in places("notebooks")[0].glob("*.ipynb"):
        if not (copies / notebook.name).exists():
            shutil.copyfile(notebook, copies / notebook.name)
    print(f"The notebooks are copied to {copies}; one that you delete is made again.", flush=True)
    options = {
        "ServerApp.root_dir": root,
        "LabApp.default_url": f"/lab/tree/{COPIES}/{NOTEBOOKS[1]}.ipynb",
        "KernelManager.transport_encryption": "auto",  # else each kernel warns
        "LanguageServerManager.autodetect": False,  # which lists twenty that are not installed
    }
    LabApp.launch_instance([*(f"--{name}={value}" for name, value in options.items()), *context.args])
    return 0


@app.command()
def figures(
    wanted: Annotated[
        list[str] | None, typer.Argument(help="Such as fig01, table01 or 03_3_quantitative_results.")
    ] = None,
    profile: Annotated[str, typer.Option(help=NAMED)] = "laptop",
    jobs: Annotated[int | None, typer.Option(min=1, help="Notebooks that run at a time.")] = None,
) -> int:
    """Run the notebooks that make figures and tables: all of them, or those of what is named."""
    names, config = list(dict.fromkeys(map(maker, wanted or NOTEBOOKS))), load_config(profile)
    copies = config.own("runs_dir") / "notebooks"
    print(f"{len(names)} notebooks with the profile {config.profile}, copies in {copies}", flush=True)
    configs = {name: load_config(profile, notebook=name) for name in names}
    expected = maft.estimate([s for name in names for s in studies_of(name, configs[name])])
    print(f"expected, if nothing of it is in the store: {expected.headline}", flush=True)
    run_notebooks(profile, names, jobs)
    made = {path.stem for path in config.figures.iterdir() if path.suffix in gallery.FORMATS}
    sheet = config.figures / gallery.SHEET
    print(f"{len(names)} notebooks are finished; {len(made)} figures and tables are on {sheet}")
    return 0


def maker(wanted: str) -> str:
    """The notebook of this name, or the one that saves the figure or table of this name."""
    makers = {name: name for name in NOTEBOOKS}
    for path in () if wanted in makers else places("notebooks")[0].glob("*.ipynb"):
        saved = re.findall(r'\\"((?:fig|table)\w+)\\"', path.read_text(encoding="utf-8"))
        makers |= dict.fromkeys(saved, path.stem)
    if wanted not in makers:
        near = nearest(wanted, makers)
        hint = f"did you mean {near!r}?" if near else "README.md lists what each notebook makes."
        raise ConfigError(f"unknown notebook, figure or table {wanted!r:.80}: {hint}")
    return makers[wanted]


@app.command()
def status(profile: Profile = "laptop") -> int:
    """Say which notebooks are done, running or failed, and how large the store is."""
    config = load_config(profile)
    outcomes = {run["name"]: run["outcome"] for run in gallery.read_runs(config)}
    for name in NOTEBOOKS:
        print(f"{name:27} {outcomes.get(name, 'has not been executed')}")
    runs = config.path(config.runs_dir)
    print(f"{runs}: {size(runs) / GIB:.2f} GiB, shared by all profiles")
    return 0


@app.command("estimate")
def say_estimate(
    profile: Profile = "laptop",
    notebook: Annotated[str | None, typer.Option(help="All that this one runs.")] = None,
) -> int:
    """Say what one study of a profile, or a notebook, takes: requests, memory, disk and time."""
    config = load_config(profile, notebook=notebook)
    print(maft.estimate(studies_of(notebook, config) if notebook else config))
    return 0


@app.command()
def doctor(profile: Profile = "laptop") -> int:
    """Say what a profile needs that this machine lacks, and the command that helps."""
    lacking = list(_lacking(load_config(profile)))
    print("\n".join(lacking) or f"{profile}: nothing is missing.")
    return int(bool(lacking))


def _lacking(config: Config) -> Iterator[str]:
    """A sentence for each thing that a profile needs and that is not here."""
    from maft_lib.backends.hub import resolve_device  # imports transformers, which figures need not

    yield from missing_packages(config)
    yield from missing_models(config)
    if config.backend == "openai" and not os.environ.get("OPENAI_API_KEY"):
        yield "backend: openai needs a key: export OPENAI_API_KEY=..."
    for task in dict.fromkeys([config.task, *config.tasks, config.eval_task or config.task]):
        try:
            if task in PUBLISHED:
                load_problems(task, "eval", 1, data_dir=config.data_dir)
        except ValueError as error:
            yield str(error)
    try:
        resolve_device(config.device)
    except RuntimeError as error:
        yield str(error)
    yield from maft.estimate(config).refusals()


@app.command()
def report(profile: Profile = "laptop") -> int:
    """Turn the executed notebooks of a profile into a site that needs no network."""
    print(f"{maft.write_report(load_config(profile))}: open it in a browser.")
    return 0


@app.command()
def clean(
    profile: Profile = "laptop", yes: Annotated[bool, typer.Option(help="Do not ask.")] = False
) -> int:
    """Remove the store and the executed notebooks of all profiles; figures and tables stay."""
    config = load_config(profile)
    runs = config.path(config.runs_dir)
    if not runs.is_dir():
        print(f"{runs} is not there.")
    elif yes or typer.confirm(f"Remove {runs} ({size(runs) / GIB:.2f} GiB)?"):
        shutil.rmtree(runs)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for name in ("papermill", "huggingface_hub"):  # which tell of each cell, and of each try
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return app(arguments, standalone_mode=False) or 0
    except UsageError as error:
        error.show()
        return error.exit_code
    except PapermillExecutionError as error:
        said, code = f"failed\n{error.ename}: {error.evalue}", 1
    except (KeyboardInterrupt, typer.Abort):
        said, code = "interrupted: finished work is kept; run it again.", 130
    except (OSError, DeadKernelError) as error:
        said, code = f"failed\n{error} Mend that and run it again: finished work is kept.", 1
    except Exception as error:
        if not type(error).__module__.startswith("maft_lib."):
            raise
        said, code = f"error: {error}", 2
    print(said, file=sys.stderr)
    return code
