"""Which problems of a published data set are for finetuning and which for evaluation (Section 3.1).

Knows no file format. Where a data set has a train and a test split, these are train and eval. Where
only the test split is at hand (MMLU always, MATH in a folder without math_train.jsonl), train and eval
are two halves of it, told apart by a hash of the question alone: they share nothing whatever the
seeds, and `note_on_train` says so.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

from maft_lib.tasks import competition_math, gsm, mmlu
from maft_lib.tasks.problem import Problem, half_of, normalised
from maft_lib.tasks.records import DataWarning, Published, data_folder, find_file, load

PUBLISHED: dict[str, tuple[Published | None, Published]] = {
    "gsm": (gsm.TRAIN, gsm.TEST),
    "math": (competition_math.TRAIN, competition_math.TEST),
    "mmlu": (mmlu.TRAIN, mmlu.TEST),
}
_HALF = ", {} half"


def pool(task: str, split: str, data_dir: str | None, on_bad_records: str) -> list[Problem]:
    """All problems of a task's split. Raises `DataError` (see `records.load`)."""
    train, test = PUBLISHED[task]
    folder = data_folder(data_dir)
    if train is None or (folder and train.optional and find_file(train, folder) is None):
        return _half(load(test, folder, on_bad_records), split)
    if split == "eval":
        return load(test, folder, on_bad_records)
    problems = load(train, folder, on_bad_records)
    if folder and find_file(test, folder) is None:
        return problems
    return _without(problems, load(test, folder, on_bad_records))


def draw(problems: Iterable[Problem], num: int, rng: random.Random) -> list[Problem]:
    """`num` of the problems, whatever order they come in; all of them if there are fewer."""
    ordered = sorted(problems, key=lambda problem: problem.id)
    return rng.sample(ordered, min(num, len(ordered)))


def note_on_train(train: Sequence[Problem]) -> str | None:
    """A sentence for a result whose train problems come from a test split; None if they do not."""
    ending = _HALF.format("train")
    sources = {p.source.removesuffix(ending) for p in train if p.source and p.source.endswith(ending)}
    if not sources:
        return None
    return (
        f"train problems come from a test split ({', '.join(sorted(sources))}), "
        f"from a half of it that no eval problem is drawn from."
    )


def _half(problems: Iterable[Problem], split: str) -> list[Problem]:
    """The problems of a test split that are in the half called `split`.

    For MMLU the question without its options decides, so variants of a question stay together.
    """
    return [
        replace(problem, source=f"{problem.source}{_HALF.format(split)}")
        for problem in problems
        if half_of(mmlu.stem(problem)) == split
    ]


def _without(train: list[Problem], test: Iterable[Problem]) -> list[Problem]:
    """The train problems whose question is no test question too; a `DataWarning` tells of those."""
    asked = {normalised(problem.question) for problem in test}
    kept = [problem for problem in train if normalised(problem.question) not in asked]
    if len(kept) < len(train):
        left_out = [problem.id for problem in train if normalised(problem.question) in asked]
        told = f"{len(left_out)} left out, since the test split asks them too: {', '.join(left_out)}"
        warnings.warn(f"{train[0].source}: {told}.", DataWarning, stacklevel=4)
    return kept
