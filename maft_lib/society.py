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
    """Writes down a society with finetuned agents; returns the file, None for base agents alone."""
    values = asdict(society)
    agents = [*values["generators"], *values["critics"], values["summarizer"]]
    for agent in agents:
        for root in (Path(runs_dir), project_root()):  # so that both can be moved
            if Path(agent["model"]).is_relative_to(root):
                agent["model"] = Path(agent["model"]).relative_to(root).as_posix()
    if any(agent["model"].startswith(f"{checkpoints.FOLDER}/") for agent in agents):
        return save_record(Path(runs_dir) / SOCIETIES, {"society": values, "about": about})
    return None


def list_societies(runs_dir: str | Path) -> list[SavedSociety]:
    """All whose checkpoints are there, in the order of profile, method, task, seed and iteration."""
    records, damaged = read_records(Path(runs_dir) / SOCIETIES)
    found = []
    for path, values in records.items():
        try:
            found.append(_read(values, Path(runs_dir)))
        except FileNotFoundError:
            continue
        except (ValueError, LookupError, TypeError):
            damaged.append(path)
    if damaged:
        warnings.warn(f"damaged files are left out: {', '.join(map(str, damaged))}.", stacklevel=2)
    return sorted(found, key=_order)


def _order(saved: SavedSociety) -> tuple:
    names = [str(saved.about.get(name)) for name in ("profile", "method", "task", "model")]
    return *names, saved.about.get("seed", 0), saved.about.get("iteration", 0)


def _read(values: dict, runs: Path) -> SavedSociety:
    """From a file's values. Raises `FileNotFoundError` if one of its checkpoints is gone."""

    def agent(saved: dict) -> Agent:
        return Agent(saved["name"], saved["role"], _located(saved["model"], runs))

    saved = values["society"]
    generators, critics = (tuple(map(agent, saved[part])) for part in ("generators", "critics"))
    return SavedSociety(Society(generators, critics, agent(saved["summarizer"])), values["about"])


def _located(model: str, runs: Path) -> str:
    if ".." in Path(model).parts:
        raise ValueError(f"{model} leads out of its folder")
    if model.startswith(f"{checkpoints.FOLDER}/"):
        if not (runs / model).is_dir():
            raise FileNotFoundError(runs / model)
        return str(runs / model)
    return str(project_root() / model) if (project_root() / model).is_dir() else model
