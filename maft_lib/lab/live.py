"""Running studies in one output that changes in place: phases, pace, time left, accuracies so far.

Only where somebody watches: a notebook that is executed without a front end (papermill, nbclient,
nbval), a program and a terminal get the plain lines of `report`. Whatever goes wrong in showing, the
studies go on and their lines are printed.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from maft_lib import events, metrics
from maft_lib.backends import Completion
from maft_lib.config import Config
from maft_lib.estimation import planned
from maft_lib.lab.page import escaped, fold, framed, table
from maft_lib.plots.style import LABELS, look
from maft_lib.plots.style import STYLE as FIGURES

STYLE = Path(__file__).with_name("live.css").read_text(encoding="utf-8")
STYLES: list[Any] = [FIGURES, {"svg.fonttype": "none", "text.color": "#000000"}]
PAUSE = 0.5  # seconds between two updates
PHASES = {"data": "Debates to learn from", "training": "Finetuning", "answers": "Evaluation"}
UNITS = {"data": "responses", "training": "agents", "answers": "responses"}
OPEN = ("star", "vote_equal_budget")  # which end by themselves: what is planned for them is a guess


def open_view(studies: Sequence[tuple[str, str, Config]]) -> LiveView | None:
    """The view of some studies, where this is a notebook whose front end could answer `input()`.

    JupyterLab, Notebook and VS Code say so with every cell that they send; nbclient, and so papermill,
    nbconvert and nbval, say the contrary.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    watched = getattr(getattr(shell, "kernel", None), "_allow_stdin", False)
    return LiveView(studies) if watched else None


class Share(NamedTuple):
    """Responses or agents of a phase: `fresh` of those done were made now, the others were stored."""

    done: int
    total: int
    fresh: int


class Watched:
    """One study, which its own thread counts: responses and agents, `fresh` ones made now, seconds."""

    def __init__(self, method: str, task: str, config: Config, clock: Callable[[], float]):
        self.method, self.config, self.clock = method, config, clock
        self.task = f"{task} to {config.eval_task}" if config.eval_task else task
        self.state = "waiting"  # then running, finished or failed
        self.phase, self.iteration = "answers", 0
        self.planned = planned(method, config)
        self.done, self.fresh = Counter[str](), Counter[str]()
        self.seconds = dict.fromkeys(PHASES, 0.0)  # spent in each phase
        self.paid = dict.fromkeys(PHASES, 0.0)  # of these, up to the last fresh response or agent
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
            self._spend()
            self.state = "finished"
        except BaseException:
            self.state = "failed"
            raise

    @contextmanager
    def during(self, phase: str, iteration: int, num_agents: int = 0) -> Iterator[None]:
        """The thread's time counts for `phase`; at the end `num_agents` have their checkpoints."""
        before, end = self.phase, self.done[phase] + num_agents
        self._spend()
        self.phase, self.iteration = phase, max(self.iteration, iteration)
        try:
            yield
            self.done[phase] = max(self.done[phase], end)
        finally:
            self._spend()
            self.phase = before

    def counted(self, answers: Iterable[tuple[int, Completion]]) -> Iterator[tuple[int, Completion]]:
        """The same answers, counted as they pass."""
        for index, completion in answers:
            self._count(fresh=not completion.stored)
            self.num_tokens += 0 if completion.stored else completion.num_completion_tokens
            yield index, completion

    def trained(self) -> None:
        self._count(fresh=True)

    def evaluated(self, frame: pd.DataFrame) -> None:
        self.frames.append(frame)

    def total(self, phase: str) -> int:
        """What the study takes of a phase, as far as that is known."""
        return (
            self.done[phase] if self.state == "finished" else max(self.done[phase], self.planned[phase])
        )

    def _count(self, fresh: bool) -> None:
        self._spend()
        self.done[self.phase] += 1
        if fresh:
            self.fresh[self.phase] += 1
            self.paid[self.phase] = self.seconds[self.phase]

    def spent(self, phase: str) -> float:
        """Seconds in a phase until now."""
        now = self.state == "running" and self.phase == phase
        return self.seconds[phase] + (self.clock() - self._since if now else 0.0)

    def _spend(self) -> None:
        self.seconds[self.phase], self._since = self.spent(self.phase), self.clock()


