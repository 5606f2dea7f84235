"""The words that agents are given. Knows what is asked, not who asks it or which model answers.

The wording is data, one YAML file per prompt set (`default.yml` here); these functions fill it in and
build the messages. Training and inference both call them, so what an agent is trained on is byte for
byte what it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from maft_lib.tasks import answer_type
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


class Prompts:
    """One prompt set. Raises `ValueError` if the file lacks a prompt or a prompt lacks a field."""

    def __init__(self, path: str | Path = DEFAULT):
        try:
            texts = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"prompts file {path} cannot be read: {problem}") from error
        if not isinstance(texts, dict):
            raise ValueError(f"prompts file {path} must be a mapping, as {DEFAULT} is")
        for name, fields in FIELDS.items():
            missing = [f for f in sorted(fields) if f"{{{f}}}" not in str(texts.get(name, ""))]
            if missing:
                raise ValueError(f"prompts file {path}: `{name}` lacks {{{missing[0]}}}")
        formats = texts.get("answer_format")
        formats = formats if isinstance(formats, dict) else {}
        missing = [kind for kind in KINDS if kind not in formats]
        if missing:
            raise ValueError(f"prompts file {path}: answer_format needs `{missing[0]}`")
        try:
            for name in set(formats) - set(KINDS):
                answer_type(name)
        except ValueError as error:
            raise ValueError(f"prompts file {path}: in answer_format, {error}") from None
        self.texts = texts

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


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


@cache
def load_prompts(path: str | Path | None = None) -> Prompts:
    """The prompt set of a file, or the default one. Cached: a set is read once."""
    return Prompts(path or DEFAULT)
