"""The profiles of `params/` as configs, and the names in them checked: tasks, methods, notebooks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from maft_lib.config import Config, ConfigError, check_name, places, project_root, read_mapping
from maft_lib.methods import METHODS
from maft_lib.tasks import answer_type, canonical

NOTEBOOKS = (  # in the order of `make figures`
    "Z_miniature_model",
    "00_quickstart",
    "02_1_multiagent_debate",
    "02_3_multiagent_finetuning",
    "03_3_quantitative_results",
    "03_4_multiple_iterations",
    "04_1_ablations",
    "04_2_diversity",
    "04_3_zero_shot",
    "C_diversity_metrics",
    "D_cooperative",
    "E_additional_comparisons",
    "F_more_agents",
    "G_specialization_model",
    "H_additional_evaluations",
    "R_reviewers_questions",
    "S_cost_and_speed",
)
# What the paper did differently in single sections (Section 4.3; Appendices F and H; rebuttal, GSM).
OWN_PARAMETERS: dict[str, dict[str, Any]] = {
    "04_3_zero_shot": {"task": "gsm", "num_eval": 1000},
    "F_more_agents": {"num_agents": 5},
    "H_additional_evaluations": {"tasks": ["math", "mmlu"], "task": "math", "levels": None},
    "R_reviewers_questions": {"task": "gsm", "num_train": 1000, "num_eval": 1000},
}


def load_config(
    profile: str | Path | None = None, /, *, notebook: str | None = None, **overrides: Any
) -> Config:
    """The parameters of a profile: the defaults, then the params file, then `overrides`.

    `profile` is the name of a file of `params/` or a path to a YAML file; None stands for the
    environment variable MAFT_PROFILE, else `laptop`. With `notebook` what the paper (`OWN_PARAMETERS`)
    and the profile (`notebooks`) say for that one comes before the overrides. MAFT_RUNS_DIR names the
    folder of completions and checkpoints where nothing else does. Raises `ConfigError`.
    """
    path = _params_file(str(os.environ.get("MAFT_PROFILE") or "laptop" if profile is None else profile))
    keys = read_mapping(path, "params file", ConfigError)
    if keys.get("profile", path.stem) != path.stem:
        raise ConfigError(f"params file {path} has another `profile`: name it as the file.")
    places = {"runs_dir": folder} if (folder := os.environ.get("MAFT_RUNS_DIR")) else {}
    config = _named(Config.of({**places, **keys, "profile": path.stem, **overrides}))
    if notebook is None:
        return config
    check_name("notebook", notebook, NOTEBOOKS)
    if {key for key, value in keys.items() if value is not None} <= {*overrides, "profile"}:
        # papermill -f gives the whole file: what it says is not said for this notebook
        overrides = {name: value for name, value in overrides.items() if keys.get(name, ...) != value}
    return _named(config.replace(**{**own_parameters(config, notebook), **overrides}))


def own_parameters(config: Config, notebook: str | None) -> dict[str, Any]:
    """What the paper and the profile say for one notebook alone."""
    return OWN_PARAMETERS.get(notebook or "", {}) | config.notebooks.get(notebook or "", {})


def _named(config: Config) -> Config:
    """The config with its names checked; a task with two names has its first (`gsm8k` is `gsm`)."""
    for method in config.methods:
        check_name("method", method, METHODS)
    for notebook, own in config.notebooks.items():
        check_name("notebook", notebook, NOTEBOOKS)
        for key in own:
            check_name(f"parameter of {notebook}", key, Config.model_fields.keys() - {"profile"})
    tasks = (config.task, *config.tasks, config.eval_task or config.task)
    numbers = config.num_eval if isinstance(config.num_eval, dict) else {}
    try:
        for task in (*tasks, *numbers):
            answer_type(task)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    config = config.replace(
        task=canonical(config.task),
        tasks=list(map(canonical, config.tasks)),
        eval_task=config.eval_task and canonical(config.eval_task),
        num_eval={canonical(task): number for task, number in numbers.items()} or config.num_eval,
    )
    for task in map(canonical, tasks):
        config.num_problems("eval", task)
    return config


def _params_file(profile: str) -> Path:
    if profile.endswith((".yml", ".yaml")):
        here = Path(profile).expanduser()
        return here if os.path.exists(here) else project_root() / here
    found = [path for folder in places("params") for path in sorted(folder.glob("*.yml"))]
    files = {path.stem: path for path in reversed(found)}  # one's own before those that come along
    check_name("profile", profile, sorted(files.keys() - {"reported"}))
    return files[profile]
