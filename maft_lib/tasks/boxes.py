r"""Finds the last `\boxed{}` of a text. Knows no answer, no task, no mathematics.

One pass from left to right, so the time is linear in the text whatever a model wrote.
"""

from __future__ import annotations

import re

# A backslash with what follows it, so that \{, \} and \\ open and close nothing; or a lone brace.
_TOKEN = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox)(?![A-Za-z]))|\\(?:[A-Za-z]+|.)|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)
_OPENING = re.compile(r"\s*\{")
_BARE = re.compile(r"[ \t]*([^\s${}\\]*\d[^\s${}\\]*|[A-Za-z](?![A-Za-z]))")


def last_box(text: str) -> str | None:
    r"""The content of the last complete box, or None if there is none; see `boxes`."""
    found = boxes(text)
    return found[-1] if found else None


def boxes(text: str) -> list[str]:
    r"""The contents of all complete `\boxed{...}` and `\fbox{...}`, in the order of their ends.

    Braces may nest, `\{` and `\}` count as text, and white space at the ends is dropped. `\boxed 5`
    without braces is a box too, if what follows up to white space, `$`, a brace or a backslash has a
    digit or is one letter. A box that is never closed is passed over for the last complete one. Of a
    box within a box the outer one counts. An empty box is a box, with the content "".
    """
    found: list[tuple[int, int]] = []
    opened: list[int | None] = []  # where the content of each open brace begins, if it is a box's
    end = 0
    while token := _TOKEN.search(text, end):
        end = token.end()
        if token["close"]:
            begin = opened.pop() if opened else None
            if begin is not None:
                while found and found[-1][0] > begin:  # boxes within this one
                    found.pop()
                found.append((begin, token.start()))
        elif token["open"]:
            opened.append(None)
        elif token["box"] and (brace := _OPENING.match(text, end)):
            end = brace.end()
            opened.append(end)
        elif token["box"] and (bare := _BARE.match(text, end)):
            found.append((bare.start(1), bare.start(1) + len(bare[1].rstrip(".,;:"))))
            end = bare.end()
    return [text[begin:end].strip() for begin, end in found]
