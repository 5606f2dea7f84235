"""A finished study as a folder that others can read or push to a hub.

README.md                 the card, by which `load_dataset` finds the data, too
study.json                method, task, parameters, and which folder is which agent after each iteration
scores.parquet            and costs.parquet: the frames of the result
debates/iteration-l.jsonl the eval debates after iteration l, as `Debate.from_dict` reads them
data/iteration-l/         JSON lines in chat format: what made the agents of iteration l
agents/iteration-l/       <agent>/: the models; agents/base/: theirs, if it is a folder
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

import maft_lib
from maft_lib import metrics
from maft_lib.methods import METHODS
from maft_lib.society import Society
from maft_lib.store.files import ADAPTER, BASE, LOG, MODEL_FILES
from maft_lib.study import Result
from maft_lib.training.data import AgentData

# Parameters that say where things are on this machine, or what its user allows
PLACES = {
    *("profile", "runs_dir", "figures_dir", "data_dir", "notebooks", "prompts"),
    *("executor", "ray_address", "report_to", "trust_remote_code"),
}
COPIED = (*MODEL_FILES, LOG, "openai.json", "*.index.json", "README.md", "LICENSE*", "NOTICE*")
BASE_FOLDER = "agents/base"
CARD = Path(__file__).with_name("export_card.md")


class ExportError(ValueError):
    """A study cannot be exported; the message says why and what to do."""


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
            _write(result, dict(zip(known, societies)), new)
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
        for agent in society.agents:
            if agent.model != base and not os.path.isdir(agent.model):
                raise ExportError(
                    f"the model of {agent.name} is not at {agent.model}: run the study again."
                )
            model = places.setdefault(agent.model, f"agents/iteration-{iteration}/{agent.name}")
            if not (folder / model).resolve().is_relative_to(folder.resolve()):
                raise ExportError(f"{agent.name} is no name of a folder: give the agent another.")
            if iteration in wanted and os.path.isdir(agent.model) and not (folder / model).exists():
                _copy_model(Path(agent.model), folder / model, places[base])

    def moved(society: Society) -> Society:
        agents = [replace(agent, model=places[agent.model]) for agent in society.agents]
        num = len(society.generators)
        return Society(tuple(agents[:num]), tuple(agents[num:-1]), agents[-1])

    return list(map(moved, result.societies))


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


def _write(result: Result, societies: dict[int, Society], folder: Path) -> None:
    config: Any = result.config
    values = {name: value for name, value in config if name not in PLACES}
    for name in ("model_name_or_path", "scorer", "encoder"):
        values[name] = values[name] and _public(values[name])
    about: dict[str, Any] = {"method": result.method, "task": result.task, "note": result.note}
    about |= {"parameters": values, "version": maft_lib.__version__}
    about["societies"] = {number: asdict(society) for number, society in societies.items()}
    (folder / "study.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if config.prompts:
        shutil.copyfile(config.path(config.prompts), folder / "prompts.yml")
    scores = result.frame.assign(model=result.frame.model.map(_public))
    scores.to_parquet(folder / "scores.parquet", index=False)
    result.costs.to_parquet(folder / "costs.parquet", index=False)
    for number, debates in zip(societies, result.evaluations):
        path = folder / "debates" / f"iteration-{number}.jsonl"
        _write_lines(path, (debate.to_dict() for debate in debates))
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
            if rows:  # `load_dataset` cannot read an empty file
                path = folder / f"data/iteration-{number}" / f"{kind}.jsonl"
                _write_lines(path, rows)
                files[f"iteration-{number}-{kind}"] = path.relative_to(folder).as_posix()
    _write_card(result, values, files, folder)


def _write_lines(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


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
