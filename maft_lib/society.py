"""Who debates: agents with their roles and models, and the society that they form (Section 2)."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from maft_lib.config import project_root
from maft_lib.store import checkpoints
from maft_lib.store.files import SOCIETIES, read_records, save_record


@dataclass(frozen=True)
class Agent:
    """A participant: its name, its role (generator, critic or summarizer) and its model."""

    name: str
    role: str
    model: str


@dataclass(frozen=True)
class Society:
    """The agents of a debate: N generation agents, N critic agents and the summarizer."""

    generators: tuple[Agent, ...]
    critics: tuple[Agent, ...]
    summarizer: Agent

    def __post_init__(self) -> None:
        if len(self.generators) != len(self.critics):
            raise ValueError(
                f"a society of {len(self.generators)} generation agents and {len(self.critics)} critic "
                "agents: it needs as many critic agents as generation agents."
            )
        for role, agents in (
            ("generator", self.generators),
            ("critic", self.critics),
            ("summarizer", [self.summarizer]),
        ):
            for agent in agents:
                if agent.role != role:  # critics learn at another rate
                    raise ValueError(
                        f"agent {agent.name!r} has the role {agent.role!r} in the place of a {role}."
                    )


def base_society(model: str, num_agents: int, summarizer: str | None = None) -> Society:
    """N generation and N critic agents that share one model; so may the summarizer."""
    numbers = range(1, num_agents + 1)
    generators = tuple(Agent(f"generation-{n}", "generator", model) for n in numbers)
    critics = tuple(Agent(f"critic-{n}", "critic", model) for n in numbers)
    return Society(generators, critics, Agent("summarizer", "summarizer", summarizer or model))


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
    folder = runs / checkpoints.FOLDER / Path(model).name
    is_checkpoint = model.startswith(f"{checkpoints.FOLDER}/")
    if ".." in Path(model).parts or (is_checkpoint and folder.is_symlink()):
        raise ValueError(f"{model} leads out of its folder")
    if is_checkpoint:
        if not folder.is_dir():
            raise FileNotFoundError(folder)
        return str(folder)
    return str(project_root() / model) if (project_root() / model).is_dir() else model
