r"""Finds the final answer in a response.

The last `\boxed{}` counts, since it is what the prompts ask for and a critic may quote other agents'
boxes before its own. A response without a box is read as people would read it: what follows the last
"####" or "the answer is", then what the last sentence arrives at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from maft_lib.grading.latex import restated, split
from maft_lib.tasks.worked import boxes

TAIL = 2_000  # characters at the end of a response in which an answer without a box is looked for

_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?!(?:[^{}]|\\text\{\w*\})*\})")  # but for placeholders
_HALF_BOX = re.compile(r"\\(?:boxed|fbox)\s*[^\s{}\\]*\Z")  # \boxed 12, which may go on
_LAST_END = re.compile(r".*(?:\n|</answer>|[.!?](?=[\s*_]|$))", re.DOTALL)  # of a sentence or line
_PLACEHOLDERS = ("", "answer", "your answer", "final answer", "...", "\\ldots", "\\text{answer}")

# Layout that says nothing: marks of chat templates, fences and rules, emphasis.
_LAYOUT = re.compile(r"<\|[^|<>\n]*\|>|</?s>|^[ \t]*(?:```\w*|([-=*_])\1\1+)[ \t]*$", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\w)])(\*\*|__|`)(?=\S)([^\n*`]+?)(?<=\S)\1")
_DISPLAY = re.compile(r"\\\[([^$]*?)\\\]|\$\$([^$]*)\$\$")
_ALIGNED = re.compile(r"\\begin\{(align\*?|aligned|gather\*?)\}(.*?)\\end\{\1\}", re.DOTALL)
_OF_A_UNIT = re.compile(r"(?<=[a-z])\$(\^\{?[23]\}?)\$")  # cm$^2$
_NEXT_QUESTION = re.compile(
    r"\n[ \t#*]*(?:Question|Q|Problem|Exercise|Human|User|Instruction)\b[^\n:]{0,12}:"
)

_TAGGED = re.compile(r"<answer>(.{0,1000}?)</answer>", re.DOTALL)
_MARKED = re.compile(r"####[ \t]*([^\n]+)")
# Some models write "####" before headings too: an answer there is short and has a digit or mathematics.
_HEADING = re.compile(r"(?:Step|Part)\b|\d+[.)]\s+[A-Za-z]|(?:[^\d$\\]*[A-Za-z]{3,}){3}|[^\d$\\]*:")
_SPOKEN = re.compile(
    r"\b(?:answer|(?:choice|option)(?=\s+is|\s*:))\b[*_]*"
    r"(?:\s+(?:is|was|would be|should be|equals)\b|\s*[:=])[*_:]*",
    re.IGNORECASE,
)
_ITEM = re.compile(r"(?:[-*•]|\d+[.)])\s+")
_RETRACTED = re.compile(
    r"\bwait\b|\bthat(?:'s| is) (?:wrong|incorrect|not)|\bmade an? (?:mistake|error)", re.IGNORECASE
)
_HEDGED = re.compile(r"^(?:either|between|maybe)\b|\b(?:could|may|might) be\b.*\bor\b", re.IGNORECASE)
_BETWEEN = re.compile(r"\bbetween \$?\d[\d.,]*\$? and \$?\d[\d.,]*\$?")
# "The center is $(1,2)$ and the radius is $3$."
_QUANTITY = re.compile(
    r"((?:\$\w+\$|[^,;=$\d\\]){1,60}?)\b(?:is|are|was|equals|measures|has|have|costs?)\s+(?:at\s+)?"
    r"(?:\$([^$=]+)\$|\\\(([^=]+?)\\\)|([-−$€£]{0,2}\d+(?:,\d{3})*(?:\.\d+|/\d+)?%?))(?: [a-z]+)?"
)
_BETWEEN_QUANTITIES = re.compile(r"[,;]\s+(?:and\s+)?|\s+and\s+")
_DENIED = re.compile(r"\b(?:cannot|can't|isn't|not (?:sure|given|enough)|unsure|don't|do not)\b", re.I)
_CODA = re.compile(  # a line after the answer
    r"[\s*_(#>]*(?:(?:note|explanation|reasoning|check|verification)[*_]*\s*:"
    r"|(?:i hope|hope this|let me know|feel free|please|this completes|thank|q\.?e\.?d)\b)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z$\\*])")
_SENTENCE_END = re.compile(
    r"(?<![A-Z])(?<!\bRs)(?:[.?]|(?<!\d)!)(?=\s|$)(?!\s*\d)"
    r"|,?\s+(?:because|since|so that(?!['’]s)|such that|for which|where|rather than)\b"
    r"|,\s+(?:who|which is)\b(?!.*=)"
    r"|,\s+(?:not|while|with|as|when|if|but|attained|achieved|though|although)\b"
)
_BEGINNING = re.compile(r"^(?:since|because|as|if|when|for|given|with)\b(?:\$[^$]*\$|[^,$])*,\s*", re.I)
_ASIDE = re.compile(r"(?<=\S)\s+\((?=[^()]*(?<![\\a-z])[a-z]{3})[^()]*\)")

_MATHEMATICS = re.compile(r"\$\$([^$]+)\$\$|(?<!\\)\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_AND = re.compile(r",|,?\s+(?:and|or)\s+|,\s+")
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|phi|omega|ell"
_NAME = re.compile(
    rf"(?:\\(?:{_GREEK}|triangle|angle|overline|vec|mathbf|mathrm)\b|[a-zA-Z'{{}}_\s]|_\d)+"
)
_SYMBOL = re.compile(r"(?:\\[a-zA-Z]+|[a-zA-Z])(?:_\{?\w+\}?)?")  # which keeps its name: x = 5
_NUMBER = re.compile(
    r"(?<![\w.:^])[-−]?(?:\\?[$€£¥₹]\s?|(?:Rs\.?|USD|EUR|GBP)\s?)?"
    r"(?:\d+\s+\d+/\d+|\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?(?:/\d+)?|\.\d+)%?(?!:\d)"
)
# Mathematics that goes on before a number or behind it: it is not the whole answer.
_BESIDE = re.compile(r"[√π^*/+\\({\[]\s*$|\w$|[,&]\s*$|\b(?:and|or)\s*$")
_BEHIND = re.compile(r"\s*(?:[-+*/^_!√π\\({\[]|[a-zA-Z]\b)|[a-zA-Zπ√]|\s+(?:or|to)\s+[$\d]")
# What a number after these is, is part of the question: 40 miles in 2 hours.
_GIVEN = re.compile(
    r"\b(?:in|from|for|per|after|within|than|at|by|with|every|each|all|the|these|those|his|her|their"
    r"|between|when|if|to \w+|(?:out|each|any|some|one|none) of)\s+(?:the\s+)?[$\\(]*$",
    re.IGNORECASE,
)
_EQUATION = re.compile(r"\b(?:equations?|line|circle|curve|graph|plane|parabola|ellipse|asymptote)\b")
_LINEAR = re.compile(r"\d\s*x.*y|x.*\d\s*y")  # the left side of an equation that is the answer
_ARROW = re.compile(r"\\(?:implies|Rightarrow|Longrightarrow|therefore|iff)(?![a-zA-Z])")


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
    text = _without_layout(text[-TAIL:])
    if cut:
        end = _LAST_END.match(text)
        text = end[0] if end else ""
    yield from reversed([found.strip() for found in _TAGGED.findall(text)])
    for marked in _MARKED.findall(text)[-1:]:
        if not _HEADING.match(marked.strip()):
            yield marked.strip()
    said = _SPOKEN.split(text)
    if len(said) > 1 and (sentence := _statement(said[-1])) is not None:
        yield from _readings(sentence, answer_type, True)
    if not cut and answer_type != "text":  # of free text no end can be told
        yield from _at_the_end(text, answer_type)


def _without_layout(text: str) -> str:
    """The text up to the next question that a base model makes up, with every formula on one line."""
    for found in _NEXT_QUESTION.finditer(text):
        if _SPOKEN.search(text, 0, found.start()) or "####" in text[: found.start()]:
            text = text[: found.start()]
            break
    text = _ALIGNED.sub(lambda found: f"$${_last_row(found[2])}$$", _LAYOUT.sub("", text))
    text = _DISPLAY.sub(
        lambda found: "$${}$$".format(" ".join((found[1] or found[2] or "").split())), text
    )
    text = text.replace("$$$$", "$$")
    return _EMPHASIS.sub(r"\2", _OF_A_UNIT.sub(r"\1", text))


def _last_row(rows: str) -> str:
    row = re.split(r"\\\\", rows.strip().removesuffix("\\\\"))[-1].replace("&", "")
    return re.sub(r"^(?:\\q?quad|[\s=])+", "", row)


def _statement(said: str) -> str | None:
    """The sentence after "the answer is", on its line or as the only item below; None if withdrawn."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return None
    below = not said.partition("\n")[0].strip()
    if below and _ITEM.match(lines[0]):
        if len(lines) > 1 and _ITEM.match(lines[1]):
            return None
        lines[0] = _ITEM.sub("", lines[0], count=1)
    line = re.sub(r"^not\b.*?\bbut\s+", "", lines[0])
    sentence = re.split(r",\s+so\s", _main_clause(line))[0]
    withdrawn = _RETRACTED.search(said[len(sentence) :]) or sentence.lower().startswith("not ")
    return None if withdrawn or "\\boxed" in sentence else sentence