class LiveView:
    """An output of the running cell, drawn again by a thread of its own at most twice a second.

    What it shows at the end is plain HTML: a saved notebook keeps it.
    """

    def __init__(
        self,
        studies: Sequence[tuple[str, str, Config]],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.clock, self.began = clock, clock()
        self.studies = [Watched(*study, clock) for study in studies]
        self.lines: list[str] = []
        self._handle: Any = None
        self._shown, self._broken = "", False
        self._charts = (0, "")
        self._stop = threading.Event()
        # in this cell's context, as front ends put an output where its cell is
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep_up,), daemon=True)

    def __enter__(self) -> LiveView:
        self._draw()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._draw("finished" if kind is None else "interrupted" if interrupted else "failed")

    def study(self, number: int) -> Any:
        """The context in which the study of that number runs."""
        return self.studies[number].running()

    def say(self, line: str) -> None:
        """Takes a line of a study's report, which is kept below the chart."""
        self.lines.append(line)
        if self._broken:
            print(line)

    def _keep_up(self) -> None:
        while not self._stop.wait(PAUSE) and not self._broken:
            self._draw()

    def _draw(self, outcome: str = "") -> None:
        if self._broken:
            return
        from IPython.display import display

        try:
            html = self.html(outcome)
            plain = "\n".join([self.summary(outcome), *self.lines])
            output = {"text/html": html, "text/plain": plain}
            if self._handle is None:
                self._handle = display(output, raw=True, display_id=True)
            elif html != self._shown:
                self._handle.update(output, raw=True)
            self._shown = html
        except Exception as error:  # a study must not fail since it cannot be shown
            self._broken = True
            print(f"The live view cannot be shown ({type(error).__name__}: {error}); lines instead:")
            print("\n".join(self.lines))

    def html(self, outcome: str = "") -> str:
        """The whole output; `outcome` is empty, or in the end finished, failed or interrupted."""
        parts = [f"<p>{escaped(self.summary(outcome))}</p>"]
        if not outcome:
            rows = "".join(self._row(phase, share) for phase, share in self.shares().items())
            running = " · ".join(_doing(study) for study in self.studies if study.state == "running")
            quiet = [self._pace(), f"now: {running}" if running else ""]
            parts.append(f'<table class="maft-phases"><tbody>{rows}</tbody></table>')
            parts += [f'<p class="maft-quiet">{escaped(line)}</p>' for line in quiet if line]
        if (num := sum(len(study.frames) for study in self.studies)) != self._charts[0]:
            self._charts = num, charts_html(self.studies)
        parts.append(self._charts[1])
        if outcome and self.lines:
            parts.append(fold("lines of the report", f"<pre>{escaped(chr(10).join(self.lines))}</pre>"))
        return framed(f"<style>{STYLE}</style>{''.join(parts)}", "maft-live")

    def shares(self) -> dict[str, Share]:
        """How far each phase is that some study has, over all studies."""
        shares = {}
        for phase in PHASES:
            done, fresh = (
                sum(count[phase] for count in counts)
                for counts in zip(*((study.done, study.fresh) for study in self.studies))
            )
            if total := sum(study.total(phase) for study in self.studies):
                shares[phase] = Share(done, total, fresh)
        return shares

    def summary(self, outcome: str = "") -> str:
        """One line: how many studies are finished, in what time, and how much is left or was made."""
        num, states = len(self.studies), [study.state for study in self.studies]
        total, took = f"{num:,} {'study' if num == 1 else 'studies'}", span(self.clock() - self.began)
        finished = f"{states.count('finished'):,} of {total} finished"
        if not outcome:
            return f"{finished} · {took} so far · {self._time_left()}"
        shares = self.shares()
        answers = [shares[phase] for phase in ("data", "answers") if phase in shares]
        stored = sum(share.done - share.fresh for share in answers)
        made = f"{sum(share.done for share in answers):,} responses"
        made += f" ({stored:,} of them from the store)" if stored else ""
        made += f", {shares['training'].done:,} agents trained" if "training" in shares else ""
        head = "Interrupted" if outcome == "interrupted" else "Stopped by an error"
        head = f"{total} in {took}" if outcome == "finished" else f"{head} after {took}, {finished}"
        return f"{head}: {made}, {self._pace()}"

    def _row(self, phase: str, share: Share) -> str:
        guessed = any(s.method in OPEN and s.state in ("waiting", "running") for s in self.studies)
        said = f"{share.done:,} of {'about ' if guessed else ''}{share.total:,} {UNITS[phase]}"
        if stored := share.done - share.fresh:
            said += f"<small>, {stored:,} from the store</small>"
        bar = f'<progress value="{share.done}" max="{share.total}" aria-label="{PHASES[phase]}">'
        cells = f'<td class="maft-bar">{bar}</progress></td><td class="maft-of">{said}</td>'
        return f'<tr><th scope="row">{PHASES[phase]}</th>{cells}</tr>'

    def _pace(self) -> str:
        """Tokens generated, over the time in which studies that run side by side waited for them."""
        tokens = sum(study.num_tokens for study in self.studies)
        waited = sum(s.spent(phase) for s in self.studies for phase in ("data", "answers"))
        if not tokens or not waited:
            return "no tokens generated"
        return f"{tokens:,} tokens generated at {tokens / waited * self._at_a_time():,.0f} tokens/s"

    def _at_a_time(self) -> float:
        """How many studies have run side by side, on average."""
        busy = sum(study.spent(phase) for study in self.studies for phase in PHASES)
        return busy / max(self.clock() - self.began, 1e-9) if busy else 1.0

    def _time_left(self) -> str:
        """What is left of each phase, at the pace of what was made of it now."""
        seconds = 0.0
        for phase, share in self.shares().items():
            if share.done < share.total:
                paid = sum(study.paid[phase] for study in self.studies)
                if not paid:
                    return "time left not known yet"
                begun = sum(s.spent(phase) - s.paid[phase] for s in self.studies if s.phase == phase)
                seconds += max(0.0, (share.total - share.done) * paid / share.fresh - begun)
        seconds /= self._at_a_time()
        step = 1 if seconds < 10 else 5 if seconds < 60 else 30 if seconds < 600 else 60
        return f"about {span(step * -(-seconds // step))} left"


