"""A problem: one question with its ground-truth answer. Knows no task, no model, no grading."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Problem:
    """One question of a task.

    `id` is a hash of the question, so the same question has the same id in every split, seed and
    run. `answer` is the ground truth; no method may use it to build finetuning data (STaR apart).
    """

    id: str
    task: str
    question: str
    answer: str
    level: int | None = None
    subject: str | None = None

    def to_dict(self) -> dict:
        """The problem as plain JSON values."""
        return asdict(self)


def problem_id(question: str) -> str:
    """Hash of a question with its white space folded: 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]


def split_of(identifier: str) -> str:
    """The split that a *generated* problem belongs to: `eval`, `train` or `corpus`.

    One problem in eight is for evaluation and one in eight for finetuning, decided by the hash
    alone. So whatever the seed, no two splits share a problem, and the miniature model, which is
    pretrained on `corpus` only, has seen none of the others.
    """
    return {0: "eval", 1: "train"}.get(int(identifier[:8], 16) % 8, "corpus")
