"""A finished study as a folder that others can read, push to a hub and load again.

README.md                 the card, by which `load_dataset` finds the data, too
study.json                parameters, who was who, all debates, and what was learned from them
scores.parquet            and costs.parquet: the frames of the result
data/iteration-l/         JSON lines in chat format: what made the agents of iteration l
agents/iteration-l/       <agent>/: the models; agents/base/: theirs, if it is a folder
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData
from pydantic import BaseModel, Field

import maft_lib
from maft_lib import metrics
from maft_lib.debate import Debate
from maft_lib.methods import METHODS
from maft_lib.profiles import load_config
from maft_lib.society import Agent, Society
from maft_lib.store.files import ADAPTER, BASE, LOG, MODEL_FILES
from maft_lib.study import Result
from maft_lib.training.data import AgentData, Example
from maft_lib.wording import one_line

# Parameters that belong to a user and a machine: no export sets them, and none that does is loaded.
PLACES = {
    *("profile", "runs_dir", "figures_dir", "data_dir", "notebooks"),
    *("executor", "ray_address", "report_to", "trust_remote_code"),
}
COPIED = (*MODEL_FILES, LOG, "openai.json", "*.index.json", "README.md", "LICENSE*", "NOTICE*")
STUDY, PROMPTS, BASE_FOLDER = "study.json", "prompts.yml", "agents/base"
CARD = Path(__file__).with_name("export_card.md")


class ExportError(ValueError):
    """A study cannot be exported or loaded back; the message says why and what to do."""


class Evidence(BaseModel, extra="forbid"):
    """A result without its frames: what an export says, and the check of what a stranger's says."""

    method: str = Field(pattern=r"^\w+$")
    task: str = Field(pattern=r"^[\w:.-]+$")
    note: str | None
    train_ids: tuple[str, ...]
    eval_ids: tuple[str, ...]
    societies: list[Society] = Field(min_length=1)
    evaluations: list[list[Debate]]
    training: list[list[Debate]]
    data: list[list[AgentData] | list[Example]]
    config: dict[str, Any]


def export(result: Result, folder: str | Path, iterations: Collection[int] | None = None) -> Path:
    """Writes a finished study into a new folder and returns it.

    Models are copied as they are after `iterations` (None: all; []: no models). Raises `ExportError` if
    the folder holds something, if a model is gone, or if the disk refuses; then nothing is left.
    """
    place = Path(folder).expanduser().resolve()
    known = [int(iteration) for iteration in result.frame.iteration.unique()]
    wanted = set(known if iterations is None else iterations)
    if not wanted <= set(known):
        raise ExportError(f"iterations: the run has {known}, not all of {sorted(wanted)}.")
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise ExportError(f"{folder} holds something already: export into a new folder.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.new-", dir=place.parent) as beside:
            new = Path(beside) / place.name
            new.mkdir()
            societies = _copy_models(result, known, wanted, new)
            _write(replace(result, societies=societies), new)
            new.rename(place)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error}; name another folder.") from error
    return place


def _copy_models(result: Result, known: list[int], wanted: set[int], folder: Path) -> list[Society]:
    """Copies the models of the wanted societies; returns all societies with their exported models.

    Agents that share a model share a folder, named after the first of them.
    """
    assert result.config is not None
    base = result.config.base_model
    places = {base: BASE_FOLDER if os.path.isdir(base) else base}
    for iteration, society in zip(known, result.societies):
        for agent in (*society.generators, *society.critics, society.summarizer):
            if agent.model != base and not os.path.isdir(agent.model):
                raise ExportError(
                    f"the model of {agent.name} is not at {agent.model}: run the study again."
                )
            model = places.setdefault(agent.model, f"agents/iteration-{iteration}/{agent.name}")
            target = _inside(folder, folder / model)
            if iteration in wanted and os.path.isdir(agent.model) and not target.exists():
                _copy_model(Path(agent.model), target, places[base])
    return [_with_models(society, lambda agent: places[agent.model]) for society in result.societies]


def _copy_model(source: Path, target: Path, base: str) -> None:
    """Copies what a model is made of; an adapter names its base for this library and, from the export's
    root, for peft."""

    def left_out(_: str, names: list[str]) -> list[str]:
        return [name for name in names if not any(fnmatch(name, kind) for kind in COPIED)]

    shutil.copytree(source, target, ignore=left_out)
    if (target / ADAPTER).is_file():
        (target / "README.md").unlink(missing_ok=True)  # peft's, which names the base's old place
        named = {"folder": "../../base"} if base == BASE_FOLDER else {"name": base}
        for name, values in ((BASE, named), (ADAPTER, {"base_model_name_or_path": base})):
            kept = json.loads((target / name).read_text())
            kept.pop("folder", None)
            (target / name).write_text(json.dumps({**kept, **values}, sort_keys=True) + "\n")


