"""A debate as a text to keep: Markdown to read, JSON to read again. Knows no widgets and no models.

Everything that a model or a person wrote is in fences or code spans that are longer than any run of
backticks in it, so that it stays text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from maft_lib.arguments import as_path, as_place
from maft_lib.debate import Debate, Turn
from maft_lib.grading import is_correct
from maft_lib.lab.markdown import cell, code, fenced
from maft_lib.store.files import replacing
from maft_lib.tasks.problem import Problem
from maft_lib.wording import one_line


def to_markdown(debate: Debate, parameters: Mapping[str, object], finished: bool = True) -> str:
    """The debate as Markdown: the question, every round with all agents, the vote, the parameters.

    `parameters` are shown as they are. `finished=False` says that the debate was stopped.
    """
    num_rounds = max((len(turns) for turns in debate.turns), default=0)
    parts = [
        f"# A debate on {code(debate.problem.task)}",
        fenced(debate.problem.question),
        *(_round(debate, number) for number in range(num_rounds)),
        _outcome(debate, finished),
        _table("Parameters", "parameter", "value", parameters),
    ]
    return "\n\n".join(parts) + "\n"


def _round(debate: Debate, number: int) -> str:
    parts = [f"## Round {number + 1}"]
    for n, turns in enumerate(debate.turns, start=1):
        if number < len(turns):
            parts += [f"### Agent {n}", *_turn(turns[number], debate.problem)]
    return "\n\n".join(parts)


def _turn(turn: Turn, problem: Problem) -> list[str]:
    read = [] if turn.summary is None else ["Summary of the other agents:", fenced(turn.summary)]
    said = ["Response:"] if read else []
    return [*read, *said, fenced(turn.response), f"Final answer: {_answer(turn.answer, problem)}"]


def _outcome(debate: Debate, finished: bool) -> str:
    truth = code(debate.problem.answer) if debate.problem.answer else "none given"
    vote = _answer(debate.vote, debate.problem) if finished else "none: the debate was stopped"
    return f"## Majority vote\n\n- Vote: {vote}\n- Ground truth: {truth}"


def _answer(answer: str | None, problem: Problem) -> str:
    if answer is None:
        return "none"
    if not problem.answer and problem.scoring is None:
        return code(answer)
    return f"{code(answer)} {'✓' if is_correct(answer, problem) else '✗'}"


def _table(title: str, name: str, value: str, rows: Mapping[str, object]) -> str:
    lines = [f"| {cell(key)} | {cell(item)} |" for key, item in rows.items()]
    return "\n".join([f"## {title}\n", f"| {name} | {value} |", "| --- | --- |", *lines])


def to_json(debate: Debate, parameters: Mapping[str, object]) -> str:
    """The debate and its parameters as JSON: `from_json` has them again."""
    return json.dumps({"debate": debate.to_dict(), "parameters": dict(parameters)}, indent=1) + "\n"


def from_json(text: str) -> tuple[Debate, dict]:
    """The debate and the parameters that `to_json` wrote. Raises `ValueError` for other text."""
    try:
        values = json.loads(text)
        return Debate.from_dict(values["debate"]), dict(values["parameters"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"no transcript of a debate ({one_line(error)}): give a file that DebateStudio saved as "
            ".json."
        ) from error


def save_transcript(
    path: str | Path, debate: Debate, parameters: Mapping[str, object], finished: bool = True
) -> Path:
    """Writes a transcript; the suffix, .md or .json, decides how.

    Raises `ValueError` for another, or a folder that is not there, `StoreError` if the disk refuses.
    """
    path = as_place(os.path.expanduser(as_path("path", path)))
    if path.suffix == ".md":
        text = to_markdown(debate, parameters, finished)
    elif path.suffix == ".json":
        text = to_json(debate, parameters)
    else:
        raise ValueError(f"{path.name}: a transcript is saved as .md or .json; end its name so.")
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", errors="replace")
    return path


def load_transcript(path: str | Path) -> tuple[Debate, dict]:
    """The debate and the parameters of a transcript saved as .json. Raises `ValueError` for another."""
    place = Path(os.path.expanduser(as_path("path", path)))
    try:
        return from_json(place.read_bytes().decode(errors="replace"))
    except OSError as error:
        raise ValueError(f"{place} cannot be read ({error.strerror}): name a saved .json.") from error
