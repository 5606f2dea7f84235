"""Who debates: agents with their roles and models, and the society that they form (Section 2)."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from maft_lib.config import project_root
from maft_lib.store.files import CHECKPOINTS, SOCIETIES, read_records, save_record


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
        num, roles = len(self.generators), [agent.role for agent in self.agents]
        if roles != [*["generator"] * num, *["critic"] * num, "summarizer"]:  # critics learn otherwise
            raise ValueError(
                f"a society of {', '.join(roles)}: it has as many critic agents as generation agents, "
                "and each agent in the place of its role."
            )

    @property
    def agents(self) -> tuple[Agent, ...]:
        """All of them: the generation agents, the critic agents, the summarizer."""
        return (*self.generators, *self.critics, self.summarizer)


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
    runs = Path(runs_dir)
    if not any(Path(agent.model).parent == runs / CHECKPOINTS for agent in society.agents):
        return None
    values = asdict(society)
    for agent in (*values["generators"], *values["critics"], values["summarizer"]):
        for root in (runs, project_root()):  # so that both can be moved
            if Path(agent["model"]).is_relative_to(root):
                agent["model"] = Path(agent["model"]).relative_to(root).as_posix()
    return save_record(runs / SOCIETIES, {"society": values, "about": about})


def list_societies(runs_dir: str | Path) -> list[SavedSociety]:
    """All whose checkpoints are there, in the order of profile, method, task, seed and iteration."""
    runs = Path(runs_dir)
    records, damaged = read_records(runs / SOCIETIES)
    if damaged:
        warnings.warn(f"damaged files are left out: {', '.join(map(str, damaged))}.", stacklevel=2)

    def located(agent: Agent) -> Agent:
        is_ours = agent.model.startswith(f"{CHECKPOINTS}/")
        place = (runs if is_ours else project_root()) / agent.model
        return replace(agent, model=str(place)) if is_ours or place.is_dir() else agent

    found = []
    for values in records.values():
        saved = TypeAdapter(SavedSociety).validate_python(values)
        generators = tuple(map(located, saved.society.generators))
        critics = tuple(map(located, saved.society.critics))
        society = Society(generators, critics, located(saved.society.summarizer))
        ours = [a.model for a in society.agents if Path(a.model).parent == runs / CHECKPOINTS]
        if all(map(os.path.isdir, ours)):
            found.append(SavedSociety(society, saved.about))
    names = ("profile", "method", "task", "model")

    def place(saved: SavedSociety) -> tuple:
        about = saved.about
        return *(str(about.get(name)) for name in names), about["seed"], about["iteration"]

    return sorted(found, key=place)
