"""Tasks `reasoning_gym:<name>`: problems that the reasoning_gym package generates and scores itself.

Knows no other task. A dataset whose scorer could execute a model's text is refused (see `scorers`).
Options of a dataset are left at the package's defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from maft_lib.tasks.problem import Problem, half_of, normalised, problem_id
from maft_lib.tasks.records import DataError
from maft_lib.tasks.scorers import danger
from maft_lib.wording import nearest

PREFIX = "reasoning_gym:"
FULL_SCORE = 0.999  # of 1, which some scorers reach up to rounding
_SIZE = 500  # the package's default size of a dataset
_CHUNKS = 40  # datasets that are made, each from a seed of its own, before the problems count as all


def draw(task: str, split: str, num: int, seed: int) -> list[Problem]:
    """`num` different problems of a split, the same ones for the same seed; fewer if there are no more.

    Which split a problem is in is decided by a hash of its question, so train and eval share none
    whatever the seeds. Raises `DataError` for an unknown or a refused dataset, for one whose problems
    cannot be made, kept as JSON or scored, and if the package is not installed.
    """
    found: dict[str, Problem] = {}
    for entry in _entries(_name(task), f"{split} {seed}"):
        key = normalised(entry["question"])
        if key and key not in found and half_of(entry["question"]) == split:
            found[key] = _problem(task, entry)
        if len(found) == num:
            break
    return list(found.values())


def check_safe(name: str) -> None:
    """Raises `DataError` for an unknown dataset, or if its scorer could execute a model's text."""
    datasets = _package().factory.DATASETS
    if name not in datasets:
        near = nearest(name, datasets, cutoff=0.0)
        raise DataError(f"unknown dataset {PREFIX}{name}: did you mean '{PREFIX}{near}'?")
    if why := _danger(name):
        raise DataError(
            f"{PREFIX}{name} is refused, since its scorer is not safe with a model's text: {why}; "
            f"choose another dataset."
        )


def _name(task: str) -> str:
    return task.removeprefix(PREFIX)


def _entries(name: str, seed: str) -> Iterator[dict[str, Any]]:
    """Entries of datasets made from seeds that are far apart, since item i of one uses its seed + i."""
    for chunk in range(_CHUNKS):
        digest = hashlib.sha256(f"{name} {seed} {chunk}".encode()).digest()
        dataset = _dataset(name, int.from_bytes(digest[:4]))
        try:
            yield from (dataset[i] for i in range(_SIZE))
        except Exception as error:
            raise _broken(name, "cannot make a problem", error) from error


@lru_cache(maxsize=4)
def _dataset(name: str, seed: int) -> Any:
    """A dataset of the package, if its scorer may be given a model's text."""
    check_safe(name)
    try:
        return _package().create_dataset(name, seed=seed, size=_SIZE)
    except Exception as error:
        raise _broken(name, "cannot be made", error) from error


@lru_cache
def _danger(name: str) -> str | None:
    return danger(_package().factory.DATASETS[name][0])


def _broken(name: str, what: str, error: Exception) -> DataError:
    why = f"{type(error).__name__}: {error}"
    return DataError(f"{PREFIX}{name} {what} ({why}): choose another dataset.")


def _package() -> Any:
    try:
        import reasoning_gym
        import reasoning_gym.factory
    except ImportError as error:
        raise DataError(
            f"tasks {PREFIX}<name> need the reasoning-gym package: "
            f"pip install 'maft_lib[reasoning-gym]' (or pip install reasoning-gym)."
        ) from error
    return reasoning_gym


def _problem(task: str, entry: dict[str, Any]) -> Problem:
    """The problem of an entry, which goes through JSON: tuples become lists, other types are refused.

    So the scorer must still give the entry's own answer the full score.
    """
    kept = {name: entry.get(name) for name in ("question", "answer", "metadata")}
    try:
        scoring = json.dumps({"name": _name(task), "entry": kept}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _broken(_name(task), "has an entry that JSON cannot hold", error) from error
    question, answer = entry["question"], entry["answer"]
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(f"{task} gives no answers with its problems: choose another dataset.")
    if not _is_right(_name(task), answer, json.loads(scoring)["entry"]):
        raise DataError(f"{task} does not take its own answers as right: choose another dataset.")
    source = f"reasoning_gym {version('reasoning-gym')}"
    return Problem(problem_id(question), task, question, answer, scoring=scoring, source=source)


def _is_right(name: str, answer: str, entry: dict[str, Any]) -> bool:
    try:
        return float(_dataset(name, 0).score_answer(answer, entry)) >= FULL_SCORE
    except Exception:  # the scorer cannot work from JSON
        return False
