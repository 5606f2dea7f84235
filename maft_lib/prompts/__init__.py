"""The words that agents are given: one YAML file per prompt set (`default.yml` here), filled in.

Training and inference both call these functions, so what an agent is trained on is byte for byte what
it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from maft_lib.config import read_mapping
from maft_lib.tasks import DataError, answer_type
from maft_lib.tasks.problem import Problem

Message = dict[str, str]

KINDS = ("number", "expression", "choice", "text")
DEFAULT = Path(__file__).with_name("default.yml")
FIELDS = {
    "generation": {"question", "answer_format"},
    "summary": {"responses"},
    "response": {"number", "response"},
    "critic": {"summary", "question", "answer_format"},
    "critic_without_summary": {"responses", "question", "answer_format"},
    "cooperative": {"summary", "question", "answer_format"},
    "hint": {"question", "answer", "answer_format"},
    "generator_id": {"number"},
    "critic_id": {"number"},
}
FORMATS = "answer_format"
KNOWN = set[str]().union(*FIELDS.values())
# `{word}` on its own; after a letter, a brace or a sign of LaTeX it is no field, as in \frac{a}{b}.
_FREE = re.compile(r"(?<![\w}\]^\\])\{(\w+)\}")


class PromptError(ValueError):
    """A prompts file is wrong; the message names the prompt and what it lacks or has too much."""


class Prompts:
    """One prompt set. Raises `PromptError` if the file has other prompts, or a prompt other fields."""

    def __init__(self, path: str | Path = DEFAULT):
        self.texts = read_mapping(path, "prompts file", PromptError)
        for problem in _problems(self.texts):
            raise PromptError(f"prompts file {path}: {problem}; {DEFAULT} shows how it is written.")

    def generation(self, problem: Problem) -> Message:
        """What a generation agent is asked in round 1."""
        return self._asked("generation", problem)

    def hint(self, problem: Problem) -> Message:
        """The problem with its ground truth as a hint (STaR only)."""
        return self._asked("hint", problem, answer=problem.answer)

    def summary(self, responses: Sequence[str]) -> Message:
        """What the summarizer is asked: the responses of the other agents (Appendix B.1)."""
        return _user(self._fill("summary", responses=self._listed(responses)))

    def critic(self, problem: Problem, summary: str) -> Message:
        """The turn that a critic agent answers, given the summary of the others' responses."""
        return self._asked("critic", problem, summary=summary)

    def critic_without_summary(self, problem: Problem, responses: Sequence[str]) -> Message:
        """The turn that a critic agent answers, given the others' responses themselves."""
        return self._asked("critic_without_summary", problem, responses=self._listed(responses))

    def cooperative(self, problem: Problem, summary: str) -> Message:
        """The critic's turn in the cooperative setting (Appendix D)."""
        return self._asked("cooperative", problem, summary=summary)

    def identified(self, message: Message, role: str, number: int) -> Message:
        """A prompt with the identity of the agent that it is for before it (Appendix E.2)."""
        return _user(f"{self._fill(f'{role}_id', number=number)}\n{message['content']}")

    def _asked(self, name: str, problem: Problem, **values: object) -> Message:
        formats = self.texts[FORMATS]
        wanted = formats.get(problem.task, formats[answer_type(problem.task)])
        return _user(self._fill(name, question=problem.question, answer_format=wanted, **values))

    def _listed(self, responses: Sequence[str]) -> str:
        numbered = enumerate(responses, start=1)
        return "\n".join(self._fill("response", number=n, response=r) for n, r in numbered)

    def _fill(self, name: str, **values: object) -> str:
        """The prompt `name` with its fields filled in one pass, so values are never templates."""
        filled = re.sub(r"\{(\w+)\}", lambda m: str(values.get(m[1], m[0])), self.texts[name])
        return str(filled)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _problems(texts: dict[Any, Any]) -> Iterator[str]:
    """What is wrong with a prompt set, each in a few words."""
    for name, fields in FIELDS.items():
        text = texts[name] if isinstance(texts.get(name), str) else ""
        yield from (f"`{name}` lacks {{{field}}}" for field in fields if f"{{{field}}}" not in text)
        extra = KNOWN.intersection(_FREE.findall(text)) - fields
        yield from (f"`{name}` has {{{field}}}, which is not filled in there" for field in extra)
    yield from (f"there is no prompt {name!r}" for name in texts if name not in {*FIELDS, FORMATS})
    formats = texts.get(FORMATS) or {}
    yield from (
        f"{FORMATS} lacks `{name}`"
        for name in [*KINDS, *formats]
        if not str(formats.get(name) or "").strip()
    )
    yield from (f"{FORMATS} has `{name}`, which is no task" for name in formats if not _is_asked(name))


def _is_asked(name: object) -> bool:
    """Whether a kind of answers or a task has this name."""
    try:
        return name in KINDS or bool(answer_type(str(name)))
    except DataError:
        return False


@cache
def load_prompts(path: str | Path | None = None) -> Prompts:
    """The prompt set of a file, or the default one. Cached: a set is read once."""
    return Prompts(DEFAULT if path is None else path)
