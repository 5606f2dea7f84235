"""Which agents formed a society: small files beside the checkpoints of finetuned agents.

The store finds checkpoints by the hash of their content and does not know whose they are. Here is one
file per finetuned society that a study has evaluated, named by the hash of what it says; paths in it
are relative, so that a folder of runs can be moved. Knows neither how agents are trained nor how they
debate.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maft_lib import checkpoints
from maft_lib.arguments import as_path
from maft_lib.config import project_root
from maft_lib.disk import content_key
from maft_lib.records import read_records, save_record
from maft_lib.society import Agent, Society

FOLDER = "societies"
_KNOWN: dict[str, Any] = {
    "method": str,
    "task": str,
    "seed": int,
    "iteration": int,
    "accuracy": (int, float),
}


@dataclass(frozen=True)
class SavedSociety:
    """A society that a study finetuned, and what is known `about` it.

    `about` has method, task, seed, iteration and accuracy (a share of the eval problems, 0 to 1), often
    model and profile.
    """

    society: Society
    about: dict

    @property
    def label(self) -> str:
        """What it is in one line: "Multiagent FT, arithmetic, seed 0, iteration 2: 71 % (laptop)"."""
        from maft_lib.plots.style import LABELS  # which imports matplotlib

        about = self.about
        method = LABELS.get(about["method"], about["method"]).removesuffix(" (ours)")
        trained_on = f"{about['trained_on']} to " if about.get("trained_on") else ""
        profile = f" ({about['profile']})" if about.get("profile") else ""
        return (
            f"{method}, {trained_on}{about['task']}, seed {about['seed']}, "
            f"iteration {about['iteration']}: {100 * about['accuracy']:.0f} %{profile}"
        )


def save_society(runs_dir: str | Path, society: Society, **about: object) -> Path | None:
    """Writes down a society with finetuned agents; returns the file, None for base agents alone.

    `about` is plain JSON; `list_societies` wants method, task, seed, iteration and accuracy in it. What
    is there already is left as it is. Raises `StoreError` if it cannot be written.
    """
    runs = Path(runs_dir)
    values = {"society": asdict(society), "about": about}
    agents = [agent for part in ("generators", "critics") for agent in values["society"][part]]
    for agent in (*agents, values["society"]["summarizer"]):
        agent["model"] = _portable(agent["model"], runs)
    if not any(agent["model"].startswith(f"{checkpoints.FOLDER}/") for agent in agents):
        return None
    return save_record(runs / FOLDER, values)


def list_societies(runs_dir: str | Path) -> list[SavedSociety]:
    """All finetuned societies whose checkpoints are there, by profile, method, task, seed, iteration.

    Files that are damaged are left out, and one warning says so.
    """
    runs = as_path("runs_dir", runs_dir)
    found, damaged = read_societies(runs)
    if damaged:
        warnings.warn(
            f"{runs / FOLDER}: {len(damaged)} damaged files are left out ({damaged[0].name} for one): "
            "delete them, a study that is run again writes them anew.",
            stacklevel=2,
        )
    there = [saved for saved in found if _has_checkpoints(saved.society)]
    return sorted(there, key=lambda saved: _order(saved.about))


def read_societies(runs: Path) -> tuple[list[SavedSociety], list[Path]]:
    """All that are written down, whether or not their checkpoints are there, and the damaged files."""
    found = []
    records, damaged = read_records(runs / FOLDER)
    for values in records:
        try:
            found.append(_read(values, runs))
        except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
            damaged.append(runs / FOLDER / f"{content_key(values)}.json")
    return found, damaged


def _read(values: dict, runs: Path) -> SavedSociety:
    agents, about = values["society"], values["about"]
    for name, kind in _KNOWN.items():
        if not isinstance(about[name], kind):
            raise TypeError(name)
    generators, critics = (
        tuple(_agent(agent, runs) for agent in agents[role]) for role in ("generators", "critics")
    )
    return SavedSociety(Society(generators, critics, _agent(agents["summarizer"], runs)), about)


def _agent(values: dict, runs: Path) -> Agent:
    return Agent(values["name"], values["role"], _located(values["model"], runs))


def _portable(model: str, runs: Path) -> str:
    """A checkpoint's path from the folder of runs, a shipped model's from the project's root."""
    for root in (runs, project_root()):
        if Path(model).is_absolute() and Path(model).is_relative_to(root):
            return Path(model).relative_to(root).as_posix()
    return model


def _located(model: str, runs: Path) -> str:
    """The inverse of `_portable`, where the folders are now. Raises `ValueError` for one that is not
    in its place: a file from elsewhere must not send anybody through `..` or a link."""
    if model.startswith(f"{checkpoints.FOLDER}/"):
        if (runs / model).resolve().parent != (runs / checkpoints.FOLDER).resolve():
            raise ValueError(f"{model} leads out of {checkpoints.FOLDER}")
        return str(runs / model)
    if ".." in Path(model).parts:
        raise ValueError(f"{model} leads out of its folder")
    folder = project_root() / model
    return str(folder) if folder.is_dir() else model


def _has_checkpoints(society: Society) -> bool:
    agents = (*society.generators, *society.critics, society.summarizer)
    made = [agent.model for agent in agents if Path(agent.model).parent.name == checkpoints.FOLDER]
    return all(map(os.path.isdir, made))


def _order(about: dict) -> tuple:
    named = (str(about.get("profile")), about["method"], about["task"], str(about.get("model")))
    return (*named, about["seed"], about["iteration"])
