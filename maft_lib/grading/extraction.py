r"""Finds the final answer in a response.

The last `\boxed{}` counts, since it is what the prompts ask for and a critic may quote other agents'
boxes before its own. A response without a box is read as people would read it: what follows the last
"####" or "the answer is", then what stands alone at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from maft_lib.tasks.worked import boxes

TAIL = 2_000  # characters at the end of a response in which an answer without a box is looked for

_MARKED = re.compile(r"####[ \t]*([^\n]+)")
# Some models write "####" before headings too: an answer there is short and has a digit or mathematics.
_HEADING = re.compile(r"(?:Step|Part)\b|\d+[.)]\s+[A-Za-z]|(?:[^\d$\\]*[A-Za-z]{3,}){3}|[^\d$\\]*:")
_TAGGED = re.compile(r"<answer>(.{0,1000}?)</answer>", re.DOTALL)
_SPOKEN = re.compile(
    r"\b(?:answer|(?:choice|option)(?=\s+is|\s*:))\b[*_]*"
    r"(?:\s+(?:is|was|would be|should be|equals)\b|\s*[:=])[*_:]*\s*([^\n]+)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<![A-Z])[.!?](?=\s|$)(?!\s*\d)|,?\s+(?:because|since|so that)\b")
_MATHEMATICS = re.compile(r"\$\$([^$]+)\$\$|(?<!\\)\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\\?[$€£]\s?)?(?:\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?|\.\d+)%?")
# Mathematics or a list that goes on before a number, or behind it: it is not the whole answer.
_BESIDE = re.compile(r"[√π^*/+\\({\[]\s*$|\w$|(?:\band|\bor|,)\s*$")
_BEHIND = re.compile(r"\s*(?:[-+*/^_!√π\\({\[]|[a-zA-Z]\b)|[a-zA-Zπ√]")
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?!(?:[^{}]|\\text\{\w*\})*\})")  # but for placeholders
_HALF_BOX = re.compile(r"\\(?:boxed|fbox)\s*[^\s{}\\]*\Z")  # \boxed 12, which may go on
_LAST_END = re.compile(r".*(?:\n|</answer>|[.!?](?=[\s*_]|$))", re.DOTALL)  # of a sentence or line
_PLACEHOLDERS = ("", "answer", "your answer", "final answer", "...", "\\ldots", "\\text{answer}")
_LETTER = re.compile(
    r"\(\s*([A-Za-z])\s*\)|(?<![\w'])([A-Z])(?=[,.):*\]\">]|\s*$)"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer) ([A-Z])\b|^([A-Z]) is (?:the )?(?:correct|right)"
)
_DENIED = re.compile(r"\b(?:not|neither|nor|or|cannot|isn't|wrong|incorrect)\b", re.IGNORECASE)


def candidates(text: str, answer_type: str, cut: bool = False) -> Iterator[str]:
    """What may be the final answer of a response, the likeliest first.

    A box ends the search, even if nothing in it can be read: an answer in words after it would be a
    guess at what the agent meant. Where the response is cut, or a box stays open, only a statement
    that ends before that counts.
    """
    if cut:
        text = _HALF_BOX.sub("", text)
    if found := [box for box in boxes(text) if box.lower() not in _PLACEHOLDERS]:
        yield found[-1]
        return
    if open_box := _OPEN_BOX.search(text):
        text, cut = text[: open_box.start()], True
    tail = text[-TAIL:]
    if cut:
        end = _LAST_END.match(tail)
        tail = end[0] if end else ""
    yield from reversed([found.strip() for found in _TAGGED.findall(tail)])
    for marked in _MARKED.findall(tail)[-1:]:
        if not _HEADING.match(marked.strip()):
            yield marked.strip()
    for spoken in _SPOKEN.findall(tail)[-1:]:
        yield from _phrases(spoken, answer_type)
    if cut:
        return
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    yield from _at_the_end(last, answer_type)


def _phrases(said: str, answer_type: str) -> Iterator[str]:
    """What "the answer is" may mean: the mathematics at its beginning or end, the rest, a number."""
    sentence = _SENTENCE_END.split(said.strip(), maxsplit=1)[0].strip().strip("*_").strip()
    if sentence.lower().startswith("not ") or "\\boxed" in sentence:
        return
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
        formulas = list(_MATHEMATICS.finditer(line))
        if answer_type == "expression" and formulas:
            if not re.search(r"(?:\band|\bor|,)\s*$", line[: formulas[-1].start()][-6:]):
                yield _inside(formulas[-1])
            return
        for number in list(_NUMBER.finditer(line))[-1:]:
            before, after = line[: number.start()], line[number.end() :]
            part = _BESIDE.search(before[-6:]) or _BEHIND.match(after)  # of a larger answer
            if not (part and answer_type == "expression"):
                yield number[0].strip()


def _only_letter(text: str) -> list[str]:
    """The letter that a sentence chooses, if it names one only."""
    if _DENIED.search(text):
        return []
    letters = {letter for groups in _LETTER.findall(text) for letter in groups if letter}
    return list(letters) if len(letters) == 1 else []


def _inside(mathematics: re.Match) -> str:
    return next(filter(None, mathematics.groups()))


_CHOICE = re.compile(
    r"(?:the )?(?:correct |right |final )?(?:option|choice|answer)?(?: is)? ?:? ?"
    r"(?:\( ?([A-Za-z]) ?\)|([A-Za-z]) ?(?:[.):](?= |$)|$)|(?-i:([A-Z])) (?:- ?)?(?=[\d$\\]))"
    r"(?P<rest>.*)",
    re.IGNORECASE,
)
_LONGEST_CHOICE = 1_000  # characters


def choice(answer: str, options: Sequence[str] = ()) -> str | None:
    """The capital letter that an answer chooses, by the text of an option or by letter; else None."""
    if len(answer) > _LONGEST_CHOICE:
        return None
    wanted = _folded(answer)
    same = [letter for letter, option in zip(ascii_uppercase, options) if _folded(option) == wanted]
    if wanted and len(same) == 1:
        return same[0]
    plain = re.sub(r"\\(?:text|math)[a-z]*|\\[() ,]|[$*_`{}\[\]\"<>]", " ", answer)
    found = _CHOICE.fullmatch(re.sub(r"\s+", " ", plain).strip())
    if not found or re.match(r"\s*(?:,|and\b|or\b|&)\s*\(?[A-Za-z]\b", found["rest"]):
        return None
    if re.search(r"\([A-Z]\)", found["rest"]) or _DENIED.match(found["rest"].strip()):
        return None
    letter = (found[1] or found[2] or found[3]).upper()
    return letter if not options or letter in ascii_uppercase[: len(options)] else None


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\\text\s*|[{}$]", "", text)).strip().rstrip(".").casefold()
