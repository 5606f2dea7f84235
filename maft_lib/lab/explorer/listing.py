"""The line of text that stands for a debate in a list. Knows the index, no widgets and no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

LONGEST = 90  # characters of a question; a list on screen shows fewer
LEGEND = (
    "✓ the vote is right, ✗ it is wrong, – there is none. "
    "1→3/3: of three agents one is right in the first round, three in the last."
)


def lines(frame: pd.DataFrame, runs: Sequence[str] = ()) -> list[str]:
    """One line per row of the index; it names the row's run if `runs` are given, in their order."""
    columns = ["run", "question", "vote", "vote_right", "vote_wrong"]
    counted = ["num_agents", "num_rounds", "first_right", "last_right"]
    return [_line(row, runs) for row in frame[columns + counted].to_dict("records")]


def _line(row: Mapping[Any, Any], runs: Sequence[str]) -> str:
    question = row["question"]
    short = question if len(question) <= LONGEST else question[: LONGEST - 1] + "…"
    parts = (_verdict(row), _counts(row), f"[{runs[row['run']]}]" if runs else "", short)
    return " ".join(part for part in parts if part)


def _verdict(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["vote"]):
        return "–"
    return "✓" if row["vote_right"] else "✗" if row["vote_wrong"] else "?"


def _counts(row: Mapping[Any, Any]) -> str:
    """How many agents are right, over the rounds; nothing for an agent that answers alone, once."""
    if row["num_agents"] == 1:
        return ""
    first = f"{row['first_right']}→" if row["num_rounds"] > 1 else ""
    return f"{first}{row['last_right']}/{row['num_agents']}"
