"""MMLU (Hendrycks et al., 2021; Section 4.3): questions with lettered options. Knows no split.

Reads two shapes of records: the hub's (`choices`, `answer` as an index from 0, `subject`) and that of
the STEM file (`options`, `answer` as a letter, `topic`). There is a test split only.
"""

from __future__ import annotations

from reprlib import repr as shortened
from string import ascii_uppercase
from typing import Any

from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.tasks.records import BadRecord, Published, text


def parse(record: dict[str, Any]) -> Problem:
    """The problem of a record: the question with its options below, the answer a letter."""
    options = _options(record)
    answer = _letter(record, len(options))
    question = text(record, "question") + lettered(options)
    subject = text(record, "subject" if "subject" in record else "topic")
    return Problem(problem_id(question), "mmlu", question, answer, None, subject, options)


def lettered(options: tuple[str, ...]) -> str:
    """The options as they stand below a question, a line each: `(A) ...`."""
    return "".join(f"\n({letter}) {option}" for letter, option in zip(ascii_uppercase, options))


def stem(problem: Problem) -> str:
    """The question without its options."""
    return problem.question.removesuffix(lettered(problem.options))


def notice(record: dict[str, Any]) -> str | None:
    """Says that an option was read as None."""
    options = record.get("options" if "options" in record else "choices") or ()
    return "has an option NaN, read as the word None" if any(map(_is_nan, options)) else None


def _options(record: dict[str, Any]) -> tuple[str, ...]:
    name = "options" if "options" in record else "choices"
    options = record.get(name)
    if not isinstance(options, list):
        raise BadRecord("has no list of options or choices")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise BadRecord(f"has {len(options)} options, not 2 to {len(ascii_uppercase)}")
    return tuple(
        text({f"option {letter}": "None" if _is_nan(option) else option}, f"option {letter}")
        for letter, option in zip(ascii_uppercase, options)
    )


def _is_nan(option: Any) -> bool:
    """Files made with pandas hold NaN where the option was the word None."""
    return isinstance(option, float) and option != option


def _letter(record: dict[str, Any], num_options: int) -> str:
    answer = record.get("answer")
    if isinstance(answer, str) and len(answer.strip()) == 1:
        answer = ascii_uppercase.find(answer.strip())
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise BadRecord(f"has the answer {shortened(answer)}, neither a letter nor a whole number")
    if not 0 <= answer < num_options:
        raise BadRecord(f"has the answer {record['answer']!r}, which is none of its options")
    return ascii_uppercase[answer]


TRAIN = None
TEST = Published(
    task="mmlu",
    files=("mmlu_test.jsonl", "mmlu_stem_test.jsonl"),
    repo="cais/mmlu",
    config="all",
    split="test",
    revision="c30699e8356da336a370243923dbaf21066bb9fe",
    num_records=14042,
    parse=parse,
    notice=notice,
)