def _doing(study: Watched) -> str:
    name = f"{LABELS.get(study.method, study.method)}, {study.task}, seed {study.config.seed}"
    return f"{name}: iteration {study.iteration}, {PHASES[study.phase].lower()}"


def charts_html(studies: Sequence[Watched]) -> str:
    """A chart for each task with a line for each method that has been evaluated; nothing before.

    The answers of several seeds are taken together; configs that differ otherwise are told apart.
    """
    dumps = [study.config.model_dump(exclude={"seed", "eval_task"}) for study in studies]
    names = [name for name in dumps[0] if any(dump[name] != dumps[0][name] for dump in dumps)]
    tasks: dict[str, dict[tuple[str, str], list[pd.DataFrame]]] = {}
    for study, dump in zip(studies, dumps):
        if study.frames:
            line = study.method, ", ".join(f"{name} {dump[name]}" for name in names)
            tasks.setdefault(study.task, {}).setdefault(line, []).extend(study.frames)
    charts = [_chart(task, lines) for task, lines in tasks.items()]
    return f'<div class="maft-charts">{"".join(charts)}</div>' if charts else ""


def _chart(task: str, lines: dict[tuple[str, str], list[pd.DataFrame]]) -> str:
    """Accuracies over iterations, and a table of each line's latest."""
    rows, drawn, seen = [], io.StringIO(), Counter[str]()
    with plt.style.context(STYLES):
        figure = Figure(figsize=(4.6, 2.2))
        ax = figure.subplots()
        for number, ((method, differs), frames) in enumerate(lines.items()):
            part = metrics.accuracy(pd.concat(frames), pool_seeds=True).sort_values("iteration")
            style = look(method) | {"fillstyle": "none" if seen[method] else "full"}
            if differs:
                style["label"] += f" ({differs})"
                style["linestyle"] = ("-", "--", "-.", ":")[seen[method] % 4]
            seen[method] += 1
            x = part.iteration + 0.07 * (number - (len(lines) - 1) / 2)
            ax.errorbar(x, part.accuracy, yerr=part.standard_error, elinewidth=0.8, **style)
            last = part.iloc[-1]
            said = f"{last.accuracy:.1f} ± {last.standard_error:.1f} %"
            rows.append((escaped(style["label"]), said))
        ax.set(xlabel="iterations of finetuning", ylabel="accuracy (%)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :].replace("#000000", "currentColor")
    return f'<figure class="maft-chart">{svg}{table(f"accuracy (%), {task}", (), rows)}</figure>'


def span(seconds: float) -> str:
    """A time for people: 8 s, 2 min 10 s, 34 min, 5 h 2 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
