"""Bad arguments of public functions and of the command lines, and files of our own that are damaged.

A call is given `case`: a config, a finished `result`, an empty folder `tmp`.
"""

import json

import maft_lib as maft
from maft_lib import notebooks, report
from maft_lib.config import ConfigError
from maft_lib.exports import ExportError
from maft_lib.prompts import PromptError, load_prompts
from maft_lib.report import ReportError
from maft_lib.store.files import StoreError
from maft_lib.tasks.problem import DataError


def file(case, name="file", data=b""):
    """A file in the case's folder."""
    path = case.tmp / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def executed(case, data):
    """The config of a profile with one executed copy of a notebook, which holds `data`."""
    file(case, "runs/smoke/notebooks/00_quickstart.ipynb", data)
    return case.config.replace(runs_dir=str(case.tmp / "runs"))


def copied(case):
    """The config of a profile with one notebook that has been executed."""
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [], "source": "1"}
    timed = {"start_time": "2025-03-01T12:34:00+00:00", "end_time": None}
    whole = {"cells": [cell], "metadata": {"papermill": timed}, "nbformat": 4, "nbformat_minor": 5}
    return executed(case, json.dumps(whole).encode())


NOWHERE = "/nowhere/model"
ROWS = {
    "a study of no method": (
        ConfigError,
        lambda case: maft.run_study("debates", "arithmetic", case.config),
        ["unknown method 'debates'", "did you mean 'debate'"],
    ),
    "a study of no task": (
        DataError,
        lambda case: maft.run_study("base", "algebra", case.config),
        ["unknown task 'algebra'"],
    ),
    "a study without prompts": (
        PromptError,
        lambda case: maft.run_study("base", "arithmetic", case.config.replace(prompts="gone.yml")),
        ["gone.yml cannot be read", "No such file"],
    ),
    "a study without data": (
        DataError,
        lambda case: maft.run_study("base", "gsm", case.config.replace(data_dir=str(case.tmp))),
        ["gsm needs gsm8k_train.jsonl", "data_dir"],
    ),
    "an estimate of no method": (
        ConfigError,
        lambda case: maft.estimate(case.config, "multiagent"),
        ["unknown method 'multiagent'"],
    ),
    "an unknown change": (
        ConfigError,
        lambda case: case.config.replace(num_agent=3),
        ["unknown parameter 'num_agent'"],
    ),
    "a change out of bounds": (
        ConfigError,
        lambda case: case.config.replace(num_iterations=0),
        ["num_iterations", "greater than or equal to 1"],
    ),
    "the config of no notebook": (
        ConfigError,
        lambda case: maft.load_config("smoke", notebook="F_agents"),
        ["unknown notebook 'F_agents'", "'F_more_agents'"],
    ),
    "an answer to no task": (
        DataError,
        lambda case: maft.extract_answer("5", "maths"),
        ["unknown task 'maths'", "did you mean 'math'"],
    ),
    "equality in no task": (
        DataError,
        lambda case: maft.is_equivalent("5", "5", "algebra"),
        ["unknown task 'algebra'", "expected one of"],
    ),
    "a vote on no task": (
        DataError,
        lambda case: maft.majority_vote(["5", "5"], "gsm9k", 0),
        ["unknown task 'gsm9k'", "did you mean 'gsm8k'"],
    ),
    "prompts of nobody's home": (
        PromptError,
        lambda case: load_prompts("~nobody-here/mine.yml"),
        ["cannot be read"],
    ),
    "runs in a file": (
        StoreError,
        lambda case: maft.open_backend(case.config.replace(runs_dir=str(file(case)))),
        ["cannot be used", "runs_dir"],
    ),
    "a store that is none": (
        StoreError,
        lambda case: maft.verify(case.tmp),
        ["completions.sqlite", "runs_dir"],
    ),
    "notebooks of no profile": (
        ConfigError,
        lambda case: notebooks.run_notebooks("smok"),
        ["unknown profile 'smok'"],
    ),
    "no notebook at a time": (
        ConfigError,
        lambda case: notebooks.run_notebooks("smoke", ["00_quickstart"], 0),
        ["num_jobs", "at least one"],
    ),
    # Reports
    "a report of nothing": (
        ReportError,
        lambda case: report.write_report(case.config),
        ["no notebook of the profile smoke", "make figures"],
    ),
    "a report where a file is": (
        StoreError,
        lambda case: (file(case, "runs/smoke/report"), report.write_report(copied(case))),
        ["cannot be used", "runs_dir"],
    ),
    **{
        f"a report of {name}": (
            ReportError,
            lambda case, data=data: report.write_report(executed(case, data)),
            ["no notebook of the profile smoke"],
        )
        for name, data in {
            "half a copy": b'{"cells": [',
            "an empty copy": b"",
            "a copy that is a list": b"[]",
            "a copy without cells": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
            "a copy of another format": b'{"nbformat": 99}',
            "a copy that is binary": b"\x80\x04\x95",
        }.items()
    },
    # Exports
    "exporting over something": (
        ExportError,
        lambda case: maft.export(case.result, file(case).parent),
        ["holds something already", "new folder"],
    ),
    "exporting below a file": (
        ExportError,
        lambda case: maft.export(case.result, file(case) / "new"),
        ["cannot be written", "name another folder"],
    ),
    "an iteration that never was": (
        ExportError,
        lambda case: maft.export(case.result, case.tmp / "new", iterations=[7]),
        ["iterations", "[0]"],
    ),
}

# (arguments of `maft`, words of what it says on stderr); the exit code is 2
COMMANDS = {
    "figures of a misspelt profile": (["figures", "--profile", "lapto"], ["did you mean 'laptop'"]),
    "figures of a missing file": (["figures", "--profile", "nowhere.yml"], ["nowhere.yml"]),
    "no such notebook": (["figures", "03_5"], ["unknown notebook, figure or table '03_5'"]),
    "no such figure": (["figures", "fig00"], ["did you mean 'fig"]),
    "a notebook's file": (["figures", "00_quickstart.ipynb"], ["did you mean '00_quickstart'"]),
    "no notebook at a time": (["figures", "00_quickstart", "--jobs", "0"], ["--jobs"]),
    "jobs in words": (["figures", "--jobs", "two"], ["--jobs", "integer"]),
    "an unknown option": (["figures", "--fast"], ["No such option", "--fast"]),
    "an unknown command": (["figure"], ["No such command", "figure"]),
    "a report of a misspelt profile": (["report", "smok"], ["did you mean 'smoke'"]),
    "a report before any run": (["report", "smoke"], ["no notebook of the profile smoke"]),
    "a report with too many folders": (
        ["report", "smoke", "a"],
        ["unexpected extra argument"],
    ),
    "an estimate of no profile": (["estimate", "phi"], ["did you mean 'phi3'"]),
    "a doctor for no profile": (["doctor", "phi"], ["did you mean 'phi3'"]),
}
