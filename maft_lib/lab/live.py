"""Running studies in one output that changes in place: phases, pace, time left, accuracies so far.

Whatever goes wrong in showing, the studies go on and their lines are printed.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from maft_lib import events, metrics
from maft_lib.backends import Completion
from maft_lib.config import Config
from maft_lib.estimation import planned
from maft_lib.lab.page import drawn, framed
from maft_lib.plots import LABELS, by_iteration
from maft_lib.plots import STYLE as FIGURES

STYLE = Path(__file__).with_name("live.css").read_text(encoding="utf-8")
Clock: TypeAlias = Callable[[], float]
PAUSE = 0.5  # seconds between two updates
PHASES = {"data": "Debates to learn from", "training": "Finetuning", "answers": "Evaluation"}
OPEN = ("star", "vote_equal_budget")  # which end by themselves


class Phase(NamedTuple):
    """How far a phase is, of one study or of all: responses, or agents in training.

    Of those done, `fresh` are made now, the others were stored. `paid` are the seconds in it up to the
    last fresh one.
    """

    total: int
    done: int = 0
    fresh: int = 0
    seconds: float = 0.0
    paid: float = 0.0


class Watched:
    """One study, which its own thread counts: the listener of its events."""

    def __init__(self, method: str, task: str, config: Config, clock: Clock):
        self.method, self.config, self.clock = method, config, clock
        self.task = f"{task} to {config.eval_task}" if config.eval_task else task
        self.state = "waiting"  # then running, finished or failed
        self.phase, self.iteration = "answers", 0
        self.phases = {phase: Phase(num) for phase, num in planned(method, config).items()}
        self.num_tokens = 0  # generated now, not taken from the store
        self.frames: list[pd.DataFrame] = []  # the scores of each evaluation
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """What this thread does until the end belongs to the study."""
        self.state, self._since = "running", self.clock()
        try:
            with events.listening(self):
                yield
            self.state = "finished"
        except BaseException:
            self.state = "failed"
            raise

    @contextmanager
    def during(self, phase: str, iteration: int, num_agents: int = 0) -> Iterator[None]:
        self._count()
        left = self.phases[self.phase]
        self.phases[self.phase] = left._replace(paid=left.seconds)
        self.phase, self.iteration = phase, max(self.iteration, iteration)
        end = self.phases[phase].done + num_agents
        yield
        self._count(done=max(0, end - self.phases[phase].done))

    def counted(self, answers: Iterable[tuple[int, Completion]]) -> Iterator[tuple[int, Completion]]:
        for index, completion in answers:
            self._count(done=1, fresh=0 if completion.stored else 1)
            self.num_tokens += 0 if completion.stored else completion.num_completion_tokens
            yield index, completion

    def trained(self) -> None:
        self._count(done=1, fresh=1)

    def evaluated(self, frame: pd.DataFrame) -> None:
        self.frames.append(frame)

    def _count(self, done: int = 0, fresh: int = 0) -> None:
        """Counts for the phase what was done, and the time since the last call."""
        total, had, made, seconds, paid = self.phases[self.phase]
        now = self.clock()
        seconds += now - self._since
        paid = seconds if fresh else paid
        self.phases[self.phase] = Phase(total, had + done, made + fresh, seconds, paid)
        self._since = now

    def so_far(self, name: str) -> Phase:
        """A phase as of now: what is under way in it takes time, too."""
        phase = self.phases[name]
        if self.state == "running" and name == self.phase:
            phase = phase._replace(seconds=phase.seconds + self.clock() - self._since)
        planned = 0 if self.state == "finished" else phase.total
        return phase._replace(total=max(planned, phase.done))


class LiveView:
    """An output of the running cell, drawn again by a thread of its own twice a second.

    What it shows at the end is plain HTML: a saved notebook keeps it.
    """

    def __init__(self, studies: Sequence[tuple[str, str, Config]], clock: Clock = time.monotonic):
        self.clock, self.began = clock, clock()
        self.studies = [Watched(*study, clock) for study in studies]
        self.lines: list[str] = []
        self._handle: Any = None
        self._broken, self._charts = False, (0, "")
        self._stop = threading.Event()
        # in this cell's context, as front ends put an output where its cell is
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep_up,), daemon=True)

    def __enter__(self) -> LiveView:
        self._draw()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._draw(ended=True)

    def study(self, number: int) -> AbstractContextManager[None]:
        """The context in which the study of that number runs."""
        return self.studies[number].running()

    def say(self, line: str) -> None:
        """Takes a line of a study's report, which is kept below the chart."""
        self.lines.append(line)
        if self._broken:
            print(line)

    def _keep_up(self) -> None:
        while not self._stop.wait(PAUSE):
            self._draw()

    def _draw(self, ended: bool = False) -> None:
        from IPython.display import display

        if self._broken:
            return
        try:
            plain = "\n".join([self.summary(ended), self.pace(), *self.lines])
            output = {"text/html": self.html(ended), "text/plain": plain}
            if self._handle is None:
                self._handle = display(output, raw=True, display_id=True)
            else:
                self._handle.update(output, raw=True)
        except Exception as error:  # a study must not fail since it cannot be shown
            self._broken = True
            print(f"The live view cannot be shown ({type(error).__name__}: {error}); lines instead:")
            print("\n".join(self.lines))

    def html(self, ended: bool = False) -> str:
        """The whole output: in the end with the lines of the report, folded."""
        if (num := sum(len(study.frames) for study in self.studies)) != self._charts[0]:
            self._charts = num, charts_html(self.studies)
        guessed = any(study.method in OPEN and study.state != "finished" for study in self.studies)
        shown = drawn("live", self, ended, guessed, Markup(self._charts[1]), LABELS, PHASES)
        return framed(f"<style>{STYLE}</style>{shown}", "maft-live")

    def phases(self) -> dict[str, Phase]:
        """How far each phase is that some study has, over all studies."""
        sums = {}
        for name in PHASES:
            parts = zip(*(study.so_far(name) for study in self.studies))
            sums[name] = Phase(*map(sum, parts))
        return {name: phase for name, phase in sums.items() if phase.total}

    def summary(self, ended: bool = False) -> str:
        """One line: how many studies are finished, in what time, and how much is left."""
        finished = sum(study.state == "finished" for study in self.studies)
        line = f"{finished} of {len(self.studies)} finished, {span(self.clock() - self.began)}"
        return f"{line} in all" if ended else f"{line} so far, {self._time_left()}"

    def pace(self) -> str:
        """Tokens generated, over the time in which studies that run side by side waited for them."""
        tokens = sum(study.num_tokens for study in self.studies)
        waited = sum(phase.seconds for name, phase in self.phases().items() if name != "training")
        if not tokens or not waited:
            return "no tokens generated"
        return f"{tokens:,} tokens generated at {tokens / waited * self._at_a_time():,.0f} tokens/s"

    def _at_a_time(self) -> float:
        """How many studies have run side by side, on average."""
        busy = sum(phase.seconds for phase in self.phases().values())
        return busy / max(self.clock() - self.began, 1e-9) if busy else 1.0

    def _time_left(self) -> str:
        """What is left of each phase, at the pace of what was made of it now."""
        seconds = 0.0
        for total, done, fresh, spent, paid in self.phases().values():
            if done < total and not fresh:
                return "time left not known yet"
            if done < total:  # part of the next one may be done
                seconds += max(0.0, (total - done) * paid / fresh - (spent - paid))
        return f"about {span(seconds / self._at_a_time())} left"


