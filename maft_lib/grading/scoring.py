"""The scorers of the reasoning_gym package, in a process that can be killed.

Which scorers may see a model's text at all is decided by their source (`tasks.scorers`); here they are
kept from taking for ever.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from functools import lru_cache
from pathlib import Path

from maft_lib.grading.process import Worker
from maft_lib.grading.symbolic import LIMIT
from maft_lib.tasks.reasoning_gym import FULL_SCORE, check_safe

LONGEST = 10_000  # characters of an answer that a scorer is given

_PROGRAM = Path(__file__).with_name("scoring_worker.py")
_lock = threading.Lock()
_running: list[Worker] = []


@lru_cache(maxsize=100_000)
def is_scored_right(scoring: str, answer: str) -> bool:
    """Whether a dataset's own scorer gives an answer full marks; False if that takes over `LIMIT`.

    `scoring` is a problem's field of that name. Raises `DataError` for a scorer that could execute the
    answer, and `GradingError` if the package cannot be started.
    """
    check_safe(json.loads(scoring)["name"])
    if len(answer) > LONGEST:
        return False
    with _lock:
        if not _running:
            _running.append(Worker(_PROGRAM, "reasoning_gym"))
        worker, said = _running[0], [""]
        try:
            worker.greet()
            said = worker.ask([scoring, answer], LIMIT)
        finally:
            if not said or not said[0]:
                _stop()
        return bool(said) and float(said[0]) >= FULL_SCORE


def _stop() -> None:
    while _running:
        _running.pop().stop()


def _forget() -> None:
    """After a fork: the process belongs to the parent, and the lock may be held."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)
