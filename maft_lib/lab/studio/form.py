"""The form of the studio: what is asked, by whom, and how. Reads itself into problem, society, config.

Controls carry the class `maft-<name>`. Knows neither how a debate is run nor how it is shown.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from maft_lib.config import Config
from maft_lib.grading import is_equivalent
from maft_lib.plots import LABELS
from maft_lib.society import SavedSociety, Society, base_society, list_societies
from maft_lib.tasks import TASKS
from maft_lib.tasks.problem import Problem, problem_id

BASE = "base agents"
APART = "2px 12px 2px 2px"
# Sent when it is left, in one piece: of single keys the last would come after a click that follows.
WHOLE: dict[str, Any] = {"continuous_update": False}
SHORT = {"description_width": "initial"}  # a description takes only the room that it needs


class Form:
    """All that can be asked for, as the config has it at first; `window` holds the controls."""

    def __init__(self, config: Config):
        self.config = config
        self._drawn: Problem | None = None
        self._draws = ("", 0, 0)  # task, seed, and how many problems after that one
        tasks = dict.fromkeys((config.task, *config.tasks, *TASKS))
        self.question = named(
            "question",
            widgets.Textarea(placeholder="Type a problem, or draw one", tooltip="the problem", **WHOLE),
        )
        self.task = _chosen("task", "task", list(tasks), "says what kind of answer is wanted")
        self.truth = _field(
            "truth", widgets.Text, "", "ground truth", "14rem", placeholder="optional", **WHOLE
        )
        self.draw = button("draw", "Draw a problem", "A random problem of the task, by the seed")
        self.agents = _chosen("agents", "agents", [(BASE, None)], "of any study in the store")
        self.refresh = button("refresh", "↻", "Look for finetuned agents again")
        self.num_agents = _number("num-agents", config.num_agents, "how many", "9.5rem")
        self.num_rounds = _number("num-rounds", config.num_rounds, "rounds", "8rem")
        self.temperature = _number("temperature", config.temperature, "temperature", "11rem")
        self.max_tokens = _number("max-tokens", config.max_tokens, "max_tokens", "12rem")
        self.seed = _number("seed", config.seed, "seed", "9rem")
        self.summarize = _switch("summarize", config.summarize, "summarizer")
        self.cooperative = _switch("cooperative", config.cooperative, "cooperative")
        self.window = self._laid_out()
        self.question.observe(self._edited, "value")
        self.agents.observe(self._adapt, "value")
        self.summarize.observe(self._adapt, "value")

    def _laid_out(self) -> widgets.VBox:
        self.question.layout = widgets.Layout(width="auto", height="5rem")
        return widgets.VBox(
            [
                self.question,
                row(self.task, self.draw, self.truth),
                row(self.agents, self.refresh, self.num_agents, self.num_rounds),
                row(self.temperature, self.max_tokens, self.seed, self.summarize, self.cooperative),
            ]
        )

    def look_for_societies(self) -> None:
        """Offers base agents and every finetuned society in the store; keeps what was chosen."""
        chosen = self.agents.label
        found = list_societies(self.config.path(self.config.runs_dir))
        options: dict[str, SavedSociety | None] = {BASE: None}
        for saved in found:
            name = society_label(saved.about)
            alike = sum(label.startswith(name) for label in options)
            options[f"{name}, no. {alike + 1}" if alike else name] = saved
        self.agents.options = list(options.items())
        self.agents.label = chosen if chosen in options else BASE

    def draw_problem(self) -> Problem:
        """Puts the next random problem of the task into the form: from the seed, then seed + 1, ...

        Raises `ValueError` if the task's files cannot be read.
        """
        from maft_lib.study import problems

        task, seed = self.task.value, self.seed.value
        further = self._draws[2] + 1 if self._draws[:2] == (task, seed) else 0
        drawn = problems(task, "eval", self.config.replace(seed=seed + further, num_eval=2))[0]
        self._draws = (task, seed, further)
        self._drawn = drawn
        self.question.value, self.truth.value = drawn.question, drawn.answer
        return drawn

    def problem(self) -> Problem:
        """The problem that is asked. Raises `ValueError` for none, or for no possible ground truth."""
        question, task = self.question.value.strip(), self.task.value
        truth = self.truth.value.strip()
        if not question:
            raise ValueError("there is no problem yet: type one, or draw one.")
        drawn = self._drawn
        if drawn is None or (question, task) != (drawn.question.strip(), drawn.task):
            drawn = Problem(problem_id(question), task, question, "", source="typed")
        if truth and truth != drawn.answer and not is_equivalent(truth, truth, task):
            raise ValueError(
                f"ground truth: {truth[:60]!r} is no answer that {task} could have; correct it, choose "
                "another task or leave it out."
            )
        return replace(drawn, answer=truth)

    def configured(self) -> Config:
        """The config with what the form says. Raises `ConfigError` for values out of bounds."""
        return self.config.replace(
            num_rounds=self.num_rounds.value,
            temperature=self.temperature.value,
            max_tokens=self.max_tokens.value,
            seed=self.seed.value,
            summarize=self.summarize.value,
            cooperative=self.cooperative.value and self.summarize.value,
            **({} if self.agents.value else {"num_agents": self.num_agents.value}),
        )

    def society(self) -> tuple[Society, int]:
        """The agents and the iteration of finetuning that they are of; base agents: 0."""
        if self.agents.value is not None:
            return self.agents.value.society, self.agents.value.about["iteration"]
        return base_society(self.config.base_model, self.num_agents.value), 0

    def _edited(self, change: Any) -> None:
        """Another question: the ground truth of the one that was drawn is not this one's."""
        if self._drawn and change["old"] == self._drawn.question and change["new"] != change["old"]:
            self.truth.value = ""

    def _adapt(self, _: Any) -> None:
        """A society has the agents that it has; one alone answers once. Cooperation needs summaries."""
        saved = self.agents.value
        num = len(saved.society.generators) if saved else None
        _fix(self.num_agents, num, self.config.num_agents)
        _fix(self.num_rounds, 1 if num == 1 else None, self.config.num_rounds)
        self.cooperative.disabled = not self.summarize.value


