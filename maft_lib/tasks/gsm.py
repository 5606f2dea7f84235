"""GSM (Cobbe et al., 2021; Section 3.1): grade-school word problems. Knows no split, no file.

A solution ends in `#### ` and a number.
"""

from __future__ import annotations

import re
from typing import Any

from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.tasks.records import BadRecord, Published, gradable, text

_NUMBER = re.compile(r"-?(\d+(\.\d+)?|\.\d+)", re.ASCII)
_REPO, _REVISION = "openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866"


def parse(record: dict[str, Any]) -> Problem:
    """The problem of a record; its answer is the number after the last ####, without commas."""
    question, solution = text(record, "question"), text(record, "answer")
    _, marker, answer = solution.rpartition("####")
    if not marker:
        raise BadRecord("has no #### before its final answer")
    answer = answer.strip().replace(",", "")
    if not _NUMBER.fullmatch(answer):
        raise BadRecord(f"has no number after ####, but {answer[:40]!r}")
    return Problem(problem_id(question), "gsm", question, gradable(answer))


TRAIN = Published(
    task="gsm",
    files=("gsm8k_train.jsonl",),
    repo=_REPO,
    config="main",
    split="train",
    revision=_REVISION,
    num_records=7473,
    parse=parse,
    content="0b6e693b4e8f0e22fee245d584934823a33d8a9e30f3b809b4642184ee5c3b43",
)
TEST = Published(
    task="gsm",
    files=("gsm8k_test.jsonl",),
    repo=_REPO,
    config="main",
    split="test",
    revision=_REVISION,
    num_records=1319,
    parse=parse,
    content="58126d4fcd59a240ad335f6523f960924108cabfacf76cffcd2d373fc1a26362",
)
