"""A form for JupyterLab that has agents debate one's own question, and shows the debate as it grows."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from maft_lib.backends import Backend, BackendError
from maft_lib.backends.opening import open_backend
from maft_lib.config import Config
from maft_lib.debate import Debate, Turn, debate_rounds
from maft_lib.lab.debates import debate_html
from maft_lib.lab.explorer import DebateExplorer
from maft_lib.lab.page import escaped
from maft_lib.plots import LABELS
from maft_lib.profiles import load_config
from maft_lib.society import base_society, list_societies
from maft_lib.study import problems
from maft_lib.tasks import TASKS
from maft_lib.tasks.problem import Problem, problem_id

KEYS = Path(__file__).with_name("keys.js").read_text(encoding="utf-8")
BASE = "base agents"
ADVICE = (
    "The shipped model can be asked four kinds of questions, worded as in the examples: arithmetic, "
    "word problems, equations and fractions, questions with options. It cannot answer others."
)
EXAMPLES = {
    "What is the result of 3+4*2+5-1*6?": "arithmetic",
    "Ben has 5 marbles. Felix has 6 times as many. How many more marbles does Felix have?": "mini_gsm",
    "Solve $3x+9=39$ for $x$.": "mini_math",
    "It is spring. 16 quarters of a year pass and 12 more. Which season is it? "
    "(A) spring (B) summer (C) autumn (D) winter": "mini_mmlu",
}
TICK = 0.1  # seconds between two looks at what is new
SETTINGS = ("num_agents", "num_rounds", "temperature", "max_tokens", "seed", "summarize", "cooperative")
KINDS: dict[type, tuple[type, dict]] = {
    bool: (widgets.Checkbox, {"indent": False}),
    int: (widgets.IntText, {"width": "11rem"}),
    float: (widgets.FloatText, {"width": "11rem"}),
}


class Stopped(Exception):
    """Ends the debate from within, where it listens to the backend."""


class DebateStudio(widgets.VBox):
    """Asks a problem of one's own, or a random one, and shows the debate while it is written.

    `config` has what the form says at first, the model and the store; None: `load_config()`. Without a
    backend the config's own is opened. `debates` has those that came to their end, in a list for each
    kind of agents, `said` is what is on the screen. While a cell runs, the kernel hears no buttons.
    """

    def __init__(self, config: Config | None = None, backend: Backend | None = None):
        self.config = config or load_config()
        self.debates: dict[str, list[Debate]] = {}
        self.said: Debate | None = None
        self._backend, self._drawn, self._num_drawn = backend, Problem("", "", "", ""), 0
        self._stopping, self._thread = threading.Event(), threading.Thread()
        super().__init__(self._controls())
        self.add_class("maft-studio")

    def _controls(self) -> list[widgets.Widget]:
        whole = {"continuous_update": False}  # single keys would be sent after a click that follows
        asked = {"placeholder": "Type a problem, or draw one", "height": "5rem", **whole}
        self._question = control("question", widgets.Textarea, **asked)
        self._known = {
            f"{task}: {asked}": (_typed(asked, task), BASE) for asked, task in EXAMPLES.items()
        }
        examples = {"description": "ask again", "options": ["", *self._known], "width": "30rem"}
        self._earlier = control("earlier", widgets.Dropdown, **examples)
        self._earlier.observe(self._ask_again, "value")
        tasks = list(dict.fromkeys((self.config.task, *self.config.tasks, *TASKS)))
        self._task = control("task", widgets.Dropdown, description="task", options=tasks)
        self._draw = button("draw", "Draw a problem", self._draw_problem)
        truth = {"description": "ground truth", "placeholder": "optional", **whole}
        self._truth = control("truth", widgets.Text, width="14rem", **truth)
        found = list_societies(self.config.path(self.config.runs_dir))
        self._saved = {society_label(saved.about): saved for saved in found}
        agents = {"description": "agents", "options": [BASE, *self._saved]}
        self._agents = control("agents", widgets.Dropdown, **agents)
        beside = {"description": "base agents too", "indent": False, "disabled": not self._saved}
        self._beside = control("beside", widgets.Checkbox, value=False, **beside)
        self._settings = {}
        for name in SETTINGS:
            value = getattr(self.config, name)
            kind, traits = KINDS[type(value)]
            traits = {"description": name, "value": value, **traits}
            self._settings[name] = control(name.replace("_", "-"), kind, **traits)
        self._start = button("start", "Start", self._begin)
        self._stop = button("stop", "Stop", lambda _: self._stopping.set())
        self._start.button_style, self._stop.disabled = "primary", True
        shown = ("status", "screen", "debates")
        self._status, self._screen, self._explorer = (control(name, widgets.HTML) for name in shown)
        shipped = self.config.model_name_or_path == Config.model_fields["model_name_or_path"].default
        advice = ADVICE if shipped else ""
        advised = control("advice", widgets.HTML, value=f"<small>{advice}</small>")
        asking = row(self._task, self._draw, self._truth, self._agents, self._beside)
        running = [row(self._start, self._stop, self._status), self._screen, self._explorer]
        form = [self._question, advised, self._earlier, asking, row(*self._settings.values())]
        return [*form, *running, own_keys()]

    def _draw_problem(self, _: widgets.Button) -> None:
        """Puts a random problem of the task into the form; each time another one."""
        seed = self._settings["seed"].value + self._num_drawn
        try:
            config = self.config.replace(seed=seed, num_eval=2)
            self._drawn = problems(self._task.value, "eval", config)[0]
        except Exception as error:  # a task whose files are not here
            self._say(error)
            return
        self._num_drawn += 1
        self._fill()
        self._say(f"An eval problem of {self._drawn.task}.")

    def _ask_again(self, change: dict) -> None:
        """Puts an example or an earlier question into the form, to be edited and asked again."""
        if problem_and_agents := self._known.get(change["new"]):
            self._drawn, self._agents.value = problem_and_agents
            self._fill()

    def _fill(self) -> None:
        """Puts a problem into the form."""
        self._question.value, self._task.value = self._drawn.question, self._drawn.task
        self._truth.value = self._drawn.answer

    def _begin(self, _: widgets.Button) -> None:
        """Starts the debate that the form asks for, in a thread: the buttons are heard meanwhile."""
        question, task, drawn = self._question.value.strip(), self._task.value, self._drawn
        if self._thread.is_alive():
            return
        try:
            if not question:
                raise ValueError("There is no problem yet: type one, or draw one.")
            if (question, task) != (drawn.question.strip(), drawn.task):
                if self._truth.value == drawn.answer:  # which is not this question's
                    self._truth.value = ""
                drawn = _typed(question, task)
            problem = replace(drawn, answer=self._truth.value.strip())
            config = self.config.replace(**{name: c.value for name, c in self._settings.items()})
        except ValueError as error:  # what was typed is wrong
            self._say(error)
            return
        self._stopping.clear()
        self._start.disabled, self._stop.disabled = True, False
        self._stop.focus()  # which the keyboard would lose with the button that is disabled now
        self._say("The agents begin.")
        self._thread = threading.Thread(target=self._debates, args=(problem, config), daemon=True)
        self._thread.start()

    def _debates(self, problem: Problem, config: Config) -> None:
        """The debate of the chosen agents and, where ticked, that of the base agents below it."""
        chosen, self._above = self._agents.value, ""
        for agents in dict.fromkeys([chosen, BASE] if self._beside.value else [chosen]):
            self._above += f"<h3>{escaped(agents)}</h3>"
            ending = self._debate(problem, config, agents)
            self._above = f"{self._screen.value}<p>{escaped(ending)}</p>"
            if self._stopping.is_set() or isinstance(ending, Exception):
                break
        self._start.disabled, self._stop.disabled = False, True
        self._say(ending)

    def _debate(self, problem: Problem, config: Config, agents: str) -> str | Exception:
        """One debate, from the first word to its place among the earlier ones; says how it ended."""
        began = shown = time.perf_counter()
        society = base_society(config.base_model, config.num_agents)
        if saved := self._saved.get(agents):
            society = saved.society
        if len(society.generators) == 1:  # one alone answers once
            config = config.replace(num_rounds=1)
        self.said = whole = Debate(problem, ((),) * len(society.generators), None)
        drafts: dict[int, Turn] = {}

        def hear(_: int, agent: int, turn: Turn) -> None:
            """Takes what an agent has written of a turn so far."""
            nonlocal shown
            if self._stopping.is_set():
                raise Stopped
            drafts[agent] = turn
            turns = ((*old, drafts[n]) if n in drafts else old for n, old in enumerate(whole.turns))
            self.said = replace(whole, turns=tuple(turns))
            if time.perf_counter() - shown > TICK:
                self._screen.value = self._above + debate_html(self.said, finished=False)
                shown = time.perf_counter()

        finished = False
        ending: str | Exception = "Stopped; what was said stays here until the next start."
        try:
            backend = self._backend or open_backend(config)
            before = getattr(backend, "num_calls", 0)
            for (whole,) in debate_rounds(society, [problem], config, backend, on_turn=hear):
                self.said = whole
                drafts.clear()
            finished = True
            made = getattr(backend, "num_calls", whole.num_calls) - before
            ending = _cost(whole, made, time.perf_counter() - began)
            self._keep(whole, agents)
        except Stopped:
            pass
        except Exception as error:  # whatever it is: a thread's errors would end in a log
            ending = error
            if isinstance(error, BackendError) and "does not fit" in str(error) and not drafts:
                ending = ValueError("The question is too long for this model: shorten it.")
        self._screen.value = self._above + debate_html(self.said, finished)
        return ending

    def _keep(self, debate: Debate, agents: str) -> None:
        """Adds a debate to the explorer of all, where societies can be compared on one question."""
        self.debates.setdefault(agents, []).append(debate)
        explorer = DebateExplorer(self.debates)
        number = len(explorer.debates)
        self._known[f"{number}. {debate.problem.question[:80]} ({agents})"] = (debate.problem, agents)
        self._earlier.options = ["", *self._known]
        page = base64.b64encode(explorer.page.encode()).decode()
        href = f"data:text/html;base64,{page}"
        link = f'<a class="maft-saved" download="debates.html" href="{href}"><u>Save as a page</u></a>'
        title = f"All {number} debates so far, to compare" if number > 1 else "The debate as a page"
        shown = f"<details><summary>{title}</summary>{explorer._repr_html_()}</details>"
        self._explorer.value = f"{link}{shown}"

    def _say(self, what: str | Exception) -> None:
        role = "alert" if isinstance(what, Exception) else "status"
        text = " ".join(str(what).split()) or type(what).__name__
        self._status.value = f'<div role="{role}">{escaped(text)}</div>'


def _typed(question: str, task: str) -> Problem:
    """A question of one's own, of which the answer is not known."""
    return Problem(problem_id(question), task, question, "", source="typed")


