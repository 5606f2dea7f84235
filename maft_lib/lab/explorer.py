"""The explorer of finished debates: one HTML page that needs neither a kernel nor the network.

Python judges the debates and finds the words; `explorer.js` sorts, filters, compares and draws, and
reads the formulas of the debate on screen, so a page of 10,000 stays small.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from maft_lib.debate import Debate
from maft_lib.lab.debates import View
from maft_lib.study import Result

Explorable: TypeAlias = Iterable[Debate | Result] | Mapping[Any, Any] | Result

RUN = ("method", "seed", "iteration")  # what tells two debates of the same problem apart
# JupyterLab takes style and frame out of a notebook that is not trusted: then the sentence is read.
FRAME = """<style>
.maft-explorer {
  border: 1px solid #8886; border-radius: 4px; box-sizing: border-box; display: block; height: 46rem;
  resize: vertical; width: 100%;
}
[data-jp-theme-light="true"] .maft-explorer, .vscode-light .maft-explorer { color-scheme: light; }
[data-jp-theme-light="false"] .maft-explorer, .vscode-dark .maft-explorer { color-scheme: dark; }
.maft-distrusted { display: none; }
</style><p class="maft-distrusted">{title}: trust this notebook to see them.</p>
<iframe class="maft-explorer" title="{title}" sandbox="allow-scripts allow-downloads" srcdoc="{page}">
</iframe>"""


def entries(explorable: Explorable) -> Iterator[tuple[Debate, dict[str, Any]]]:
    """All debates in what `DebateExplorer` takes, in order, each with what is known of its run."""
    if isinstance(explorable, Mapping):
        for key, part in explorable.items():
            name = ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
            yield from ((debate, run | {"method": name}) for debate, run in entries(part))
        return
    for part in explorable if isinstance(explorable, Iterable) else [explorable]:
        if isinstance(part, Debate):
            yield part, {}
        elif isinstance(part, Result):
            seed = part.config.seed if part.config else None
            for iteration, debates in enumerate(part.evaluations):
                run = {"method": part.method, "seed": seed, "iteration": iteration}
                yield from ((debate, run) for debate in debates)
        else:
            raise ValueError(f"A {type(part).__name__} cannot be explored: give Debates or Results.")


def index_row(view: View, **run: Any) -> dict[str, Any]:
    """A row of the index: the problem, the run, how many were right first and last, the outcomes.

    Several outcomes may hold. An answer that cannot be read is wrong and in no class of equivalent
    answers. Without a ground truth nothing is right, nor is the vote wrong. An agent is fixed or broken
    by its critic turns, first answer against last. A vote changed, or was turned right or wrong, if the
    first answers could not have voted so, not even by luck in a tie.
    """
    problem, debate, groups = view.problem, view.debate, view.groups
    right = [[view.kind(answer) == "right" for answer in agent] for agent in debate.answers]
    last = [groups[agent[-1]] for agent in debate.answers if agent[-1] in groups]
    could_win = view.first_votes()
    right_letters = {groups[answer] for answer, is_right in view.right.items() if is_right}
    right_first = [letter in right_letters for letter in could_win]
    vote_right = view.kind(debate.vote) == "right"
    vote_wrong = view.judged and not vote_right
    unanimous = len(set(last)) == 1 and len(last) == len(right) > 1
    turned = len(right[0]) > 1  # it can be
    return {
        "problem": problem.id,
        "task": problem.task,
        "level": problem.level,
        **{name: run.get(name) for name in RUN},
        "question": " ".join(problem.question.split()),
        "first_right": sum(agent[0] for agent in right),
        "last_right": sum(agent[-1] for agent in right),
        "vote_right": vote_right,
        "vote_wrong": vote_wrong,
        "vote_changed": turned and bool(could_win) and groups.get(str(debate.vote)) not in could_win,
        "split_vote": len(set(last)) > 1,
        "tie": view.count().endswith("at random"),
        "unanimous_and_right": unanimous and vote_right,
        "unanimous_and_wrong": unanimous and vote_wrong,
        "critic_fixed_it": any(agent[-1] and not agent[0] for agent in right),
        "critic_broke_it": any(agent[0] and not agent[-1] for agent in right),
        "turned_right": turned and vote_right and not any(right_first),
        "turned_wrong": turned and vote_wrong and bool(right_first) and all(right_first),
        "unparsable": len(last) < len(right),
    }


def index_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows in order; `run` says what tells the run of each from the others."""
    frame = pd.DataFrame(rows).astype(dict.fromkeys(("level", "seed", "iteration"), "Int64"))
    differing = [name for name in RUN if frame[name].nunique(dropna=False) > 1]
    words = ["" if name == "method" else f"{name} " for name in differing]
    runs = [
        ", ".join(f"{word}{value}" for word, value in zip(words, values) if pd.notna(value))
        for values in frame[differing].to_numpy()
    ]
    return frame.assign(run=runs)


