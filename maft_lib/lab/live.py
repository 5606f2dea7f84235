"""Running studies in one output that changes in place: phases, pace, time left, accuracies so far.

Only where somebody watches. A notebook that is executed without a front end (papermill, nbclient,
nbval), a program and a terminal get the plain lines of `report`. Counts come from `progress`; knows no
debates and no models. Whatever goes wrong in showing, the studies go on and their lines are printed.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import Any

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.lab.chart import Point, Series, chart_html
from maft_lib.lab.page import escaped, fold, framed
from maft_lib.progress import Progress, Share, Watched

STYLE = Path(__file__).with_name("live.css").read_text(encoding="utf-8")
PAUSE = 0.5  # seconds between two updates
NAMES = {"data": "Debates to learn from", "training": "Finetuning", "answers": "Evaluation"}
UNITS = {"data": "responses", "training": "agents", "answers": "responses"}

Say = Callable[[str], None]


@contextmanager
def followed(
    studies: Sequence[tuple[str, str, Config]], backends: Sequence[Any], report: Say | None = None
) -> Iterator[tuple[Say, Callable[[int], AbstractContextManager[Any]]]]:
    """Yields what takes a study's lines, and the context in which the study of a number runs.

    The caller's `report` is left as it is; without one the lines are shown live, or printed where
    nobody watches.
    """
    if report is not None or not studies or not somebody_watches():
        yield report or print, lambda number: nullcontext()
        return
    progress = Progress(studies)
    with _without_bars(backends), LiveView(progress) as view:
        yield view.say, progress.study


def somebody_watches() -> bool:
    """Whether this is a notebook with a front end, one that could answer `input()`.

    JupyterLab, Notebook and VS Code say so with every cell that they send; nbclient, and so papermill,
    nbconvert and nbval, say the contrary.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


@contextmanager
def _without_bars(backends: Sequence[Any]) -> Iterator[None]:
    """The bars that backends print for each batch would push the view about."""
    engines = {id(engine): engine for b in backends if (engine := getattr(b, "inner", b))}
    shown = [engine for engine in engines.values() if getattr(engine, "progress", False)]
    for engine in shown:
        engine.progress = False
    try:
        yield
    finally:
        for engine in shown:
            engine.progress = True


class LiveView:
    """An output of the running cell, drawn again by a thread of its own at most twice a second.

    What it shows at the end is plain HTML: a saved notebook keeps it.
    """

    def __init__(self, progress: Progress):
        self.progress = progress
        self.lines: list[str] = []
        self._handle: Any = None
        self._shown = ""
        self._broken = False
        self._charts: tuple[int, str] = (0, "")
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
        try:
            html = view_html(self.progress, self.lines, self._drawn_charts(), outcome)
            if html != self._shown:
                self._show(html, "\n".join([summary(self.progress, outcome), *self.lines]))
                self._shown = html
        except Exception as error:  # a study must not fail since it cannot be shown
            self._broken = True
            print(f"The live view cannot be shown ({type(error).__name__}: {error}); lines instead:")
            print("\n".join(self.lines))

    def _show(self, html: str, plain: str) -> None:
        from IPython.display import display

        output = {"text/html": html, "text/plain": plain}
        if self._handle is None:
            self._handle = display(output, raw=True, display_id=True)
        else:
            self._handle.update(output, raw=True)

    def _drawn_charts(self) -> str:
        """The charts, computed again when there is a new evaluation."""
        num = sum(len(study.frames) for study in self.progress.studies)
        if num != self._charts[0]:
            self._charts = num, charts_html(self.progress.studies)
        return self._charts[1]


def view_html(progress: Progress, lines: Sequence[str], charts: str, outcome: str = "") -> str:
    """The whole output; `outcome` is empty while studies run, then finished, failed or interrupted."""
    head = f"<p>{escaped(summary(progress, outcome))}</p>"
    if outcome:
        below = fold("lines of the report", f"<pre>{escaped(chr(10).join(lines))}</pre>")
        parts = [head, charts, below if lines else ""]
    else:
        rows = "".join(map(_phase_row, progress.shares()))
        table = f'<table class="maft-phases"><tbody>{rows}</tbody></table>'
        running = " · ".join(_doing(s) for s in progress.studies if s.state == "running")
        quiet = [_pace(progress), *([f"now: {running}"] if running else [])]
        below = "".join(f'<p class="maft-quiet">{escaped(line)}</p>' for line in quiet)
        parts = [head, table, below, charts]
    return framed(f"<style>{STYLE}</style>{''.join(parts)}", "maft-live")


