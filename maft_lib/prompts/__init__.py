"""The words that agents are given. Knows what is asked, not who asks it or which model answers.

The wording is data, one YAML file per prompt set (`default.yml` here); these functions fill it in and
build the messages. Training and inference both call them, so what an agent is trained on is byte for
byte what it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from maft_lib.arguments import as_path
from maft_lib.config import read_mapping
from maft_lib.tasks import answer_type
from maft_lib.tasks.problem import Problem
from maft_lib.wording import nearest

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
# `{word}` on its own; after a letter, a brace or a sign of LaTeX it is no field, as in \frac{a}{b}.
_FREE = re.compile(r"(?<![\w}\]^\\])\{(\w+)\}")


class PromptError(ValueError):
    """A prompts file is wrong; the message names the prompt and what it lacks or has too much."""


class Prompts:
    """One prompt set. Raises `PromptError` if the file has other prompts, or a prompt other fields."""

    def __init__(self, path: str | Path = DEFAULT):
        self.texts = read_mapping(path, "prompts file", PromptError)
        if problem := next(_problems(self.texts), None):
            raise PromptError(
                f"prompts file {path}: {problem}; {DEFAULT.name} shows how it is written."
            )

    def fill(self, name: str, **values: object) -> str:
        """The prompt `name` with its fields filled in one pass, so values are never templates."""
        return re.sub(
            r"\{(\w+)\}",
            lambda match: str(values.get(match[1], match[0])),
            self.texts[name],
        )

    def generation(self, problem: Problem, answer_type: str) -> list[Message]:
        """What a generation agent is asked in round 1."""
        return [_user(self.fill("generation", **self._asked(problem, answer_type)))]

    def hint(self, problem: Problem, answer_type: str) -> list[Message]:
        """The problem with its ground truth as a hint (STaR only)."""
        asked = self._asked(problem, answer_type)
        return [_user(self.fill("hint", answer=problem.answer, **asked))]

    def summary(self, responses: Sequence[str]) -> list[Message]:
        """What the summarizer is asked: the responses of the other agents (Appendix B.1)."""
        return [_user(self.fill("summary", responses=self._listed(responses)))]

    def critic(self, problem: Problem, answer_type: str, summary: str) -> Message:
        """The turn that a critic agent answers, given the summary of the others' responses."""
        asked = self._asked(problem, answer_type)
        return _user(self.fill("critic", summary=summary, **asked))

    def critic_without_summary(
        self, problem: Problem, answer_type: str, responses: Sequence[str]
    ) -> Message:
        """The turn that a critic agent answers, given the others' responses themselves."""
        asked = self._asked(problem, answer_type)
        return _user(self.fill("critic_without_summary", responses=self._listed(responses), **asked))

    def cooperative(self, problem: Problem, answer_type: str, summary: str) -> Message:
        """The critic's turn in the cooperative setting (Appendix D)."""
        asked = self._asked(problem, answer_type)
        return _user(self.fill("cooperative", summary=summary, **asked))

    def identified(self, message: Message, role: str, number: int) -> Message:
        """A prompt with the identity of the agent that it is for before it (Appendix E.2)."""
        return _user(f"{self.fill(f'{role}_id', number=number)}\n{message['content']}")

    def _asked(self, problem: Problem, answer_type: str) -> dict[str, str]:
        formats = self.texts["answer_format"]
        answer_format = formats.get(problem.task, formats[answer_type])
        return {"question": problem.question, "answer_format": answer_format}

    def _listed(self, responses: Sequence[str]) -> str:
        numbered = enumerate(responses, start=1)
        return "\n".join(self.fill("response", number=n, response=r) for n, r in numbered)


def _problems(texts: dict[Any, Any]) -> Iterator[str]:
    """What is wrong with a prompt set, each in a few words."""
    for name in texts:
        if name not in FIELDS and name != "answer_format":
            yield f"there is no prompt {name!r}{_hint(str(name), FIELDS)}"
    for name, fields in FIELDS.items():
        if not isinstance(texts.get(name, ""), str):
            yield f"`{name}` is {type(texts[name]).__name__}, not text"
        yield from _wrong_fields(name, texts.get(name, ""), fields)
    yield from _wrong_formats(texts.get("answer_format"))


def _wrong_fields(name: str, text: str, fields: set[str]) -> Iterator[str]:
    """Fields that a prompt lacks, and words in braces that look like fields and would not be filled."""
    for field in sorted(fields):
        if f"{{{field}}}" not in text:
            yield f"`{name}` lacks {{{field}}}"
    known = set().union(*FIELDS.values())
    for word in _FREE.findall(text):
        if word not in fields and nearest(word, known, cutoff=0.8):
            yield f"`{name}` has {{{word}}}, which is not filled in there{_hint(word, fields)}"


def _wrong_formats(formats: object) -> Iterator[str]:
    """What `answer_format` lacks, or has for tasks that do not exist."""
    if not isinstance(formats, dict):
        formats = {}
    for kind in KINDS:
        if kind not in formats:
            yield f"answer_format needs `{kind}`"
    for name, text in formats.items():
        if not isinstance(text, str) or not text.strip():
            yield f"`{name}` of answer_format is no text"
        try:
            if name not in KINDS:
                answer_type(name)
        except ValueError as error:
            yield f"in answer_format, {str(error).rstrip('.')}"


def _hint(word: str, valid: Iterable[str]) -> str:
    near = nearest(word, valid)
    return f" (did you mean {near!r}?)" if near else ""


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


@cache
def load_prompts(path: str | Path | None = None) -> Prompts:
    """The prompt set of a file, or the default one. Cached: a set is read once."""
    return Prompts(DEFAULT if path is None else as_path("path", path))
