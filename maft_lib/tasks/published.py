"""Problems of published data sets, from a folder or the hub: GSM8K, MATH (Section 3.1), MMLU (4.3).

A task that ends in `.jsonl` is a file of the user's own, with an `OwnRecord` a line.

Of a repeated question (the same text once case, white space and punctuation are folded) with the same
answer the first is kept, with a `DataWarning`: MATH repeats one, MMLU's STEM subjects some dozen. If
the answers differ, the later record is bad.

Where a data set has a train and a test split, these are train and eval. Where only the test split is
at hand (MMLU always, MATH in a folder without math_train.jsonl), and in a user's own file, train and
eval are two halves, told apart by a hash of the question alone: they share nothing whatever the seeds.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, StringConstraints, ValidationError

from maft_lib.tasks.problem import DataError, DataWarning, Problem, half_of, normalised, problem_id
from maft_lib.tasks.worked import LONGEST_ANSWER, boxes
from maft_lib.wording import one_line, shown

ENVIRONMENT = "MAFT_DATA_DIR"
NAMED = 5  # records that a message names one by one
_HALF = ", {} half"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class GsmRecord(BaseModel):
    """GSM8K (Cobbe et al., 2021): a solution ends in `#### ` and a number."""

    files: ClassVar = ("gsm8k_{}.jsonl",)
    hub: ClassVar = ("openai/gsm8k", "main", "740312add88f781978c0658806c59bc2815b9866")
    question: Text
    answer: Text

    def problem(self) -> Problem:
        """The answer is the number after the last ####, without commas."""
        _, marker, number = self.answer.rpartition("####")
        number = number.strip().replace(",", "")
        if not marker or not re.fullmatch(r"-?([0-9]+(\.[0-9]+)?|\.[0-9]+)", number):
            raise ValueError("has no number after #### in its answer")
        return Problem(problem_id(self.question), "gsm", self.question, number)


class MathRecord(BaseModel):
    """MATH (Hendrycks et al., 2021). Some records upstream say `Level ?`: they are in no level."""

    files: ClassVar = ("math_{}.jsonl",)
    mirror: ClassVar = "DigitalLearningGmbH/MATH-lighteval"  # since the original was taken down
    hub: ClassVar = (mirror, "default", "0530c78699ea5e8eb5530600900e1f328b48acad")
    question: Text = Field(validation_alias="problem")
    solution: Text
    level: Annotated[str, StringConstraints(pattern="^Level [1-5?]$")]
    type: Text

    def problem(self) -> Problem:
        r"""The answer is the last `\boxed{}` of the solution."""
        answer = (boxes(self.solution) or [""])[-1]
        if not answer:
            raise ValueError("has no answer in a \\boxed{} in its solution")
        level = None if self.level.endswith("?") else int(self.level[-1])
        return Problem(problem_id(self.question), "math", self.question, answer, level, self.type)


def _index(answer: Any) -> Any:
    letter = isinstance(answer, str) and len(answer.strip()) == 1
    return ascii_uppercase.find(answer.strip()) if letter else answer


class MmluRecord(BaseModel):
    """MMLU (Hendrycks et al., 2021), as on the hub or as in the file of its STEM subjects.

    Files made with pandas hold NaN where the option was the word None; it is read as that word.
    """

    files: ClassVar = ("mmlu_{}.jsonl", "mmlu_stem_{}.jsonl")
    hub: ClassVar = ("cais/mmlu", "all", "c30699e8356da336a370243923dbaf21066bb9fe")
    question: Text
    options: list[
        Annotated[Text, BeforeValidator(lambda option: option if option == option else "None")]
    ] = Field(validation_alias=AliasChoices("options", "choices"), min_length=2, max_length=26)
    answer: Annotated[int, Field(strict=True), BeforeValidator(_index)]  # from 0, or a letter
    subject: Text = Field(validation_alias=AliasChoices("subject", "topic"))

    def problem(self) -> Problem:
        """The question shows its options, a line each; the answer is a letter."""
        if not 0 <= self.answer < len(self.options):
            raise ValueError(f"has no option for its answer, number {self.answer}")
        question, options = self.question + _lettered(self.options), tuple(self.options)
        letter = ascii_uppercase[self.answer]
        return Problem(problem_id(question), "mmlu", question, letter, None, self.subject, options)


