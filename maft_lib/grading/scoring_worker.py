"""The process behind `scoring`: gives answers to the scorers of reasoning_gym. Runs alone."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from typing import Any


def main() -> None:
    """Answers (scoring, answer) pairs with the score until standard input ends."""
    sys.path[:] = json.loads(sys.argv[1])
    import reasoning_gym  # noqa: F401  before the first pair

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    for line in sys.stdin:
        pair = json.loads(line)
        answers.write((str(_score(*pair)) if pair else "ready") + "\n")
        answers.flush()


def _score(scoring: str, answer: str) -> float:
    problem = json.loads(scoring)
    try:
        return float(_dataset(problem["name"]).score_answer(answer, problem["entry"]))
    except Exception:  # scorers raise all kinds of errors at text that they do not expect
        return 0.0


@cache
def _dataset(name: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=0, size=1)


if __name__ == "__main__":
    main()
