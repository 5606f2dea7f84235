"""Who debates: agents with their roles and models, and the society that they are (Section 2).

Knows no debate, and of a model only its name or folder.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from maft_lib.arguments import check_choice, check_each, check_kind, check_text, check_whole
from maft_lib.config import project_root
from maft_lib.store import checkpoints
from maft_lib.store.files import SOCIETIES, read_records, save_record

ROLES = ("generator", "critic", "summarizer")


@dataclass(frozen=True)
class Agent:
    """A participant: its name, its role (generator, critic or summarizer) and its model."""

    name: str
    role: str
    model: str

    def __post_init__(self) -> None:
        check_text("the name of an agent", self.name)
        check_choice("the role of an agent", self.role, ROLES)  # critics learn at another rate
        check_text("the model of an agent", self.model)


@dataclass(frozen=True)
class Society:
    """The agents of a debate: N generation agents, N critic agents and the summarizer."""

    generators: tuple[Agent, ...]
    critics: tuple[Agent, ...]
    summarizer: Agent

    def __post_init__(self) -> None:
        check_each("generators", self.generators, Agent)
        check_each("critics", self.critics, Agent)
        check_kind("summarizer", self.summarizer, Agent)
        parts = (self.generators, self.critics, (self.summarizer,))
        for part, role in zip(parts, ROLES):
            for agent in part:
                if agent.role != role:
                    raise ValueError(
                        f"agent {agent.name!r} is a {agent.role}, but it has the place of a {role}: "
                        "give it that role, or its own place."
                    )
        if len(self.generators) != len(self.critics):
            raise ValueError(
                f"a society of {len(self.generators)} generation agents and {len(self.critics)} critic "
                "agents: it needs as many critic agents as generation agents."
            )


def base_society(model: str, num_agents: int, summarizer: str | None = None) -> Society:
    """N generation and N critic agents that share one model; so may the summarizer."""
    check_whole("num_agents", num_agents, 1)
    generators = tuple(Agent(f"generation-{n}", "generator", model) for n in _numbers(num_agents))
    critics = tuple(Agent(f"critic-{n}", "critic", model) for n in _numbers(num_agents))
    return Society(generators, critics, Agent("summarizer", "summarizer", summarizer or model))


def _numbers(num_agents: int) -> range:
    return range(1, num_agents + 1)


@dataclass(frozen=True)
class SavedSociety:
    """A society that a study finetuned, and what is known `about` it.

    `about` has method, task, seed, iteration and accuracy (a share of the eval problems, 0 to 1), often
    model and profile.
    """

    society: Society
    about: dict


def save_society(runs_dir: str | Path, society: Society, **about: object) -> Path | None:
    """Writes down a society with finetuned agents; returns the file, None for base agents alone.

    `about` is plain JSON, as in `SavedSociety`. Models are written as paths from `runs_dir` or from the
    project, so that both can be moved. Raises `StoreError` if the file cannot be written.
    """
    runs = Path(runs_dir)
    values = asdict(society)
    agents = [*values["generators"], *values["critics"], values["summarizer"]]
    for agent in agents:
        model = Path(agent["model"])
        for root in (runs, project_root()):
            if model.is_absolute() and model.is_relative_to(root):
                agent["model"] = model.relative_to(root).as_posix()
                break
    if any(agent["model"].startswith(f"{checkpoints.FOLDER}/") for agent in agents):
        return save_record(runs / SOCIETIES, {"society": values, "about": about})
    return None


def list_societies(runs_dir: str | Path) -> list[SavedSociety]:
    """All finetuned societies whose checkpoints are there, by profile, method, task, seed, iteration.

    Files that are damaged are left out, and one warning says so.
    """
    runs, found = Path(runs_dir), []
    folder = runs / SOCIETIES
    records, damaged = read_records(folder)
    for path, values in records.items():
        try:
            saved = _read(values, runs)
            found.append((_order(saved.about), saved))
        except (ValueError, LookupError, TypeError, AttributeError):
            damaged.append(path)
    if damaged:
        warnings.warn(
            f"{folder}: {len(damaged)} damaged files are left out ({damaged[0].name} for one): "
            "delete them, a study that is run again writes them anew.",
            stacklevel=2,
        )
    there = [(order, saved) for order, saved in found if _has_checkpoints(saved.society, runs)]
    return [saved for _, saved in sorted(there, key=lambda entry: entry[0])]


def _read(values: dict, runs: Path) -> SavedSociety:
    society = values["society"]
    generators, critics, (summarizer,) = (
        tuple(Agent(a["name"], a["role"], _located(a["model"], runs)) for a in agents)
        for agents in (society["generators"], society["critics"], [society["summarizer"]])
    )
    return SavedSociety(Society(generators, critics, summarizer), values["about"])


def _order(about: dict) -> tuple:
    named = (str(about.get("profile")), about["method"], about["task"], str(about.get("model")))
    return (*named, about["seed"], about["iteration"])


def _located(model: str, runs: Path) -> str:
    """Where a saved model is now. Raises `ValueError` for a path that leads out of its folder."""
    if model.startswith(f"{checkpoints.FOLDER}/"):
        if (runs / model).resolve().parent != (runs / checkpoints.FOLDER).resolve():
            raise ValueError(f"{model} leads out of {checkpoints.FOLDER}")
        return str(runs / model)
    if ".." in Path(model).parts:
        raise ValueError(f"{model} leads out of its folder")
    folder = project_root() / model
    return str(folder) if folder.is_dir() else model


def _has_checkpoints(society: Society, runs: Path) -> bool:
    agents = (*society.generators, *society.critics, society.summarizer)
    made = (Path(a.model) for a in agents)
    return all(path.is_dir() for path in made if path.parent == runs / checkpoints.FOLDER)