def _lettered(options: Sequence[str]) -> str:
    return "".join(f"\n({letter}) {option}" for letter, option in zip(ascii_uppercase, options))


Kind = Literal["number", "expression", "choice", "text"]


class OwnRecord(BaseModel):
    """A line of a user's own file: a question and its answer, a letter or a number as text or not.

    With `choices` it shows lettered options, and its answer is a letter. `answer_type` says how answers
    are compared (see `answer_type_of`).
    """

    question: Text
    answer: Annotated[
        Text, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)
    ]
    choices: list[Text] = Field([], min_length=2, max_length=26)
    level: Annotated[int, Field(ge=1, le=5)] | None = None
    answer_type: Kind | None = None

    def problem(self) -> Problem:
        """The question shows its options, a line each, if it has any."""
        letters = ascii_uppercase[: len(self.choices)]
        if self.choices and self.answer not in tuple(letters):
            raise ValueError(f"has the answer {self.answer!r:.80}, which is no letter of its choices")
        question, options = self.question + _lettered(self.choices), tuple(self.choices)
        return Problem(problem_id(question), "", question, self.answer, self.level, None, options)


RECORDS: dict[str, type[GsmRecord | MathRecord | MmluRecord]] = {
    "gsm": GsmRecord, "math": MathRecord, "mmlu": MmluRecord
}  # fmt: skip


def pool(task: str, split: str, data_dir: str | None, on_bad_records: str) -> list[Problem]:
    """All problems of a task's split, `train` or `eval`. Raises `DataError` (see `load`)."""
    folder = _folder(data_dir)
    only_test = task == "math" and folder and not _find(task, "train", folder)
    if only_test or task == "mmlu" or is_own(task):
        return [
            replace(p, source=f"{p.source}{_HALF.format(split)}")
            # A question decides without its options, so that its variants stay together.
            for p in load(task, "test", folder, on_bad_records)
            if half_of(p.question.removesuffix(_lettered(p.options))) == split
        ]
    problems = load(task, "test" if split == "eval" else "train", folder, on_bad_records)
    if split == "eval" or (folder and not _find(task, "test", folder)):
        return problems
    asked = {normalised(problem.question) for problem in load(task, "test", folder, on_bad_records)}
    tested = [problem.id for problem in problems if normalised(problem.question) in asked]
    if tested:
        said = f"{len(tested)} left out, since the test split asks them too: {', '.join(tested)}"
        warnings.warn(f"{problems[0].source}: {said}.", DataWarning, stacklevel=3)
    return [problem for problem in problems if problem.id not in tested]


def is_own(task: str) -> bool:
    """Whether a task is a file of the user's own."""
    return task.endswith(".jsonl")


def _own_file(task: str) -> Path:
    """The file of a task, looked for in this folder and those above it."""
    here = Path.cwd()
    places = (folder / Path(task).expanduser() for folder in (here, *here.parents))
    if found := next(filter(os.path.isfile, places), None):
        return found
    raise DataError(f"task {task} is no file in {here} or above it: check the path.")


@lru_cache(maxsize=32)
def answer_type_of(task: str) -> Kind:
    """How a user's own file wants answers compared: as it says, else as its answers look.

    Options make a choice, plain numbers a number; everything else is compared as an expression.
    """
    records = [record for _, record in _lines(_own_file(task)) if isinstance(record, dict)]
    said = {str(kind) for record in records if (kind := record.get("answer_type"))}
    if said - set(get_args(Kind)) or len(said) > 1:
        kinds = ", ".join(sorted(said))
        raise DataError(f"{task} has the answer_type {kinds}: a file has one of {get_args(Kind)}.")
    if said:
        return cast(Kind, said.pop())
    if all(record.get("choices") for record in records):
        return "choice"
    numbers = (re.fullmatch(r"-?[\d,]*\.?\d+", str(record.get("answer")).strip()) for record in records)
    return "number" if all(numbers) else "expression"


def note_on_train(train: Sequence[Problem]) -> str | None:
    """A sentence for a result whose train problems come from a test split; None if they do not."""
    if train and is_own(task := train[0].task):
        return f"train and eval are two halves of it; answers are compared as {answer_type_of(task)}."
    ending = _HALF.format("train")
    sources = {p.source.removesuffix(ending) for p in train if p.source and p.source.endswith(ending)}
    said = "train problems come from a test split ({}), from a half that no eval problem is drawn from."
    return said.format(", ".join(sorted(sources))) if sources else None