def summary(progress: Progress, outcome: str = "") -> str:
    """One line: how many studies are finished, in what time and, while they run, how much is left."""
    states = [study.state for study in progress.studies]
    total = _counted(len(states), "study", "studies")
    took = span(progress.seconds())
    if outcome == "finished":
        return f"{total} in {took}: {_done(progress)}"
    finished = f"{states.count('finished'):,} of {total} finished"
    if outcome:
        verb = "Stopped by an error" if outcome == "failed" else "Interrupted"
        return f"{verb} after {took}, {finished}: {_done(progress)}"
    return f"{finished} · {took} so far · {_time_left(progress)}"


def _done(progress: Progress) -> str:
    shares = {share.phase: share for share in progress.shares()}
    answers = [shares[phase] for phase in ("data", "answers") if phase in shares]
    done, stored = sum(s.done for s in answers), sum(s.stored for s in answers)
    parts = [_counted(done, "response", "responses") + _from_store(stored)]
    if "training" in shares:
        agents = shares["training"]
        parts.append(_counted(agents.done, "agent", "agents") + " trained" + _from_store(agents.stored))
    return ", ".join([*parts, _pace(progress)])


def _from_store(stored: int) -> str:
    return f" ({stored:,} of them from the store)" if stored else ""


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _pace(progress: Progress) -> str:
    pace = progress.tokens_per_second()
    if pace is None:
        return "no tokens generated"
    return f"{progress.num_tokens:,} tokens generated at {pace:,.0f} tokens/s"


def _time_left(progress: Progress) -> str:
    left = progress.seconds_left()
    if left is None:
        return "time left not known yet"
    known = " for what is known so far" if any(s.at_least for s in progress.shares()) else ""
    step = next(step for most, step in ((10, 1), (60, 5), (600, 30), (math.inf, 60)) if left < most)
    return f"about {span(step * math.ceil(left / step))} left{known}"


def _phase_row(share: Share) -> str:
    of = "of at least" if share.at_least else "of"
    said = f"{share.done:,} {of} {share.total:,} {UNITS[share.phase]}"
    stored = f"<small>, {share.stored:,} from the store</small>" if share.stored else ""
    name = escaped(NAMES[share.phase])
    bar = f'<progress value="{share.done}" max="{share.total}" aria-label="{name}"></progress>'
    cells = f'<td class="maft-bar">{bar}</td><td class="maft-of">{said}{stored}</td>'
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _doing(study: Watched) -> str:
    """What a study is at, in words."""
    from maft_lib.plots.style import LABELS

    doing = {"data": "debates to learn from", "training": "finetuning", "answers": "evaluation"}
    name = f"{LABELS.get(study.method, study.method)}, {_task(study)}, seed {study.config.seed}"
    return f"{name}: iteration {study.iteration}, {doing[study.phase]}"


def _task(study: Watched) -> str:
    tested = study.config.eval_task
    return f"{study.task} to {tested}" if tested else study.task


def charts_html(studies: Sequence[Watched]) -> str:
    """A chart for each task with a line for each method that has been evaluated; nothing before."""
    tasks: dict[str, list[Watched]] = {}
    for study in studies:
        if study.frames:
            tasks.setdefault(_task(study), []).append(study)
    last = max((study.last_iteration for study in studies), default=0)
    size = (460, 230) if len(tasks) == 1 else (320, 200)
    names = variants([study.config for study in studies])
    labels = {id(study): name for study, name in zip(studies, names)}
    charts = [
        chart_html(f"accuracy (%), {task}", _series(some, labels), last, *size)
        for task, some in tasks.items()
    ]
    return f'<div class="maft-charts">{"".join(charts)}</div>' if charts else ""


def _series(studies: Sequence[Watched], variant: dict[int, str]) -> list[Series]:
    """The accuracies of studies of one task; the answers of several seeds are taken together."""
    import pandas as pd

    from maft_lib.plots.style import look

    lines: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for study in studies:
        lines.setdefault((study.method, variant[id(study)]), []).extend(list(study.frames))
    series, seen = [], [method for method, _ in lines]
    for number, ((method, differs), frames) in enumerate(lines.items()):
        rows = metrics.accuracy(pd.concat(frames), pool_seeds=True).sort_values("iteration")
        points = [Point(r.iteration, r.accuracy, r.standard_error) for r in rows.itertuples()]
        name, color, marker, line = look(method).values()
        name += f" ({differs})" if differs else ""
        series.append(Series(name, color, marker, line, points, seen[:number].count(method)))
    return series


def variants(configs: Sequence[Config]) -> list[str]:
    """Of each config what tells it from the others, seeds and tasks apart: "num_agents 3"."""
    dumps = [config.model_dump(exclude={"seed", "eval_task"}) for config in configs]
    differing = [name for name in dumps[0] if any(dump[name] != dumps[0][name] for dump in dumps)]
    return [", ".join(f"{name} {dump[name]}" for name in differing) for dump in dumps]


def span(seconds: float) -> str:
    """A time for people: 8 s, 2 min 10 s, 34 min, 5 h 2 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
