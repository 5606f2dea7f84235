"""Separates what a model thinks from what it answers."""

from __future__ import annotations

import re

_OPENED = re.compile(r"<think(?:ing)?>|\[THINK\]", re.IGNORECASE)
_CLOSED = re.compile(r"</think(?:ing)?>|\[/THINK\]", re.IGNORECASE)
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w++)[^<]*+<\|message\|>"
)  # gpt-oss: analysis, commentary, final
_MARK = re.compile(r"<\|(?:start|end|return|call)\|>(?:assistant)?")


def split_reasoning(text: str) -> tuple[str, str]:
    """The reasoning and the answer part of what a model wrote, each without its marks.

    The last `</think>` ends the reasoning, also where a template opened it in the prompt; of gpt-oss'
    channels the last `final` one is the answer. A thought that never closes leaves no answer.
    """
    if channels := list(_CHANNEL.finditer(text)):
        last = channels[-1]
        answer = _MARK.split(text[last.end() :])[0] if last[1] == "final" else ""
        thoughts = text[: last.start()] if last[1] == "final" else text
        return _MARK.sub("", _CHANNEL.sub("", thoughts)).strip(), answer.strip()
    end = max((mark.end() for mark in _CLOSED.finditer(text)), default=0)
    if _OPENED.search(text, end):
        end = len(text)
    thoughts = _CLOSED.sub("", _OPENED.sub("", text[:end]))
    return thoughts.strip(), text[end:].strip() if end else text