def _main_clause(text: str) -> str:
    """A sentence without asides and reasons."""
    sentence = restated(_ASIDE.sub("", text.strip()))
    return _SENTENCE_END.split(sentence, maxsplit=1)[0].strip().strip("*_").strip()


def _at_the_end(text: str, answer_type: str) -> Iterator[str]:
    """What the last line arrives at that is no closing remark, or the letter in front of the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and _CODA.match(lines[-1]):
        lines.pop()
    if not lines:
        return
    if answer_type == "choice":
        yield from _readings(lines[-1], answer_type, False)
        marked = [line for line in lines if re.match(r"\(?[A-Z][.)]\s", line)]
        yield from marked if marked == lines[:1] else ()
        return
    sentences = _SENTENCE.split(lines[-1])
    for sentence in reversed(sentences):
        if re.search(r"[\d$\\√π]", sentence) and not _CODA.match(sentence):
            if not _DENIED.search(sentence):
                told = re.split(r",\s+so\s+(?=.*\d)", _BEGINNING.sub("", sentence) or sentence)[-1]
                yield from _readings(_main_clause(told), answer_type, False, len(sentences) == 1)
            return


def _readings(sentence: str, answer_type: str, stated: bool, alone: bool = True) -> Iterator[str]:
    """What a sentence may say: all of it where it is stated, a formula, a number.

    One that is `alone` and says what two quantities are answers with both. At the end of a derivation
    the first is what the last one comes from.
    """
    if answer_type == "choice":
        yield sentence
        yield from _only_letter(sentence)
        return
    sentence = _BETWEEN.sub("", sentence)
    if _HEDGED.search(sentence):
        return
    if alone and (values := _quantities(sentence)):
        yield from [", ".join(values)] if answer_type == "expression" else []
        return
    formulas = _formulas(sentence)
    value = re.split(r"\b(?:is|are|equals)\s", sentence)[-1]
    num_words = len(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}", value))
    if stated and formulas and answer_type == "expression":
        ends = [f for start, end, f in (formulas[0], formulas[-1]) if not start or end == len(sentence)]
        yield from (value for formula in ends for value in _values(formula, sentence))
    if stated and answer_type != "expression":
        yield sentence
    elif stated and num_words <= 3:
        yield value
    if answer_type == "number":
        yield from _number(sentence, stated)
    elif answer_type == "expression":
        told = _mentions(sentence, formulas, stated)
        new = [f for start, f in told if not _GIVEN.search(sentence[:start][-30:])]
        for formula in (new or [f for _, f in told])[-1:]:
            yield from _values(formula, sentence)
        if not told and not formulas and num_words < 2 and re.search(r"[\d\\√π]", value):
            yield value


def _quantities(sentence: str) -> list[str]:
    """The values of two quantities or more, if a sentence says only what these are."""
    parts = _BETWEEN_QUANTITIES.split(re.sub(r"\$[^$]*\$", lambda f: f[0].replace(", ", ","), sentence))
    told = [_QUANTITY.fullmatch(part) for part in parts]
    while told and told[0] is None and "$" not in parts[len(parts) - len(told)]:  # "So, ..."
        told = told[1:]
    values = [match for match in told if match]
    if not len(told) == len(values) >= 2 or re.search(r"\b(?:final|total)\b", values[-1][1]):
        return []
    return ["".join(filter(None, match.groups()[1:])) for match in values]


def _number(sentence: str, stated: bool) -> Iterator[str]:
    """The number that a sentence gives: behind the last sign of equality, not one of the question's."""
    numbers = list(_NUMBER.finditer(sentence))
    if any(re.match(r"\s+(?:or|to)\s+[$\d]", sentence[n.end() :]) for n in numbers):
        return
    equals = sentence.rfind("=")
    new = [n for n in numbers if not _GIVEN.search(sentence[: n.start()][-30:])] or numbers
    results = [n for n in numbers if n.start() > equals > 0][:1] or (new[:1] if stated else new[-1:])
    for number in results:
        yield number[0].strip()
        if sentence[number.end() :].startswith("$"):
            yield number[0].strip(" $")