def _folder(data_dir: str | None) -> Path | None:
    """The folder to read from: `data_dir`, else MAFT_DATA_DIR, else None, which stands for the hub."""
    named = os.environ.get(ENVIRONMENT) or None if data_dir is None else data_dir
    if named is not None and not os.path.isdir(os.path.expanduser(named)):
        raise DataError(
            f"{shown(named)} is not a folder: name one with data files in data_dir or {ENVIRONMENT}."
        )
    return None if named is None else Path(named).expanduser()


def _find(task: str, split: str, folder: Path) -> Path | None:
    """The split's file in a folder, or None. A file that cannot be read is found, too."""
    places = (folder / name.format(split) for name in RECORDS[task].files)
    return next(filter(os.path.lexists, places), None)


def load(task: str, split: str, folder: Path | None, on_bad_records: str = "refuse") -> list[Problem]:
    """The problems of a `train` or `test` split, from a folder or, without one, from the hub.

    Raises `DataError` if they cannot be read, if there are none, or if records are bad and
    `on_bad_records` is `refuse`; `skip` leaves those out with a `DataWarning`.
    """
    path = _own_file(task) if is_own(task) else folder and _find(task, split, folder)
    if folder and not path:
        raise _missing(task, split, f"{folder} has no such file")
    source = path.name if path else "{0} {split}@{2:.7}".format(*RECORDS[task].hub, split=split)
    first: dict[str, tuple[str, Problem]] = {}
    bad, repeated = [], []
    for at, record in _lines(path) if path else _hub_rows(task, split):
        try:
            problem = replace(_problem(task, record), task=task, source=source)
        except ValueError as reason:
            bad.append(f"{at} {reason}")
            continue
        place, kept = first.setdefault(normalised(problem.question), (at, problem))
        if place != at and normalised(problem.answer) == normalised(kept.answer):
            repeated.append(f"{at} repeats {place}")
        elif place != at:
            bad.append(f"{at} repeats the question of {place} with another answer")
    refused = bad if on_bad_records == "refuse" else []
    if named := refused or bad + repeated:
        more = f"; and {len(named) - NAMED} more" if len(named) > NAMED else ""
        listed = f"({len(named)}): {'; '.join(named[:NAMED])}{more}."
        if refused:
            remedy = "Correct them, or set on_bad_records to 'skip'."
            raise DataError(f"{source} has bad records {listed} {remedy}")
        warnings.warn(f"{source}: records are left out {listed}", DataWarning, stacklevel=4)
    if not first:
        raise DataError(f"{source} holds no problem of {task}: is it the right file?")
    return [problem for _, problem in first.values()]


def _missing(task: str, split: str, why: str) -> DataError:
    files = " or ".join(RECORDS[task].files).format(split, split)
    remedy = f"put the file into a folder and name that folder with data_dir or {ENVIRONMENT}"
    return DataError(f"{task} needs {files}: {why}; {remedy}.")


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The place and the record of each line that is not blank; "" for what is not JSON."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file.") from error
    for number, line in enumerate(lines, start=1):
        record = ""
        with suppress(ValueError, RecursionError):
            record = json.loads(line.decode("utf-8-sig"))
        if line.strip():
            yield f"{path.name}:{number}", record


@lru_cache(maxsize=4)
def _hub_rows(task: str, split: str) -> list[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset  # which takes seconds

    repo, config, revision = RECORDS[task].hub
    try:
        rows = load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:  # no network, offline mode, a proxy, a repository that is gone
        why = one_line(f"{type(error).__name__}: {error}", 200)
        raise _missing(task, split, f"the Hugging Face hub could not be reached ({why})") from error
    return [(f"row {number}", dict(row)) for number, row in enumerate(rows, start=1)]


def _problem(task: str, record: Any) -> Problem:
    """The problem of a record. Raises `ValueError` with the reason if it holds no problem."""
    try:
        problem = (OwnRecord if is_own(task) else RECORDS[task]).model_validate(record).problem()
    except ValidationError as error:
        first = error.errors()[0]
        name = " ".join(map(str, first["loc"])) or "record"
        raise ValueError(f"has the {name} {shown(first['input'])}: {first['msg']}") from None
    if len(problem.answer) > LONGEST_ANSWER:
        raise ValueError(f"has an answer of more than {LONGEST_ANSWER} characters")
    return problem
