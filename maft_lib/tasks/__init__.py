"""The tasks: where problems come from and what kind of answer they want. Knows no model, no prompt."""

from __future__ import annotations

import difflib
import random

from maft_lib.tasks import arithmetic, miniature
from maft_lib.tasks.problem import Problem, problem_id, split_of
from maft_lib.tasks.worked import Worked

ANSWER_TYPES = {
    "arithmetic": "number",
    "mini_gsm": "number",
    "mini_math": "expression",
    "mini_mmlu": "choice",
}
TASKS = tuple(ANSWER_TYPES)
SPLITS = ("train", "eval")


def answer_type(task: str) -> str:
    """`number`, `expression` or `choice`. Raises `ValueError` for an unknown task."""
    if task not in ANSWER_TYPES:
        near = difflib.get_close_matches(task, TASKS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": expected one of {', '.join(TASKS)}."
        raise ValueError(f"unknown task {task!r}{hint}")
    return ANSWER_TYPES[task]


def draw(
    task: str, rng: random.Random, levels: tuple[int, ...] | None = None, max_operand: int = 30
) -> Worked:
    """One random problem of a generated task together with its worked solutions."""
    if task == "arithmetic":
        return arithmetic.draw(rng, max_operand)
    if task == "mini_math":
        return miniature.draw_mini_math(rng, levels or (1, 2, 3, 4, 5))
    return {"mini_gsm": miniature.draw_mini_gsm, "mini_mmlu": miniature.draw_mini_mmlu}[task](rng)


def draw_split(
    task: str,
    split: str,
    rng: random.Random,
    levels: tuple[int, ...] | None = None,
    max_operand: int = 30,
) -> tuple[Problem, Worked]:
    """Draws until a problem falls into `split` (`train`, `eval` or `corpus`); see `split_of`."""
    while True:
        worked = draw(task, rng, levels, max_operand)
        identifier = problem_id(worked.question)
        if split_of(identifier) == split:
            fields = worked.question, worked.answer, worked.level, worked.subject
            return Problem(identifier, task, *fields), worked


def load_problems(
    task: str,
    split: str = "eval",
    num: int = 500,
    seed: int = 0,
    levels: tuple[int, ...] | list[int] | None = None,
    data_dir: str | None = None,
    max_operand: int = 30,
) -> list[Problem]:
    """`num` different problems of a task's split, the same ones for the same seed (Section 3.1).

    Splits are disjoint whatever the seeds. `levels` restricts mini_math, `max_operand` bounds the
    operands of arithmetic. `data_dir` is for tasks that are read from files; generated tasks take
    none. Raises `ValueError` for an unknown task, split or option, or if the task has fewer than
    `num` problems.
    """
    answer_type(task)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: a split is one of {', '.join(SPLITS)}.")
    if data_dir is not None:
        raise ValueError(f"{task} is generated and reads no files: leave data_dir out.")
    if levels is not None and (task != "mini_math" or not set(levels) <= {1, 2, 3, 4, 5}):
        raise ValueError(f"levels {list(levels)} do not fit {task}: mini_math alone has levels 1-5.")
    rng = random.Random(f"{task} {split} {seed}")
    problems: dict[str, Problem] = {}
    for _ in range(100 * num):
        problem, _ = draw_split(task, split, rng, tuple(levels or ()) or None, max_operand)
        problems.setdefault(problem.id, problem)
        if len(problems) == num:
            return list(problems.values())
    raise ValueError(
        f"{task} has only about {len(problems)} different {split} problems with these options; "
        f"{num} were asked for. Ask for fewer, or raise max_operand."
    )
