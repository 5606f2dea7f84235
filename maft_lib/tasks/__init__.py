"""The tasks: where problems come from and what kind of answer they want.

Four are generated, three are read from published data sets, `<file>.jsonl` is a user's own file, and
`reasoning_gym:<name>` is a data set of the reasoning_gym package whose scorer can be given a model's
text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maft_lib.tasks import published, reasoning_gym
from maft_lib.tasks.generated import draw_split
from maft_lib.tasks.problem import DataError, Problem
from maft_lib.wording import nearest, shown

ANSWER_TYPES = {
    "arithmetic": "number",
    "gsm": "number",
    "math": "expression",
    "mmlu": "choice",
    "mini_gsm": "number",
    "mini_math": "expression",
    "mini_mmlu": "choice",
}
TASKS = tuple(ANSWER_TYPES)
PUBLISHED = tuple(published.RECORDS)
GENERATED = tuple(task for task in TASKS if task not in PUBLISHED)
WITH_LEVELS = ("math", "mini_math")
ALIASES = {"gsm8k": "gsm", "competition_math": "math"}
IN_VAIN = 10_000  # draws in a row without a new problem after which the problems count as all


def canonical(task: str) -> str:
    """The name of a task that has a second one (`gsm8k` is `gsm`); any other text as it is."""
    return ALIASES.get(task, task)


def answer_type(task: str) -> str:
    """`number`, `expression`, `choice` or, of reasoning_gym, `text`. Raises `DataError` if unknown."""
    if str(task).startswith(reasoning_gym.PREFIX):
        return "text"
    if published.is_own(str(task)):
        return published.answer_type_of(task)
    if canonical(task) not in ANSWER_TYPES:
        valid = (*TASKS, *ALIASES, reasoning_gym.PREFIX + "<name>", "<file>.jsonl")
        near = nearest(task, valid)
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(valid)}."
        raise DataError(f"unknown task {shown(task)}: {hint}")
    return ANSWER_TYPES[canonical(task)]


class _Request(BaseModel):
    """What `load_problems` can be asked for."""

    model_config = ConfigDict(strict=True)
    split: Literal["train", "eval"]
    num: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    levels: Annotated[Sequence[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1)] | None
    data_dir: str | None
    max_operand: Annotated[int, Field(ge=2)]
    on_bad_records: Literal["refuse", "skip"]


def load_problems(
    task: str,
    split: str = "eval",
    num: int = 500,
    seed: int = 0,
    levels: Sequence[int] | None = None,
    data_dir: str | None = None,
    max_operand: int = 30,
    on_bad_records: str = "refuse",
) -> list[Problem]:
    """`num` different problems of a task's split, the same ones for the same seed (Section 3.1).

    Splits are disjoint whatever the seeds, by id and by question. `levels` restricts math and
    mini_math (the paper uses levels 1-3 of MATH), `max_operand` bounds the operands of arithmetic.
    gsm, math and mmlu are read from the folder `data_dir`, else from the one that the environment
    variable MAFT_DATA_DIR names, else from the Hugging Face hub; other tasks read no files.
    `on_bad_records` says whether records that cannot be read are an error (`refuse`) or are left out
    with a warning (`skip`).

    Raises `DataError` for an unknown task, split or option, if the task has fewer than `num`
    problems, and if files or records cannot be read.
    """
    answer_type(task)
    task = canonical(task)
    try:
        _Request.model_validate(locals())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise DataError(f"{wrong['loc'][0]} is {shown(wrong['input'])}: {wrong['msg']}.") from None
    if data_dir is not None and task not in PUBLISHED:
        raise DataError(f"{task} reads no files: leave data_dir out.")
    if levels is not None and task not in WITH_LEVELS and not published.is_own(task):
        raise DataError(f"{task} has no levels, only {' and '.join(WITH_LEVELS)} do: leave levels out.")
    rng = random.Random(f"{task} {split} {seed}")
    if task in PUBLISHED or published.is_own(task):
        pool = published.pool(task, split, data_dir, on_bad_records)
        wanted = [problem for problem in pool if levels is None or problem.level in levels]
        ordered = sorted(wanted, key=lambda problem: problem.id)  # whatever the order of the file
        problems = rng.sample(ordered, min(num, len(ordered)))
    elif task in GENERATED:
        found: dict[str, Problem] = {}
        in_vain = 0
        while len(found) < num and in_vain < IN_VAIN:
            problem, _ = draw_split(task, split, rng, levels, max_operand)
            in_vain = in_vain + 1 if problem.id in found else 0
            found.setdefault(problem.id, problem)
        problems = list(found.values())
    else:
        problems = reasoning_gym.draw(task, split, num, seed)
    if len(problems) < num:
        raise DataError(
            f"{task} has only {len(problems)} different {split} problems of this kind, not {num}: "
            f"ask for fewer, for more levels, or for a larger max_operand."
        )
    return problems