class DebateExplorer:
    """Finished debates to sort, filter and compare, in JupyterLab or in a file.

    Takes a list of Debates, a `Result` (its debates on the eval problems after every iteration), or a
    list or dict of Results; a dict's keys stand where the methods do, and its values may be lists of
    Debates. `frame` is the index (`index_frame`), `debates` the debates in its order, `page` the whole
    page as HTML, which a saved notebook keeps. Raises `ValueError` if there is no debate.
    """

    def __init__(self, debates_or_results: Explorable):
        found = [(View(debate), run) for debate, run in entries(debates_or_results)]
        if not found:
            raise ValueError("There are no debates to explore: run some, or give another Result.")
        self.debates = [view.debate for view, _ in found]
        self.frame = index_frame(index_row(view, **run) for view, run in found)
        self.page = page_html(self.frame, [view for view, _ in found])

    def __repr__(self) -> str:
        return f"DebateExplorer({len(self.debates):,} debates, {self.frame['run'].nunique():,} runs)"

    def _repr_html_(self) -> str:
        """The page in a frame that can reach neither the notebook nor the network."""
        return FRAME.replace("{title}", _title(len(self.debates))).replace("{page}", escape(self.page))

    def save(self, path: str | Path) -> Path:
        """Writes the page to a file to open, keep or send, and returns its path."""
        path = Path(path)
        path.write_text(self.page, encoding="utf-8")
        return path


def page_html(frame: pd.DataFrame, views: list[View]) -> str:
    """The page with its data inside: compressed JSON in base64, in which no text can be markup."""
    outcomes = list(frame.select_dtypes(bool))
    runs = frame["run"].unique().tolist()
    rows = []
    for view, values in zip(views, frame.to_dict("records")):
        debate = {name: value for name, value in vars(view.debate).items() if name != "costs"}
        could_win, groups = view.first_votes(), view.groups
        speaker = next((a for a in groups if groups[a] in could_win), None)
        happened = [name.replace("_", " ") for name in outcomes if values[name]]
        row = {name: values[name] for name in ("first_right", "last_right", "vote_right")}
        row |= {"run": runs.index(values["run"]), "outcomes": happened}
        row["words"] = [name for name in happened if name not in ("vote right", "vote wrong")]
        row["before"] = "tie" if len(could_win) > 1 else speaker
        row["vote"] = [*_judged(view, view.debate.vote), view.count()]
        row["turns"] = [
            [
                (*_judged(view, turn.answer), *view.change(n, m), view.summary(n, m), view.cost(n, m))
                for m, turn in enumerate(turns)
            ]
            for n, turns in enumerate(view.debate.turns)
        ]
        rows.append({**row, "debate": debate})
    data = json.dumps({"runs": runs, "debates": rows}, default=vars, separators=(",", ":")).encode()
    packed = base64.b64encode(gzip.compress(data, 4, mtime=0)).decode()
    return _filled(packed, _title(len(rows)))


def rebuilt(page: str) -> str | None:
    """The page of the data in another page, of which nothing else is kept; None if it has none."""
    data = re.search(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]+)</script>', page)
    title = re.search(r"<title>([\d,]+ debates?)</title>", page)
    return _filled(data[1], title[1]) if data and title else None


def _title(number: int) -> str:
    return f"{number:,} debate{'s' if number != 1 else ''}"


def _judged(view: View, answer: str | None) -> tuple[str, str]:
    """Whether an answer is right, and the letter of its equals."""
    return view.kind(answer), view.groups.get(str(answer), "") if answer is not None else ""


def _filled(data: str, title: str) -> str:
    """The page of `explorer.html`; its policy lets this one script run and nothing be fetched."""
    page, style, script = (
        Path(__file__).with_name(f"explorer.{suffix}").read_text(encoding="utf-8")
        for suffix in ("html", "css", "js")
    )
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"title": title, "style": style, "data": data, "checksum": checksum, "script": script}
    for name, part in parts.items():
        page = page.replace(f"{{{{ {name} }}}}", part)
    return page
