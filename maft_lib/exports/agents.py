"""The checkpoints of an exported study: which there are, where each goes, and how it gets there.

Agents that share a model share a folder, named after the first of them. Knows no data and no scores.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from maft_lib.backends import hub
from maft_lib.backends.openai import MODEL_FILE
from maft_lib.config import Config
from maft_lib.exports.layout import BASE_MODEL, ExportError, agent_folder
from maft_lib.society import Agent, Society
from maft_lib.store.checkpoints import ADAPTER, BASE, LOG, MODEL_FILES
from maft_lib.study import Result
from maft_lib.training.finetuning import training_log

FILES = (*MODEL_FILES, "*.safetensors.index.json", LOG, MODEL_FILE)
WITH_BASE = ("README.md", "LICENSE*", "NOTICE*")  # a copy of a model keeps its card and its terms


class Checkpoint(NamedTuple):
    """A finetuned model: where it is, where it goes, and who uses it from when on."""

    source: Path
    folder: str
    society: int  # the first that it is in, by its place in `result.societies`
    iteration: int
    agents: tuple[str, ...]


def config_of(result: Result) -> Config:
    """The parameters of a result. Raises `ExportError` for one that was put together without."""
    if result.config is None:
        raise ExportError("the result has no config, which cards need: export what run_study returns.")
    return result.config


def iterations_of(result: Result) -> list[int]:
    """How many iterations of finetuning each society of a result has behind it."""
    return [int(iteration) for iteration in result.frame.iteration.unique()]


def members(society: Society) -> tuple[Agent, ...]:
    """All agents of a society."""
    return (*society.generators, *society.critics, society.summarizer)


def checkpoints(result: Result) -> dict[str, Checkpoint]:
    """The finetuned models of a result that are folders, by their names in it, in order.

    Raises `ExportError` if one is gone.
    """
    found: dict[str, Checkpoint] = {}
    config = config_of(result)
    for place, (iteration, society) in enumerate(zip(iterations_of(result), result.societies)):
        for agent in members(society):
            if agent.model not in found and is_finetuned(agent, config):
                users = tuple(other.name for other in members(society) if other.model == agent.model)
                folder = agent_folder(iteration, agent.name)
                found[agent.model] = Checkpoint(Path(agent.model), folder, place, iteration, users)
    return found


def is_finetuned(agent: Agent, config: Config) -> bool:
    """Whether an agent's model is a checkpoint of the run. Raises `ExportError` if it is gone."""
    if agent.model == config.base_model:
        return False
    if Path(agent.model).is_absolute() and not Path(agent.model).is_dir():
        raise ExportError(
            f"the model of {agent.name} is no longer at {agent.model}: run the study again, which "
            "trains what is missing, and export that."
        )
    return bool(training_log(agent.model))


def public_name(name: str) -> str:
    """A model's name without the place it has on this machine."""
    return Path(name).name if Path(name).expanduser().is_absolute() else name


def is_named(config: Config) -> bool:
    """Whether others can get the base model by its name: from the hub or from a server."""
    on_hub = not Path(config.base_model).exists() and config.base_model.count("/") == 1
    return on_hub or config.backend == "openai"


def chosen(result: Result, wanted: Collection[int] | None) -> list[Checkpoint]:
    """The checkpoints of the wanted iterations, None standing for all.

    Raises `ExportError` for an iteration that the run does not have.
    """
    known = iterations_of(result)
    if wanted is not None and not isinstance(wanted, Collection):
        raise ExportError(f"iterations is {wanted!r}: give a list of iterations, such as [1].")
    for iteration in wanted or ():
        if type(iteration) is not int or iteration not in known:
            there = ", ".join(map(str, known))
            raise ExportError(f"iterations: the run has no iteration {iteration!r}, only {there}.")
    models = {
        agent.model
        for iteration, society in zip(known, result.societies)
        if wanted is None or iteration in wanted
        for agent in members(society)
    }
    return [checkpoint for model, checkpoint in checkpoints(result).items() if model in models]


def write_agents(selected: Collection[Checkpoint], config: Config, folder: Path) -> None:
    """Copies checkpoints, and the base model if nobody could get it elsewhere."""
    named = is_named(config)
    if selected and not named:
        copy_files(hub.model_folder(config.base_model), folder / BASE_MODEL, (*FILES, *WITH_BASE))
    for checkpoint in selected:
        target = folder / checkpoint.folder
        copy_files(checkpoint.source, target, FILES)
        if (target / ADAPTER).is_file():
            _name_base(target, config.model_name_or_path if named else folder / BASE_MODEL)


def copy_files(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    """Copies what a model is made of, and nothing that a trainer may have left beside it."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns):
            shutil.copyfile(path, target / path.name)


def _name_base(adapter: Path, base: Path | str) -> None:
    """Says of a copied adapter where its base is now: for this library and for peft.

    peft takes a relative path from the working directory, so that is the export's root.
    """
    identity = json.loads((adapter / BASE).read_text())["identity"]
    if isinstance(base, Path):
        named = {"folder": os.path.relpath(base, adapter), "identity": identity}
    else:
        named = {"name": base, "identity": identity}
    (adapter / BASE).write_text(json.dumps(named) + "\n")
    settings = json.loads((adapter / ADAPTER).read_text())
    settings["base_model_name_or_path"] = BASE_MODEL if isinstance(base, Path) else base
    (adapter / ADAPTER).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
