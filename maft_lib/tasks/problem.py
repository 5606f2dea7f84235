"""A problem: one question with its ground-truth answer, and how questions are told apart."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

# Commands that only set type: \left, \quad, \, and the like; \dfrac and \tfrac are read as \frac.
_SPACING = re.compile(r"\\(?:(?:left|right|displaystyle|q?quad)(?![a-z])|[,;:!> ])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\\[a-z]+|\d*\.?\d+|[^\W\d_]+|[^\w\s.,;:?$~{}\"“”\\]|_")
_SAME = str.maketrans({"‘": "'", "’": "'", "`": "'", "–": "-", "—": "-", "−": "-"})


class DataError(ValueError):
    """Problems cannot be loaded; the message says why and what to do."""


class DataWarning(UserWarning):
    """Records were left out."""


@dataclass(frozen=True)
class Problem:
    """One question of a task.

    `id` is a hash of the question, so the same question has the same id in every split, seed and
    run. `answer` is the ground truth; no method may use it to build finetuning data (STaR apart).
    `options` are the texts of a choice's options, which the question shows too; `scoring` is JSON for
    a task that judges answers itself; `source` says where the problem comes from; `styles` has a
    regular expression for each known way of reasoning (see `worked.style_of`).
    """

    id: str
    task: str
    question: str
    answer: str
    level: int | None = None
    subject: str | None = None
    options: tuple[str, ...] = ()
    scoring: str | None = None
    source: str | None = field(default=None, compare=False)
    styles: tuple[str, ...] = field(default=(), compare=False, repr=False)


def problem_id(question: str) -> str:
    """Hash of a question with its white space folded: 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]


@lru_cache(maxsize=100_000)
def normalised(question: str) -> str:
    r"""A question with case, white space, punctuation, quotes and LaTeX spacing folded.

    `$4^{a}=5$, Find  it!` and `4^a = 5 find it!` are the same question; digits, signs, operators and
    LaTeX commands still tell questions apart.
    """
    text = unicodedata.normalize("NFKC", question).casefold().translate(_SAME).replace("{,}", ",")
    text = _THOUSANDS.sub("", _SPACING.sub("", text).replace("\\dfrac", "\\frac"))
    return " ".join(_TOKEN.findall(text.replace("\\tfrac", "\\frac")))


def half_of(question: str) -> str:
    """The half, `train` or `eval`, of a set of problems that has no train split of its own.

    Decided by the normalised question alone, so no two halves share a question, whatever the seeds.
    """
    digest = hashlib.sha256(normalised(question).encode()).digest()
    return ("eval", "train")[digest[0] % 2]
