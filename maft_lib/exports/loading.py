"""Reads what `export` wrote back into a `Result`. Knows no cards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from maft_lib.arguments import as_path
from maft_lib.config import Config, ConfigError
from maft_lib.debate import Debate, load_debates
from maft_lib.exports import layout
from maft_lib.exports.layout import ExportError
from maft_lib.exports.lessons import read_data
from maft_lib.profiles import load_config
from maft_lib.society import Agent, Society
from maft_lib.store.checkpoints import BASE
from maft_lib.study import Result
from maft_lib.wording import one_line


def load_export(folder: str | Path) -> Result:
    """The result that was exported into `folder`, with the same scores, debates, data and costs.

    Its agents' models are the folders of the export. Where the base model is not among them, it is
    the config's: a name on the hub, or a folder that must then be here. Raises `ExportError` if the
    folder is no export or is damaged.
    """
    place = Path(os.path.expanduser(as_path("folder", folder))).resolve()
    layout.check(place)
    try:
        return _result(place)
    except ExportError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigError) else str(error)
        raise ExportError(
            f"{folder} is no export that this version can read ({one_line(why)}): export "
            "the study again, or load it with the version that its README.md names."
        ) from error


def _result(place: Path) -> Result:
    about = json.loads((place / layout.RESULT).read_text(encoding="utf-8"))
    config = _config(place, about["profile"])
    numbers = range(1, about["num_training"] + 1)
    data = [read_data(place / layout.DATASETS, n, num) for n, num in enumerate(about["data"], start=1)]
    return Result(
        method=about["method"],
        task=about["task"],
        frame=_frame(place / layout.SCORES, about),
        societies=[_society(society, place, config) for society in about["societies"]],
        evaluations=[_debates(place, number, "eval") for number in about["iterations"]],
        training=[_debates(place, number, "train") for number in numbers],
        data=data,
        train_ids=tuple(about["train_ids"]),
        eval_ids=tuple(about["eval_ids"]),
        note=about["note"],
        costs=_frame(place / layout.COSTS, about),
        config=config,
    )


def _config(folder: Path, profile: str) -> Config:
    """The parameters, with the export's own prompts and, if there is one, its own base model."""
    config = _own_places(folder).replace(profile=profile)
    if config.prompts:
        config = config.replace(prompts=str(folder / layout.PROMPTS))
    exported = folder / layout.BASE_MODEL
    if exported.is_dir() and not Path(config.base_model).is_dir():
        config = config.replace(model_name_or_path=str(exported))
    return config


def _own_places(folder: Path) -> Config:
    """The exported parameters, if they leave to the user what is the user's."""
    config = load_config(folder / layout.CONFIG)
    taken = sorted((layout.PLACES - {"profile"}) & _keys(folder / layout.CONFIG))
    if taken:
        raise ExportError(
            f"{folder / layout.CONFIG} sets {taken[0]}, which no export does: take that line out, and "
            "set the parameter yourself if you want it."
        )
    return config


def _keys(path: Path) -> set[str]:
    return set(yaml.safe_load(path.read_text(encoding="utf-8")) or ())


def _frame(path: Path, about: dict[str, Any]) -> pd.DataFrame:
    """A frame with the types that it had; no answer is an empty one, so empty cells are missing."""
    types = about["dtypes"][path.name]
    frame = pd.read_csv(
        path, dtype=types, keep_default_na=False, na_values=[""], float_precision="round_trip"
    )
    for name in (name for name, dtype in types.items() if dtype == "object"):
        frame[name] = frame[name].where(frame[name].notna(), None)
    return frame


def _debates(folder: Path, iteration: int, split: str) -> list[Debate]:
    return load_debates(layout.inside(folder, layout.debates_file(iteration, split)))


def _society(values: dict[str, Any], folder: Path, config: Config) -> Society:
    generators, critics = (
        tuple(_agent(agent, folder, config) for agent in values[role])
        for role in ("generators", "critics")
    )
    return Society(generators, critics, _agent(values["summarizer"], folder, config))


def _agent(values: dict[str, str], folder: Path, config: Config) -> Agent:
    exported = folder / layout.BASE_MODEL
    base = str(exported) if exported.is_dir() else config.base_model
    if "folder" not in values:
        model = values.get("model", base)
        if model != base and (os.path.isabs(os.path.expanduser(model)) or ".." in Path(model).parts):
            raise ExportError(
                f"{folder} names the model {model!r:.200}, which is neither in it nor a name on the "
                "hub: ask whoever made it."
            )
        return Agent(values["name"], values["role"], model)
    checkpoint = layout.inside(folder, values["folder"])
    if (checkpoint / BASE).is_file():  # of an adapter: where its base model is, from there
        named = json.loads((checkpoint / BASE).read_text(encoding="utf-8"))
        layout.inside(folder, os.path.join(values["folder"], named.get("folder", "")))
    return Agent(values["name"], values["role"], str(checkpoint))
