"""Arguments of functions, checked at the door: a wrong one is a `ValueError` of one sentence.

Without that pandas or NumPy would say something from far below, or a table would silently be empty.
Knows what arguments look like, not what they are for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maft_lib.config import Config
from maft_lib.wording import shown

if TYPE_CHECKING:  # which knows this module
    from maft_lib.debate import Debate


def _described(value: object) -> str:
    """A value as a message shows it: short ones as they are written, others by their type."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return shown(value)
    return f"of type {type(value).__name__}"


def check_kind(name: str, value: object, kind: type, hint: str = "") -> None:
    """Raises `ValueError` unless `value` is a `kind`; `hint` says where one comes from."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"{name} is {_described(value)}: give {article} {kind.__name__}{hint}.")


def check_config(config: object) -> None:
    """Raises `ValueError` unless it is a config; a profile's name is none."""
    check_kind("config", config, Config, ", as load_config makes it")


def check_able(name: str, value: object, method: str, hint: str) -> None:
    """Raises `ValueError` unless `value` has a method; for what any class may be."""
    if not hasattr(value, method):
        raise ValueError(f"{name} is {_described(value)}: give {hint}.")


def check_flag(name: str, value: object) -> None:
    """Raises `ValueError` unless `value` is True or False: "no" would be taken for yes."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {_described(value)}: give True or False.")


def check_text(name: str, value: object) -> None:
    """Raises `ValueError` unless `value` is text, and not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {_described(value)}: give text.")


def check_choice(name: str, value: object, valid: Sequence[str]) -> None:
    """Raises `ValueError` unless `value` is one of `valid`."""
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{name} is one of {', '.join(valid)}, but it is {_described(value)}.")


def check_number(name: str, value: Any, least: float, most: float) -> None:
    """Raises `ValueError` unless `value` is a number between bounds; nan is none."""
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) <= most:
        raise ValueError(f"{name} is {_described(value)}: give a number from {least} to {most}.")


def check_whole(name: str, value: Any, least: float = -math.inf) -> None:
    """Raises `ValueError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        bound = "" if least == -math.inf else f" of at least {least}"
        raise ValueError(f"{name} is {_described(value)}: give a whole number{bound}.")


def check_each(name: str, values: object, kind: type, least: int = 1) -> None:
    """Raises `ValueError` unless it is a list (or another sequence) of `least` or more `kind` alone.

    Text is no list of its letters.
    """
    wanted = "text" if kind is str else kind.__name__
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name} is {_described(values)}: give a list of {wanted}.")
    if len(values) < least:
        raise ValueError(f"{name} is empty: give at least one {wanted}.")
    for place, value in enumerate(values):
        if not isinstance(value, kind):
            raise ValueError(f"{name}[{place}] is {_described(value)}: give a list of {wanted} alone.")


def check_debate(name: str, debate: Debate) -> tuple[int, int]:
    """A debate's numbers of agents and rounds; raises `ValueError` unless it came to its end."""
    lengths = {len(turns) for turns in debate.turns}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"{name} did not come to its end: give debates as run_debates returns them.")
    return len(debate.turns), lengths.pop()


def check_debates(debates: Sequence[Debate], number: int = -1, name: str = "debates") -> None:
    """Raises `ValueError` unless these are finished debates, one at least, all with a round `number`.

    `number` counts rounds from 0, or from the end below 0.
    """
    from maft_lib.debate import Debate  # which knows this module

    check_each(name, debates, Debate)
    check_whole("number", number)
    for place, debate in enumerate(debates):
        _, rounds = check_debate(f"{name}[{place}]", debate)
        if not -rounds <= number < rounds:
            raise ValueError(f"number is {number}: {name}[{place}] has the rounds 0 to {rounds - 1}.")


def check_alike(debates: Sequence[Debate]) -> int:
    """The number of agents of finished debates; raises `ValueError` if they have different ones.

    So they have, too, if they went over different numbers of rounds.
    """
    check_debates(debates)
    shapes = [check_debate("debates", debate) for debate in debates]
    for place, (agents, rounds) in enumerate(shapes):
        if (agents, rounds) != shapes[0]:
            raise ValueError(
                f"debates[{place}] has {agents} agents and {rounds} rounds, debates[0] {shapes[0][0]} "
                f"and {shapes[0][1]}: give debates of one society over as many rounds."
            )
    return shapes[0][0]


def check_columns(name: str, frame: object, columns: Collection[str]) -> None:
    """Raises `ValueError` unless it is a data frame with these columns, and with rows."""
    import pandas as pd  # which workers that train or generate need not wait for

    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"{name} is {_described(frame)}: give a data frame with {', '.join(columns)}.")
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(f"{name} lacks {', '.join(missing)}: give a data frame with such columns.")
    if frame.empty:
        raise ValueError(f"{name} is empty: give a data frame with at least one row.")


def as_numbers(name: str, values: Any, least: int = 1, nan: bool = False) -> np.ndarray:
    """Values (n,) as floats; raises `ValueError` for fewer than `least` and for what is no number."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 1:
        raise ValueError(f"{name} is {_described(values)}: give a list of numbers.")
    if len(numbers) < least:
        raise ValueError(f"{name} is empty: give at least one number.")
    wrong = ~np.isfinite(numbers) & ~(np.isnan(numbers) & nan)
    if wrong.any():
        where = int(wrong.argmax())
        raise ValueError(f"{name} holds {numbers[where]} in place {where}: give finite numbers alone.")
    return numbers


def check_numbers(name: str, frame: Any, columns: Collection[str]) -> None:
    """Raises `ValueError` unless these columns of a data frame hold finite numbers alone."""
    for column in columns:
        as_numbers(f"column {column} of {name}", frame[column])


def as_path(name: str, path: str | Path) -> Path:
    """A path as a `Path`; raises `ValueError` for what is none."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ValueError(f"{name} is {_described(path)}: give a path.")
    return Path(path)


def as_place(path: str | Path) -> Path:
    """The path of a file to write; raises `ValueError` unless its folder is there."""
    place = as_path("path", path)
    if place.name in ("", ".."):
        raise ValueError(f"path is {_described(str(path))}: give the path of a file.")
    if not place.parent.is_dir():
        raise ValueError(f"{place} cannot be written: make the folder {place.parent} first.")
    return place