def _formulas(sentence: str) -> list[tuple[int, int, str]]:
    """Formulas with their places; those that "and", "or" or a comma join are one."""
    found: list[tuple[int, int, str]] = []
    for match in _MATHEMATICS.finditer(sentence):
        inside = next(filter(None, match.groups())).strip()
        between = sentence[found[-1][1] : match.start()] if found else ""
        if between and _AND.fullmatch(between):
            start, _, before = found.pop()
            found.append((start, match.end(), f"{before.rstrip(',')}{between.rstrip()} {inside}"))
        else:
            found.append((match.start(), match.end(), inside))
    return found


def _mentions(
    sentence: str, formulas: list[tuple[int, int, str]], names: bool
) -> list[tuple[int, str]]:
    """Formulas and numbers beside them that may be an answer, in their order; mere names if need be."""
    told = [(start, formula) for start, _, formula in formulas if not _NAME.fullmatch(formula)]
    plain = sentence
    for start, end, _ in formulas:
        plain = plain[:start] + " " * (end - start) + plain[end:]
    for number in _NUMBER.finditer(plain):
        before, after = sentence[: number.start()], sentence[number.end() :]
        if not (_BESIDE.search(before[-6:]) or _BEHIND.match(after)):
            told.append((number.start(), number[0].strip()))
    return sorted(told) or [(start, formula) for start, _, formula in formulas if names]


