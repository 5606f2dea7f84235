"""Who debates: agents with their roles and models, and the society that they are (Section 2).

Knows no debate, and of a model only its name or folder.
"""

from __future__ import annotations

from dataclasses import dataclass

from maft_lib.arguments import check_choice, check_each, check_kind, check_text, check_whole

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
