r"""MATH (Hendrycks et al., 2021; Section 3.1): competition problems of levels 1-5. Knows no split.

The answer is the last `\boxed{}` of the solution. The original on the hub was taken down, so records
come from a mirror at a pinned revision; the test split must have the content of the original files,
whichever mirror it is read from. The train split's content hash is not known here, so the revision
and the number of records are what pins it.
"""

from __future__ import annotations

import re
from typing import Any

from maft_lib.tasks.boxes import last_box
from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.tasks.records import BadRecord, Published, gradable, text

LEVELS = (1, 2, 3, 4, 5)
_REPO = "DigitalLearningGmbH/MATH-lighteval"
_REVISION = "0530c78699ea5e8eb5530600900e1f328b48acad"


def parse(record: dict[str, Any]) -> Problem:
    """The problem of a record, with its level and its subject."""
    question, answer = text(record, "problem"), last_box(text(record, "solution"))
    if answer is None:
        raise BadRecord("has no \\boxed{} in its solution")
    if not answer:
        raise BadRecord("has an empty \\boxed{}")
    level, subject = _level(text(record, "level")), text(record, "type")
    return Problem(problem_id(question), "math", question, gradable(answer), level, subject)


def _level(written: str) -> int | None:
    """1-5. Some records upstream say `Level ?`: they have no level, so no choice of levels has them."""
    level = re.fullmatch(r"Level ([1-5?])", written)
    if not level:
        raise BadRecord(f"has the level {written[:40]!r}, not Level 1 to Level 5")
    return None if level[1] == "?" else int(level[1])


TRAIN = Published(
    task="math",
    files=("math_train.jsonl",),
    repo=_REPO,
    config="default",
    split="train",
    revision=_REVISION,
    num_records=7500,
    parse=parse,
    fields=("problem", "solution"),
    optional=True,  # without it, train problems come from a half of the test split
)
TEST = Published(
    task="math",
    files=("math_test.jsonl",),
    repo=_REPO,
    config="default",
    split="test",
    revision=_REVISION,
    num_records=5000,
    parse=parse,
    fields=("problem", "solution"),
    content="4cf4c6187253014e9520de78813953e29b469d90800d1114a7f0c566e3ad1762",
)
