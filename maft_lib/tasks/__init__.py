"""The tasks: where problems come from and what kind of answer they want. Knows no model, no prompt.

Four are generated here, three are read from published data sets, and `reasoning_gym:<name>` is any of
the reasoning_gym package's whose scorer can be given a model's text.
"""

from __future__ import annotations

import os
import random

from maft_lib.tasks import arithmetic, miniature, reasoning_gym, splits
from maft_lib.tasks.problem import Problem, problem_id, split_of
from maft_lib.tasks.records import POLICIES, DataError
from maft_lib.tasks.worked import Worked
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
PUBLISHED = tuple(splits.PUBLISHED)
GENERATED = tuple(task for task in TASKS if task not in PUBLISHED)
WITH_LEVELS = ("math", "mini_math")
ALIASES = {"gsm8k": "gsm", "competition_math": "math"}
SPLITS = ("train", "eval")
IN_VAIN = 10_000  # draws in a row that bring no new problem: there are hardly any more
_OR_ELSE = {"arithmetic": ", or raise max_operand", "math": ", or for more levels"}


def canonical(task: str) -> str:
    """The name of a task that has another one too (`gsm8k` is `gsm`); any other text as it is."""
    return ALIASES.get(task, task)


def answer_type(task: str) -> str:
    """`number`, `expression`, `choice` or `text`. Raises `DataError` for an unknown task.

    `text` is that of `reasoning_gym:<name>`, whatever the name: free text, which can be compared as a
    number where it is one; the dataset's own scorer judges it (see `grading.is_correct`).
    """
    if not isinstance(task, str):
        raise DataError(f"a task is a name such as 'gsm', not {shown(task)}.")
    if task.startswith(reasoning_gym.PREFIX):
        return "text"
    if canonical(task) not in ANSWER_TYPES:
        valid = (*TASKS, *ALIASES, reasoning_gym.PREFIX + "<name>")
        near = nearest(task, valid)
        hint = f": did you mean {near!r}?" if near else f": expected one of {', '.join(valid)}."
        raise DataError(f"unknown task {shown(task)}{hint}")
    return ANSWER_TYPES[canonical(task)]


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
            return Problem(
                identifier, task, *fields, source="generated", styles=worked.patterns
            ), worked


def load_problems(
    task: str,
    split: str = "eval",
    num: int = 500,
    seed: int = 0,
    levels: tuple[int, ...] | list[int] | None = None,
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
    _check(task, split, levels, data_dir)
    _check_numbers(num=(num, 1), max_operand=(max_operand, 2), seed=(seed, 0))
    _check_choice("on_bad_records", on_bad_records, POLICIES)
    rng = random.Random(f"{task} {split} {seed}")
    if task in PUBLISHED:
        pool = splits.pool(task, split, data_dir, on_bad_records)
        problems = splits.draw((p for p in pool if levels is None or p.level in levels), num, rng)
    elif task in GENERATED:
        problems = _generate(task, split, num, rng, tuple(levels or ()) or None, max_operand)
    else:
        problems = reasoning_gym.draw(task, split, num, seed)
    if len(problems) == num:
        return problems
    about = "" if task in PUBLISHED else "about "
    raise DataError(
        f"{task} has only {about}{len(problems)} different {split} problems with these options; "
        f"{num} were asked for. Ask for fewer{_OR_ELSE.get(task, '')}."
    )


def _check(
    task: str, split: str, levels: tuple[int, ...] | list[int] | None, data_dir: str | None
) -> None:
    """Raises `DataError` for what `load_problems` cannot be asked for."""
    _check_choice("split", split, SPLITS)
    if not isinstance(data_dir, (str, os.PathLike, type(None))):
        raise DataError(f"data_dir is {shown(data_dir)}: give the path of a folder.")
    if data_dir is not None and task not in PUBLISHED:
        raise DataError(f"{task} is generated and reads no files: leave data_dir out.")
    if levels is None:
        return
    if not isinstance(levels, (list, tuple)) or not levels:
        raise DataError(
            f"levels is {shown(levels)}: give a list of levels from 1 to 5, or leave it out."
        )
    wrong = [level for level in levels if type(level) is not int or level not in range(1, 6)]
    if task not in WITH_LEVELS or wrong:
        having = " and ".join(WITH_LEVELS)
        raise DataError(
            f"levels {shown(list(levels))} do not fit {task}: only {having} have levels, 1-5."
        )


def _check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raises `DataError` for a word that is none of `valid`."""
    if not isinstance(value, str) or value not in valid:
        raise DataError(f"unknown {name} {shown(value)}: expected one of {', '.join(valid)}.")


def _check_numbers(**values: tuple[int, int]) -> None:
    """Raises `DataError` for a value that is no whole number, or less than the least one beside it."""
    for name, (value, least) in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise DataError(f"{name} is {shown(value)}: give a whole number of at least {least}.")


def _generate(
    task: str,
    split: str,
    num: int,
    rng: random.Random,
    levels: tuple[int, ...] | None,
    max_operand: int,
) -> list[Problem]:
    """`num` different generated problems, or fewer if many draws bring no others."""
    problems: dict[str, Problem] = {}
    in_vain = 0
    while len(problems) < num and in_vain < IN_VAIN:
        problem, _ = draw_split(task, split, rng, levels, max_operand)
        in_vain = in_vain + 1 if problem.id in problems else 0
        problems.setdefault(problem.id, problem)
    return list(problems.values())