def _with_models(society: Society, model_of: Callable[[Agent], str]) -> Society:
    generators, critics, (summarizer,) = (
        tuple(replace(agent, model=model_of(agent)) for agent in agents)
        for agents in (society.generators, society.critics, (society.summarizer,))
    )
    return Society(generators, critics, summarizer)


def _write(result: Result, folder: Path) -> None:
    config: Any = result.config
    parts = {name: getattr(result, name) for name in Evidence.model_fields}
    values = {name: value for name, value in config if name not in PLACES}
    for name in ("model_name_or_path", "scorer", "encoder"):
        values[name] = values[name] and _public(values[name])
    if config.prompts:
        shutil.copyfile(config.path(config.prompts), folder / PROMPTS)
        values["prompts"] = PROMPTS
    text = Evidence(**{**parts, "config": values}).model_dump_json()
    (folder / STUDY).write_text(text, encoding="utf-8")
    scores = result.frame.assign(model=result.frame.model.map(_public))
    scores.to_parquet(folder / "scores.parquet", index=False)
    result.costs.to_parquet(folder / "costs.parquet", index=False)
    files = {}
    for number, data in enumerate(result.data, start=1):
        kinds: dict[str, Any] = {"shared": [data]}
        if data and isinstance(data[0], AgentData):
            kinds = dict(zip(AgentData._fields, zip(*data)))
        for kind, agents in kinds.items():
            rows = [
                {"agent": n, "problem_id": example.problem_id, "messages": example.messages}
                for n, examples in enumerate(agents, start=1)
                for example in examples
            ]
            path = folder / f"data/iteration-{number}" / f"{kind}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            if rows:  # `load_dataset` cannot read an empty file
                files[f"iteration-{number}-{kind}"] = path.relative_to(folder).as_posix()
    _write_card(result, values, files, folder)


def _public(name: str) -> str:
    """A model's name without its place on this machine."""
    return Path(name).name if Path(name).expanduser().is_absolute() else name


def _write_card(result: Result, values: dict[str, Any], files: dict[str, str], folder: Path) -> None:
    assert result.config is not None
    is_folder, hosted = os.path.isdir(result.config.base_model), values["backend"] == "openai"
    data = ModelCardData(
        base_model=None if is_folder or hosted else values["model_name_or_path"],
        library_name="peft" if values["lora_rank"] else "transformers",
        tags=["multiagent-finetuning", "self-improvement", "debate"],
        configs=[{"config_name": name, "data_files": path} for name, path in files.items()] or None,
    )
    scores = metrics.accuracy(result.frame).drop(columns=["method", "task", "model", "seed"])
    ModelCard.from_template(
        data,
        template_path=str(CARD),
        code=_code,
        version=maft_lib.__version__,
        result=result,
        label=METHODS[result.method].label,
        values=values,
        sources=", ".join(map(str, result.frame.train_source.unique())),
        scores=scores.round(1).astype(object).to_markdown(index=False, disable_numparse=True),
    ).save(folder / "README.md")


def _code(text: str) -> str:
    """A stranger's words as one span of code in Markdown, where they mean nothing."""
    return f"`{' '.join(text.replace('`', ' ').split())}`"


def load_export(folder: str | Path) -> Result:
    """The result that was exported into `folder`; its agents' models are the folders there.

    Raises `ExportError` if it is no export, lacks a part, or reaches out of its folder.
    """
    place = Path(folder).expanduser().resolve()
    try:
        evidence = Evidence.model_validate_json((place / STUDY).read_bytes())
        for path in (place, *place.rglob("*")):
            _inside(place, path)
        if taken := PLACES & set(evidence.config):
            raise ExportError(f"{place / STUDY} sets {min(taken)}, which is yours: take that out.")
        config = load_config(**evidence.config)
        if config.prompts:
            config = config.replace(prompts=str(place / PROMPTS))
        if (place / BASE_FOLDER).is_dir():
            config = config.replace(model_name_or_path=str(place / BASE_FOLDER))
        societies = [_with_models(s, lambda agent: _model(agent, place)) for s in evidence.societies]
        frame, costs = (pd.read_parquet(place / f"{name}.parquet") for name in ("scores", "costs"))
    except ExportError:
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ExportError(
            f"{folder} is no export that this version reads: {one_line(error)}."
        ) from error
    parts = {**dict(evidence), "societies": societies, "config": config}
    return Result(frame=frame, costs=costs, **parts)


def _model(agent: Agent, place: Path) -> str:
    """The folder of an exported model, or a name on the hub or of a server."""
    folder = _inside(place, place / Path(agent.model).expanduser())
    if not agent.model.startswith("agents/"):
        return agent.model
    if (folder / BASE).is_file():
        _inside(place, folder / json.loads((folder / BASE).read_text()).get("folder", ""))
    return str(folder)


def _inside(place: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(place):
        raise ExportError(f"{path} lies outside of the export {place}: copy it with `cp -rL`.")
    return path
