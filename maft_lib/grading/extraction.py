r"""Finds the final answer in a response. Knows forms of speech, not mathematics.

The last `\boxed{}` counts, since it is what the prompts ask for and a critic may quote other agents'
boxes before its own. A response without a box is read as people would read it: what follows the last
"####" or "the answer is", then what stands alone at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from maft_lib.tasks.boxes import last_box

TAIL = 2_000  # characters at the end of a response in which an answer without a box is looked for

_MARKED = re.compile(r"####[ \t]*([^\n]+)")
_TAGGED = re.compile(r"<answer>(.{0,1000}?)</answer>", re.DOTALL)
_SPOKEN = re.compile(
    r"(?:answer|choice|option|result)\b[*_]*(?:\s+(?:is|was|would be|should be|equals)\b|\s*[:=])"
    r"[*_:]*\s*([^\n]+)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<![A-Z])[.!?](?=\s|$)(?!\s*\d)|,?\s+(?:because|since|so that)\b")
_MATHEMATICS = re.compile(
    r"\$\$([^$]+)\$\$|(?<!\\)\$([^$]+)\$|\\\(([^)]*(?:\([^)]*\)[^)]*)*)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_NUMBER = re.compile(r"(?<![\w.])[-−]?\s?\\?[$€£]?\s?(?:\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?|\.\d+)%?")
_LETTER = re.compile(
    r"\(\s*([A-Za-z])\s*\)|(?<![\w'])([A-Z])(?=[,.):*]|\s*$)"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer) ([A-Z])\b"
)


def candidates(text: str, answer_type: str) -> Iterator[str]:
    """What may be the final answer of a response, the likeliest first.

    A box ends the search, even if nothing in it can be read: an answer in words after it would be a
    guess at what the agent meant.
    """
    box = last_box(text)
    if box is not None:
        yield box
        return
    tail = text[-TAIL:]
    yield from reversed([found.strip() for found in _TAGGED.findall(tail)])
    for marked in _MARKED.findall(tail)[-1:]:
        yield marked.strip()
    for spoken in _SPOKEN.findall(tail)[-1:]:
        yield from _phrases(spoken, answer_type)
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    yield from _at_the_end(last, answer_type)


def _phrases(said: str, answer_type: str) -> Iterator[str]:
    """What "the answer is" may mean: the mathematics at its beginning or end, the rest, a number."""
    sentence = _SENTENCE_END.split(said.strip(), maxsplit=1)[0].strip().strip("*_").strip()
    if answer_type == "choice":
        yield sentence
        yield from _only_letter(sentence)
        return
    found = list(_MATHEMATICS.finditer(sentence))
    if found and found[0].start() == 0:
        yield _inside(found[0])
    if found and found[-1].end() == len(sentence):
        yield _inside(found[-1])
    if answer_type != "expression":
        yield from (sentence, *_NUMBER.findall(sentence.rpartition("=")[2])[:1])
    else:
        value = sentence.rpartition(" is ")[2]
        prose = len(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}", value)) > 3
        yield from _NUMBER.findall(value)[-1:] if prose else ()
        yield value


def _at_the_end(line: str, answer_type: str) -> Iterator[str]:
    """What stands at the end of the last line: a letter, mathematics, a number."""
    if answer_type == "choice":
        yield line
        yield from _only_letter(line)
    elif answer_type != "text":  # of free text no end can be told
        if answer_type == "expression":
            yield from [_inside(found) for found in _MATHEMATICS.finditer(line)][-1:]
        yield from (number.strip() for number in _NUMBER.findall(line)[-1:])


def _only_letter(text: str) -> list[str]:
    """The letter that a sentence chooses, if it names one only."""
    letters = {letter for groups in _LETTER.findall(text) for letter in groups if letter}
    return list(letters) if len(letters) == 1 else []


def _inside(mathematics: re.Match) -> str:
    return next(filter(None, mathematics.groups()))


_CHOICE = re.compile(
    r"(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:option|choice|answer)?(?:\s+is)?\s*:?\s*"
    r"(?:\\text\s*\{|\{)?\s*(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*(?:[.):](?=\s|\}|$)|\}|$))"
    r"(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)


def choice(answer: str, options: Sequence[str] = ()) -> str | None:
    """The capital letter that an answer chooses, by letter or by the text of an option; else None."""
    answer = re.sub(r"[$*_`]|\\[()]", "", answer).strip()
    found = _CHOICE.fullmatch(answer)
    if found and not re.match(r"\s*(?:,|and\b|or\b|&)\s*\(?[A-Za-z]\b", found["rest"]):
        letter = (found[1] or found[2]).upper()
        return letter if not options or ord(letter) - ord("A") < len(options) else None
    wanted = _folded(answer)
    same = [n for n, option in enumerate(options) if _folded(option) == wanted]
    return chr(ord("A") + same[0]) if wanted and len(same) == 1 else None


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\\text\s*|[{}$]", "", text)).strip().rstrip(".").casefold()