def charts_html(studies: Sequence[Watched]) -> str:
    """A chart for each task and config, a line for each method that has been evaluated.

    The answers of several seeds are taken together. Nothing before the first evaluation.
    """
    dumps = [study.config.model_dump(exclude={"seed", "eval_task"}) for study in studies]
    names = [name for name in dumps[0] if any(dump[name] != dumps[0][name] for dump in dumps)]
    parts: dict[str, list[pd.DataFrame]] = {}
    for study, dump in zip(studies, dumps):
        title = ", ".join([study.task, *(f"{name} {dump[name]}" for name in names)])
        parts[title] = parts.get(title, []) + study.frames
    charts = [_chart(title, pd.concat(frames)) for title, frames in parts.items() if frames]
    return f'<div class="maft-charts">{"".join(charts)}</div>' if charts else ""


def _chart(title: str, frame: pd.DataFrame) -> str:
    """Accuracies over iterations, and a table of each method's latest."""
    names = {"accuracy": "mean", "standard_error": "error"}
    points = (
        metrics.accuracy(frame, pool_seeds=True)
        .rename(columns=names)
        .sort_values("iteration", kind="stable")
    )
    latest = points.groupby("method", sort=False).last()[["mean", "error"]].rename(index=LABELS)
    file = io.StringIO()
    with plt.style.context([FIGURES, {"svg.fonttype": "none"}]):
        figure = Figure(figsize=(4.6, 2.2))
        ax = by_iteration(points, figure.subplots(), "accuracy (%)")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :].replace("#000000", "currentColor")
    return drawn("chart", title, Markup(svg), latest.itertuples(name=None))


def span(seconds: float) -> str:
    """A time for people: 8 s, 34 min, 5.1 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