def _values(formula: str, sentence: str) -> Iterator[str]:
    """What a formula arrives at: the number at its end, unless an equation is what is asked for."""
    formula = _ARROW.split(formula)[-1].strip().rstrip(" .,;")
    sides = split(re.sub(r"\s*\\pmod\s*(?:\{[^{}]*\}|\d)", "", formula), r"=|\\equiv(?![a-zA-Z])")
    constant = not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+|\\text\{[^{}]*\}", "", sides[-1]))
    asked = _EQUATION.search(sentence) or _LINEAR.search(sides[0]) or _SYMBOL.fullmatch(sides[0])
    if len(sides) > 1 and constant and not asked:
        yield sides[-1]
    yield formula


# What names a letter, and what denies one.
_LETTER = re.compile(
    r"\(\s*([A-Za-z])\s*\)|(?<![\w'’])([B-HJ])(?![\w'’])"
    r"|(?<![\w'’])([AI])(?=[,.):*!\]\">]|\s*$|\s+(?:is|was|seems|and|or|best|holds)\b)"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer) ([A-Z])\b"
)
_LISTED = r"\(?\b[A-Z]\b\)?(?:(?:,|,? and|,? or)\s+\(?\b[A-Z]\b\)?)*"
_NOT_CHOSEN = re.compile(
    r"\b(?:not|nor|than|of|except)\s+(?:[Oo]ption |[Cc]hoice )?\(?[A-Z]\b\)?"
    rf"|\b(?:[Ee]liminat|[Ee]xclud|[Rr]ul)\w* (?:out )?{_LISTED}|{_LISTED},? (?:is|are|was|seems)\s+"
    r"(?!(?:the |most |my )*(?:correct|right|best|answer|true|choice|likely|only)\b)"
)


def _only_letter(text: str) -> list[str]:
    """The letter that a sentence chooses, if it names one only."""
    if _DENIED.search(text):
        return []
    told = _NOT_CHOSEN.sub("", text)
    letters = {letter for groups in _LETTER.findall(told) for letter in groups if letter}
    return list(letters) if len(letters) == 1 else []


_CHOICE = re.compile(
    r"(?:the )?(?:correct |right |final )?(?:option|choice|answer)?(?: is)? ?:? ?"
    r"(?:\( ?([A-Za-z]) ?\)|([A-Za-z]) ?(?:[.):!](?= |$)|$)"
    r"|(?-i:([A-Z]))(?: (?:- ?)?(?=[\d$\\])|(?: ?-|,) (?=\w\w|\d)))"
    r"(?P<rest>.*)",
    re.IGNORECASE,
)
_ANOTHER = re.compile(r".*\([A-Z]\)|\s*(?:or|not|is|isn't)\b|\s*(?:,|and\b|&)\s*\(?[A-Za-z]\b")
_LONGEST_CHOICE = 1_000  # characters


def choice(answer: str, options: Sequence[str] = ()) -> str | None:
    """The capital letter that an answer chooses, by the text of an option or by letter; else None."""
    if len(answer) > _LONGEST_CHOICE:
        return None
    wanted = _folded(answer)
    same = [letter for letter, option in zip(ascii_uppercase, options) if _folded(option) == wanted]
    if wanted and len(same) == 1:
        return same[0]
    plain = re.sub(r"\[\s*([A-Za-z])\s*\]", r"(\1)", answer)
    plain = re.sub(r"\\(?:text|math)[a-z]*|\\[() ,]|[$*_`{}\[\]\"<>]", " ", plain)
    found = _CHOICE.fullmatch(re.sub(r"\s+", " ", plain).strip())
    if not found or _ANOTHER.match(found["rest"]):
        return None
    letter = (found[1] or found[2] or found[3]).upper()
    return letter if not options or letter in ascii_uppercase[: len(options)] else None


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\\text\s*|[{}$]", "", text)).strip().rstrip(".").casefold()
