"""What sentences of errors are made of: foreign words on one line, and the nearest valid name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


def one_line(said: object, length: int = 300) -> str:
    """An error's message, or other foreign words, on one line and without what no terminal prints."""
    words = " ".join(str(said).split())[:length]
    if isinstance(said, (LookupError, ArithmeticError)):  # whose messages alone say too little
        words = f"{type(said).__name__}: {words}"
    return "".join(c if c.isprintable() else "?" for c in words)


def shown(value: object) -> str:
    """A value as an error shows it: whatever it is, on one line and not long."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 80
    return one_line(short.repr(value))


def nearest(name: object, valid: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The valid name most like a wrong one, None if all are less alike than `cutoff` (0 to 1)."""
    near = difflib.get_close_matches(str(name)[:100], list(valid), n=1, cutoff=cutoff)
    return near[0] if near else None
