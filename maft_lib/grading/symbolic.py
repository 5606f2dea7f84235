"""Equality of expressions by math-verify, in a process that can be killed.

What a model writes can keep a computer algebra system busy for ever or fill the memory, and
math-verify's own limits need signals of the main thread. So `symbolic_worker.py` runs as a process of
its own, with little memory and no right to write files, and is killed when a comparison takes longer
than `LIMIT`.
"""

from __future__ import annotations

import atexit
import os
import threading
from functools import lru_cache
from pathlib import Path

from maft_lib.grading.process import Worker

LIMIT = 2.0  # seconds for one comparison

_PROGRAM = Path(__file__).with_name("symbolic_worker.py")


def symbolically_equal(a: str, b: str) -> bool:
    """Whether two pieces of LaTeX are mathematically equal; False if that takes longer than `LIMIT`.

    Raises `GradingError` if math-verify cannot be started.
    """
    return _compared(*sorted((a, b)))


@lru_cache(maxsize=100_000)
def _compared(a: str, b: str) -> bool:
    return _workers.compare(a, b)


class _Workers:
    """One worker that compares and one that stands by, so that a kill costs no start-up."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.workers: list[Worker] = []
        self.unreadable: set[str] = set()  # expressions that no worker survived

    def compare(self, a: str, b: str) -> bool:
        """Whether a worker says `equal`; False for a pair that two do not survive, or one in time."""
        with self.lock:
            return self._compare(a, b, last=False)

    def _compare(self, a: str, b: str, last: bool) -> bool:
        if self.unreadable & {a, b}:
            return False
        while len(self.workers) < 2:
            self.workers.append(Worker(_PROGRAM, "math_verify"))
        worker, said = self.workers[0], [""]
        try:
            worker.greet()
            said = worker.ask([a, b], LIMIT)
        finally:  # also when the caller is interrupted: half an exchange must not stay
            if said[-1:] not in (["equal"], ["different"]):
                self.workers.remove(worker)
                worker.stop()
        if said[-1:] in (["equal"], ["different"]):
            return said[-1] == "equal"
        if not worker.expired and not last:  # it may have been killed by somebody else
            return self._compare(a, b, last=True)
        if len(said) < 2:
            self.unreadable.add((a, b)[len(said)])
        return False

    def close(self) -> None:
        """Ends the workers."""
        while self.workers:
            self.workers.pop().stop()


_workers = _Workers()


def _start_afresh() -> None:
    """After a fork: the workers belong to the parent, and its lock may be held."""
    global _workers
    _workers = _Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
atexit.register(lambda: _workers.close())