def _cost(debate: Debate, made: int, seconds: float) -> str:
    """What a finished debate took, of which `made` responses and summaries were not stored before."""
    if made == 0:
        return f"Finished: all {debate.num_calls} responses and summaries were in the store already."
    if made < debate.num_calls:
        stored = debate.num_calls - made
        return f"Finished in {seconds:.1f} s: {made} responses and summaries are new, {stored} stored."
    return f"Finished: {debate.num_completion_tokens:,} tokens in {seconds:.1f} s."


def society_label(about: Mapping) -> str:
    """A saved society in one line: "Multiagent FT, arithmetic, seed 0, iteration 2: 71 % (laptop)"."""
    method = LABELS.get(about["method"], about["method"]).removesuffix(" (ours)")
    trained_on = f"{about['trained_on']} to " if about.get("trained_on") else ""
    profile = f" ({about['profile']})" if about.get("profile") else ""
    return (
        f"{method}, {trained_on}{about['task']}, seed {about['seed']}, "
        f"iteration {about['iteration']}: {100 * about['accuracy']:.0f} %{profile}"
    )


def control(name: str, kind: type, **traits: Any) -> Any:
    """A widget that carries the class `maft-<name>`; `width` and `height` are its layout's."""
    size = {side: traits.pop(side, "auto") for side in ("width", "height")}
    made = kind(**traits, layout=widgets.Layout(**size, max_width="100%", margin="2px 12px 2px 2px"))
    if hasattr(made.style, "description_width"):
        made.style.description_width = "initial"
    made.add_class(f"maft-{name}")
    return made


def button(name: str, label: str, react: Callable[[widgets.Button], None]) -> Any:
    """A button and what it does."""
    made = control(name, widgets.Button, description=label)
    made.on_click(react)
    return made


def row(*controls: widgets.Widget) -> widgets.Box:
    """Controls side by side, on several lines where there is no room."""
    layout = {"flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
    return widgets.Box(controls, layout=layout)


def own_keys() -> widgets.Output:
    """A widget that shows nothing; on a page with it, the studio gets the keys pressed in it."""
    script = {"output_type": "display_data", "data": {"application/javascript": KEYS}, "metadata": {}}
    return widgets.Output(outputs=(script,), layout={"display": "none"})