def _fix(control: Any, value: int | None, otherwise: int) -> None:
    """Sets a control to a value that cannot be changed; None frees it again, at `otherwise`."""
    if value is not None or control.disabled:
        control.value = otherwise if value is None else value
    control.disabled = value is not None


def row(*controls: widgets.Widget) -> widgets.Box:
    """Controls side by side, on several lines where there is no room."""
    layout = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
    return widgets.Box(controls, layout=layout)


def society_label(about: dict) -> str:
    """A saved society in one line: "Multiagent FT, arithmetic, seed 0, iteration 2: 71 % (laptop)"."""
    method = LABELS.get(about["method"], about["method"]).removesuffix(" (ours)")
    trained_on = f"{about['trained_on']} to " if about.get("trained_on") else ""
    profile = f" ({about['profile']})" if about.get("profile") else ""
    return (
        f"{method}, {trained_on}{about['task']}, seed {about['seed']}, "
        f"iteration {about['iteration']}: {100 * about['accuracy']:.0f} %{profile}"
    )


def button(name: str, label: str, hint: str) -> Any:
    """A button with the class `maft-<name>`."""
    layout = widgets.Layout(width="auto")
    return named(name, widgets.Button(description=label, tooltip=hint, layout=layout))


def _chosen(name: str, label: str, options: list, hint: str) -> Any:
    layout = widgets.Layout(width="auto", max_width="calc(100% - 1rem)", margin=APART)
    made = widgets.Dropdown(
        description=label, options=options, style=SHORT, tooltip=hint, layout=layout
    )
    return named(name, made)


def _number(name: str, value: float, label: str, width: str) -> Any:
    kind = widgets.IntText if isinstance(value, int) else widgets.FloatText
    return _field(name, kind, value, label, width)


def _field(name: str, kind: Any, value: Any, label: str, width: str, **more: Any) -> Any:
    layout = widgets.Layout(width=width, margin=APART)
    return named(name, kind(value=value, description=label, style=SHORT, layout=layout, **more))


def _switch(name: str, value: bool, label: str) -> Any:
    layout = widgets.Layout(width="auto", margin=APART)
    made = widgets.Checkbox(value=value, description=label, indent=False, style=SHORT, layout=layout)
    return named(name, made)


def named(name: str, control: Any) -> Any:
    """A control with the class `maft-<name>`."""
    control.add_class(f"maft-{name}")
    return control
