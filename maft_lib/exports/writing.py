"""Writes a finished study into a folder: everything beside its place first, then renamed into it.

Knows the order of things; what a part holds is said by the modules of that part.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import maft_lib
from maft_lib.arguments import as_path, check_flag
from maft_lib.config import Config
from maft_lib.debate import save_debates
from maft_lib.exports import layout
from maft_lib.exports.agents import (
    Checkpoint,
    checkpoints,
    chosen,
    config_of,
    iterations_of,
    public_name,
    write_agents,
)
from maft_lib.exports.cards import write_cards
from maft_lib.exports.layout import ExportError
from maft_lib.exports.lessons import datasets_of, write_datasets
from maft_lib.prompts import DEFAULT
from maft_lib.society import Agent, Society
from maft_lib.study import Result
from maft_lib.training.data import AgentData


def export(
    result: Result,
    folder: str | Path,
    agents: bool = True,
    iterations: Collection[int] | None = None,
) -> Path:
    """Writes a finished study into a new folder and returns it; `exports` says what is in there.

    `agents=False` leaves out the checkpoints, which are most of it; `iterations` names those after
    which agents are wanted (None: all). Full models are copied, adapters are told where their base
    is. The same result gives the same bytes. Raises `ExportError` if the folder holds something, if
    a checkpoint is gone, or if the disk says no; then nothing is left of it.
    """
    if not isinstance(result, Result):
        raise ExportError(
            f"there is no result in a {type(result).__name__}: give what run_study returns."
        )
    check_flag("agents", agents)
    place = Path(os.path.expanduser(as_path("folder", folder))).resolve()
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise ExportError(f"{folder} holds something already: export into a new folder.")
    selected = chosen(result, iterations) if agents else []
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.new-", dir=place.parent) as beside:
            new = Path(beside) / place.name  # a folder of its own: the one around it is private
            new.mkdir()
            _write(result, selected, new)
            new.rename(place)
    except OSError as error:
        raise ExportError(
            f"{folder} cannot be exported ({error.strerror}: {error.filename}): nothing of it is left, "
            "so free some space or name another folder and export again."
        ) from error
    return Path(folder)


def _write(result: Result, selected: list[Checkpoint], folder: Path) -> None:
    """All parts, the sums last."""
    config, datasets = config_of(result), datasets_of(result)
    _write_config(config, folder)
    _write_frames(result, folder)
    _write_debates(result, folder)
    write_datasets(datasets, folder / layout.DATASETS)
    write_agents(selected, config, folder)
    _write_json(_about(result), folder / layout.RESULT)
    write_cards(result, datasets, selected, folder)
    layout.write_sums(folder)


def _write_config(config: Config, folder: Path) -> None:
    """The parameters as a params file, and the prompts."""
    values = {name: value for name, value in config if name not in layout.PLACES}
    for name in ("model_name_or_path", "scorer", "encoder"):
        values[name] = values[name] and public_name(values[name])
    values["prompts"] = layout.PROMPTS if config.prompts else None
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (folder / layout.CONFIG).write_text(f"# profile {config.profile}\n{text}", encoding="utf-8")
    source = config.path(config.prompts) if config.prompts else DEFAULT
    shutil.copyfile(source, folder / layout.PROMPTS)


def _write_frames(result: Result, folder: Path) -> None:
    """Scores and costs; text is quoted, so that nothing in an answer ends a cell."""
    scores = result.frame.assign(model=result.frame.model.map(public_name))
    for frame, name in ((scores, layout.SCORES), (result.costs, layout.COSTS)):
        frame.to_csv(
            folder / name,
            index=False,
            quoting=csv.QUOTE_NONNUMERIC,
            lineterminator="\n",
            encoding="utf-8",
        )


def _write_debates(result: Result, folder: Path) -> None:
    evaluated = zip(iterations_of(result), result.evaluations)
    parts = [(number, "eval", debates) for number, debates in evaluated]
    parts += [(number, "train", debates) for number, debates in enumerate(result.training, start=1)]
    for number, split, debates in parts:
        path = folder / layout.debates_file(number, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_debates(debates, path)


def _about(result: Result) -> dict[str, Any]:
    """What `load_export` needs beside the files: who was who, and the types of the frames' columns."""
    config = config_of(result)
    folders = {model: checkpoint.folder for model, checkpoint in checkpoints(result).items()}
    return {
        "maft_lib": maft_lib.__version__,
        "profile": config.profile,
        "method": result.method,
        "task": result.task,
        "note": result.note,
        "train_ids": result.train_ids,
        "eval_ids": result.eval_ids,
        "iterations": iterations_of(result),
        "societies": [_society(society, folders, config) for society in result.societies],
        "num_training": len(result.training),
        "data": [len(part) if _is_of_agents(part) else None for part in result.data],
        "dtypes": {
            layout.SCORES: _dtypes(result.frame),
            layout.COSTS: _dtypes(result.costs),
        },
    }


def _is_of_agents(data: list) -> bool:
    return bool(data) and isinstance(data[0], AgentData)


def _dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def _society(society: Society, folders: dict[str, str], config: Config) -> dict[str, Any]:
    return {
        "generators": [_agent(agent, folders, config) for agent in society.generators],
        "critics": [_agent(agent, folders, config) for agent in society.critics],
        "summarizer": _agent(society.summarizer, folders, config),
    }


def _agent(agent: Agent, folders: dict[str, str], config: Config) -> dict[str, str]:
    """An agent with its `folder` in the export or the `model` of a server; neither: the base model."""
    named = {"name": agent.name, "role": agent.role}
    if agent.model in folders:
        return {**named, "folder": folders[agent.model]}
    if agent.model in (config.base_model, config.model_name_or_path) or Path(agent.model).is_dir():
        return named
    return {**named, "model": agent.model}


def _write_json(values: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
