"""Problems of published data sets, from a folder or the hub: GSM8K, MATH (Section 3.1), MMLU (4.3).

Nothing is left out or repaired silently. Of a repeated question (the same text once case, white space
and punctuation are folded) with the same answer the first is kept, with a `DataWarning`: MATH repeats
one, MMLU's STEM subjects some dozen. If the answers differ, the later record is bad.

Where a data set has a train and a test split, these are train and eval. Where only the test split is at
hand (MMLU always, MATH in a folder without math_train.jsonl), train and eval are two halves of it, told
apart by a hash of the question alone: they share nothing whatever the seeds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    StrictInt,
    StringConstraints,
    ValidationError,
)

from maft_lib.tasks.problem import DataError, DataWarning, Problem, half_of, normalised, problem_id
from maft_lib.tasks.worked import LONGEST_ANSWER, boxes
from maft_lib.wording import one_line, shown

ENVIRONMENT = "MAFT_DATA_DIR"
NAMED = 5  # records that a message names one by one
_HALF = ", {} half"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class GsmRecord(BaseModel):
    """GSM8K (Cobbe et al., 2021): a solution ends in `#### ` and a number."""

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


def _is_nan(option: Any) -> bool:
    """Files made with pandas hold NaN where the option was the word None."""
    return isinstance(option, float) and option != option


def _index(answer: Any) -> Any:
    letter = isinstance(answer, str) and len(answer.strip()) == 1
    return ascii_uppercase.find(answer.strip()) if letter else answer


class MmluRecord(BaseModel):
    """MMLU (Hendrycks et al., 2021), as on the hub or as in the file of its STEM subjects."""

    question: Text
    options: list[Annotated[Text, BeforeValidator(lambda o: "None" if _is_nan(o) else o)]] = Field(
        validation_alias=AliasChoices("options", "choices"), min_length=2, max_length=26
    )
    answer: Annotated[StrictInt, BeforeValidator(_index)]  # from 0, or a letter
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


RECORDS: dict[str, type[GsmRecord | MathRecord | MmluRecord]] = {
    "gsm": GsmRecord,
    "math": MathRecord,
    "mmlu": MmluRecord,
}
FILES = {
    ("gsm", "train"): ("gsm8k_train.jsonl",),
    ("gsm", "test"): ("gsm8k_test.jsonl",),
    ("math", "train"): ("math_train.jsonl",),
    ("math", "test"): ("math_test.jsonl",),
    ("mmlu", "test"): ("mmlu_test.jsonl", "mmlu_stem_test.jsonl"),
}
HUB = {  # repository, configuration and revision; MATH is a mirror, since the original was taken down
    "gsm": ("openai/gsm8k", "main", "740312add88f781978c0658806c59bc2815b9866"),
    "math": (
        "DigitalLearningGmbH/MATH-lighteval",
        "default",
        "0530c78699ea5e8eb5530600900e1f328b48acad",
    ),
    "mmlu": ("cais/mmlu", "all", "c30699e8356da336a370243923dbaf21066bb9fe"),
}
CONTENT = {  # how the `content_hash` of the published records begins, as far as it is known
    ("gsm", "train"): "0b6e693b4e8f0e22",
    ("gsm", "test"): "58126d4fcd59a240",
    ("math", "test"): "4cf4c6187253014e",
}


def pool(task: str, split: str, data_dir: str | None, on_bad_records: str) -> list[Problem]:
    """All problems of a task's split, `train` or `eval`. Raises `DataError` (see `load`)."""
    folder = _folder(data_dir)
    if task == "mmlu" or (task == "math" and folder and not _find(task, "train", folder)):
        problems = load(task, "test", folder, on_bad_records)
        return [
            replace(p, source=f"{p.source}{_HALF.format(split)}") for p in problems if _half(p) == split
        ]
    if split == "eval":
        return load(task, "test", folder, on_bad_records)
    problems = load(task, "train", folder, on_bad_records)
    if folder and not _find(task, "test", folder):
        return problems
    asked = {normalised(problem.question) for problem in load(task, "test", folder, on_bad_records)}
    tested = [problem.id for problem in problems if normalised(problem.question) in asked]
    if tested:
        said = f"{len(tested)} left out, since the test split asks them too: {', '.join(tested)}"
        warnings.warn(f"{problems[0].source}: {said}.", DataWarning, stacklevel=3)
    return [problem for problem in problems if problem.id not in tested]


def note_on_train(train: Sequence[Problem]) -> str | None:
    """A sentence for a result whose train problems come from a test split; None if they do not."""
    ending = _HALF.format("train")
    sources = {p.source.removesuffix(ending) for p in train if p.source and p.source.endswith(ending)}
    said = "train problems come from a test split ({}), from a half that no eval problem is drawn from."
    return said.format(", ".join(sorted(sources))) if sources else None


def _half(problem: Problem) -> str:
    """The half of its test split. An MMLU question decides without its options, with its variants."""
    return half_of(problem.question.removesuffix(_lettered(problem.options)))


