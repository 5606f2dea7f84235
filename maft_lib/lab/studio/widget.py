"""The studio: a form, buttons to start and stop, and the debate as it comes in. Knows no engine.

The debate runs in a thread of its own (`live_debate`), so that the buttons are heard meanwhile.
"""

from __future__ import annotations

import base64
import warnings
from pathlib import Path

import ipywidgets as widgets

from maft_lib.arguments import check_able, check_config
from maft_lib.backends import Backend
from maft_lib.config import Config
from maft_lib.debate import Debate
from maft_lib.lab.debates import debate_html
from maft_lib.lab.keys import own_keys
from maft_lib.lab.page import escaped
from maft_lib.lab.studio.form import Form, button, named, row
from maft_lib.lab.studio.live_debate import LiveDebate, sentence, warm_up
from maft_lib.lab.studio.transcripts import save_transcript, to_json, to_markdown
from maft_lib.profiles import load_config

# JupyterLab's colours, in light and in dark
WRONG = "color:var(--jp-error-color1,#b3261e);font-weight:600"
LINK = "color:var(--jp-content-link-color,#1565c0);text-decoration:underline"


class DebateStudio(widgets.VBox):
    """Asks a problem of one's own, or a random one, and shows the debate while it is written.

    `config` has what the form says at first, the model and the store; None: `load_config()`. Without a
    backend the config's own is opened. `debate` is the last finished debate, `debates` are all of them.
    `start()`, `stop()` and `draw()` do what the buttons do, `save(path)` what the links do. While a
    cell runs, the kernel hears no buttons.
    """

    def __init__(self, config: Config | None = None, backend: Backend | None = None):
        if config is not None:
            check_config(config)
        if backend is not None:
            check_able("backend", backend, "stream", "what open_backend(config) returns")
        self.form = Form(config or load_config())
        self.debates: list[Debate] = []
        self.live: LiveDebate | None = None
        self._backend = backend
        self._start = button("start", "Start", "Have the agents debate this problem")
        self._stop = button("stop", "Stop", "End the debate; what was said stays")
        self._start.button_style, self._stop.disabled = "primary", True
        self._status = named("status", widgets.HTML())
        self._screen = named("screen", widgets.HTML(layout=widgets.Layout(width="100%")))
        self._downloads = named("downloads", widgets.HTML())
        buttons = row(self._start, self._stop, self._status)
        super().__init__([self.form.window, buttons, self._screen, self._downloads, own_keys()])
        self.add_class("maft-studio")
        self._start.on_click(lambda _: self.start())
        self._stop.on_click(lambda _: self.stop())
        self.form.question.observe(lambda _: warm_up(self.form.config), "value")
        self.form.draw.on_click(lambda _: self.draw())
        self.form.refresh.on_click(lambda _: self.look_for_societies())
        self.look_for_societies()

    @property
    def debate(self) -> Debate | None:
        """The last debate that came to its end."""
        return self.debates[-1] if self.debates else None

    def draw(self) -> None:
        """Puts a random problem of the task into the form; each time another one."""
        try:
            drawn = self.form.draw_problem()
        except Exception as error:  # a task whose files are not here, a value out of bounds
            self._say(sentence(error), wrong=True)
        else:
            warm_up(self.form.config)
            self._say(f"An eval problem of {drawn.task}.")

    def look_for_societies(self) -> None:
        """Offers the finetuned agents that are in the store by now."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.form.look_for_societies()
        for warning in told:
            self._say(str(warning.message), wrong=True)

    def start(self) -> None:
        """Begins the debate that the form asks for, unless one is running."""
        if self.live is not None and self.live.running:
            return
        try:
            problem, config = self.form.problem(), self.form.configured()
            society, iteration = self.form.society()
        except Exception as error:  # what was typed is wrong
            self._say(sentence(error), wrong=True)
            return
        self._parameters = self._described(config, iteration, len(society.generators))
        self.live = LiveDebate(society, problem, config, iteration, self._backend, self._show)
        self._start.disabled, self._stop.disabled = True, False
        self._downloads.value = ""
        self._say("The agents begin.")
        self._stop.focus()  # which the keyboard would lose with the button that is disabled now
        self.live.start()

    def stop(self) -> None:
        """Ends the debate that is running; what has come in stays on the screen."""
        if self.live is not None and self.live.running:
            self._stop.disabled = True
            self._say("Stopping.")
            self.live.stop()

    def save(self, path: str | Path) -> Path:
        """Writes what is on the screen as .md or .json. Raises `ValueError` for another suffix."""
        if self.live is None:
            raise ValueError("there is no debate to save yet: start one.")
        finished = self.live.state == "finished"
        return save_transcript(path, self.live.debate, self._parameters, finished)

    def _show(self, live: LiveDebate) -> None:
        """Shows how far the debate has come; called by its own thread."""
        debate, over = live.debate, not live.running
        try:
            self._screen.value = debate_html(debate, finished=live.state == "finished")
        finally:
            if over:
                self._end(live, debate)
            elif not live.stopping:
                self._say(_progress(debate, live.config.num_rounds))

    def _end(self, live: LiveDebate, debate: Debate) -> None:
        if live.state == "finished":
            self.debates.append(debate)
            spent = f"{debate.num_completion_tokens:,} tokens in {live.seconds:.1f} s"
            self._say(f"Finished: {spent}.")
        elif live.state == "stopped":
            self._say("Stopped; what was said stays here until the next start.")
        else:
            self._say(live.error, wrong=True)
        if any(debate.turns):
            self._offer(debate, live.state == "finished")
        self._start.disabled, self._stop.disabled = False, True
        if live.stopping:
            self._start.focus()

    def _offer(self, debate: Debate, finished: bool) -> None:
        """Links that hold the transcript themselves, so that saving it needs no server."""
        name = f"debate-{debate.problem.id}"
        links = (
            _link(f"{name}.md", "text/markdown", to_markdown(debate, self._parameters, finished)),
            _link(f"{name}.json", "application/json", to_json(debate, self._parameters)),
        )
        self._downloads.value = f"Save the transcript: {' · '.join(links)}"

    def _described(self, config: Config, iteration: int, num_agents: int) -> dict[str, object]:
        """What a transcript says of how the debate came about."""
        names = ("backend", "seed", "temperature", "top_p", "max_tokens", "num_rounds")
        return {
            "model": config.model_name_or_path,
            "agents": self.form.agents.label,
            "num_agents": num_agents,
            "iteration": iteration,
            **{name: getattr(config, name) for name in (*names, "summarize", "cooperative")},
        }

    def _say(self, text: str, wrong: bool = False) -> None:
        role, name, style = ("alert", "maft-error", WRONG) if wrong else ("status", "maft-said", "")
        attributes = f'role="{role}" class="{name}" style="line-height:1.4;{style}"'
        self._status.value = f"<div {attributes}>{escaped(text)}</div>"

    def __repr__(self) -> str:
        return f"DebateStudio({len(self.debates)} debates)"


def _progress(debate: Debate, num_rounds: int) -> str:
    """Where a debate is, in words."""
    number = max(map(len, debate.turns))
    if not number:
        return "Waiting for the first words."
    last = [turns[-1] for turns in debate.turns if len(turns) == number]
    doing = "responses" if any(turn.response for turn in last) else "summaries"
    return f"Round {number} of {num_rounds}: {doing if number > 1 else 'responses'} are being written."


def _link(name: str, kind: str, text: str) -> str:
    content = base64.b64encode(text.encode(errors="replace")).decode()
    data = f"data:{kind};base64,{content}"
    return f'<a download="{escaped(name)}" href="{data}" style="{LINK}">{escaped(name)}</a>'