def _folder(data_dir: str | None) -> Path | None:
    """The folder to read from: `data_dir`, else MAFT_DATA_DIR, else None, which stands for the hub."""
    named = os.environ.get(ENVIRONMENT) or None if data_dir is None else data_dir
    if named is None:
        return None
    folder = os.path.expanduser(named)
    if not os.path.isdir(folder):
        name = ENVIRONMENT if data_dir is None else "data_dir"
        raise DataError(f"{name} {shown(folder)} is not a folder: name the one with the data files.")
    return Path(folder)


def _find(task: str, split: str, folder: Path) -> Path | None:
    """The split's file in a folder, or None. What has its name and cannot be read is found, too."""
    places = (folder / name for name in FILES[task, split])
    return next((place for place in places if os.path.lexists(place)), None)


def load(task: str, split: str, folder: Path | None, on_bad_records: str = "refuse") -> list[Problem]:
    """The problems of a `train` or `test` split, from a folder or, without one, from the hub.

    Raises `DataError` if they cannot be read, if there is none, or if records are bad and
    `on_bad_records` is `refuse`; `skip` leaves those out with a `DataWarning`.
    """
    path = folder and _find(task, split, folder)
    if folder and not path:
        raise _missing(task, split, f"there is none in {folder}")
    try:
        problems, source, bad, noticed = _read(task, split, path, path and path.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file.") from error
    for what, records in (("bad", bad), ("noticed", noticed)):
        more = f"; and {len(records) - NAMED} more" if len(records) > NAMED else ""
        said = f"{source}: {len(records)} records are {what}: {'; '.join(records[:NAMED])}{more}."
        if what == "bad" and records and on_bad_records == "refuse":
            raise DataError(f"{said} Mend them, or set on_bad_records to 'skip' to leave them out.")
        if records:
            warnings.warn(said, DataWarning, stacklevel=4)
    if not problems:
        raise DataError(f"{source} holds no problem of {task}: is it the right file?")
    return problems


def _missing(task: str, split: str, why: str) -> DataError:
    files = " or ".join(FILES[task, split])
    remedy = f"put the file into a folder and name that folder with data_dir or {ENVIRONMENT}"
    return DataError(f"{task} needs {files}: {why}; {remedy}.")


@lru_cache(maxsize=16)
def _read(
    task: str, split: str, path: Path | None, changed: int | None
) -> tuple[list[Problem], str, list[str], list[str]]:
    """Problems, their source, and what to say of bad and other records; once per state of the file."""
    records = list(_lines(path) if path else _hub_rows(task, split))
    content = content_hash(record for record in records if isinstance(record, dict))
    known = content.startswith(CONTENT.get((task, split), ""))
    if path:
        source = path.name if known else f"{path.name}, not the published records"
    else:
        repo, _, revision = HUB[task]
        source = f"{repo} {split}@{revision[:7]}"
        if not known:
            raise _missing(task, split, f"{source} on the hub does not hold the published records")
    first: dict[str, tuple[int, Problem]] = {}
    bad, noticed = [], []
    for number, record in enumerate(records, start=1):
        if record is None:  # a blank line
            continue
        at = f"{path.name}:{number}" if path else f"row {number}"
        try:
            problem = _problem(task, record)
        except ValueError as reason:
            bad.append(f"{at} {reason}")
            continue
        earlier, kept = first.setdefault(normalised(problem.question), (number, problem))
        if earlier == number:
            if any(map(_is_nan, record.get("options", record.get("choices", ())))):
                noticed.append(f"{at} has an option NaN, read as the word None")
        elif normalised(problem.answer) == normalised(kept.answer):
            noticed.append(f"{at} repeats record {earlier}, and is left out")
        else:
            bad.append(f"{at} repeats the question of record {earlier} with another answer")
    return [replace(problem, source=source) for _, problem in first.values()], source, bad, noticed


def _lines(path: Path) -> Iterator[Any]:
    """The record of each line: None for a blank one, "" for what is not JSON."""
    for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            yield json.loads(line.decode("utf-8")) if line.strip() else None
        except (ValueError, RecursionError):
            yield ""


def _hub_rows(task: str, split: str) -> Iterable[dict[str, Any]]:
    from datasets import load_dataset  # which takes seconds

    repo, config, revision = HUB[task]
    try:
        return map(dict, load_dataset(repo, config, split=split, revision=revision))
    except Exception as error:  # no network, offline mode, a proxy, a repository that is gone
        why = one_line(f"{type(error).__name__}: {error}", 200)
        raise _missing(task, split, f"the Hugging Face hub could not be reached ({why})") from error


def content_hash(records: Iterable[Any]) -> str:
    """Hash of the questions and solutions of all records, whatever their order and white space."""
    names = ("question", "answer", "problem", "solution")
    pairs = ([" ".join(str(r[name]).split()) for name in names if name in r] for r in records)
    return hashlib.sha256("\n".join(sorted(map(json.dumps, pairs))).encode()).hexdigest()


def _problem(task: str, record: Any) -> Problem:
    """The problem of a record. Raises `ValueError` with the reason if it is none."""
    try:
        problem = RECORDS[task].model_validate(record).problem()
    except ValidationError as error:
        first = error.errors()[0]
        name = " ".join(map(str, first["loc"])) or "record"
        raise ValueError(f"has the {name} {shown(first['input'])}: {first['msg']}") from None
    if len(problem.answer) > LONGEST_ANSWER:
        raise ValueError(f"has an answer of more than {LONGEST_ANSWER} characters")
    return problem
