"""Math-verify and the scorers of reasoning_gym, in processes that can be killed.

What a model writes can keep a computer algebra system busy for ever or fill the memory, and
math-verify's own limits need signals of the main thread. So `worker.py` runs as a program of its own,
with little memory and no right to write files, and the kernel ends it when a question takes longer than
its limit of CPU time, which does not depend on what else the machine does. It works in a Jupyter
kernel, in threads and in daemonic processes, and ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

LIMIT = 2.0  # seconds of CPU for one comparison, whatever it consists of
PATIENCE = 120.0  # seconds without a word after which a process counts as stuck
READ, READY = "read", "ready"  # a part of a question is read; the library is imported

_PROGRAM = Path(__file__).with_name("worker.py")
_left = threading.local()  # `seconds` that the comparison of this thread may still take


class GradingError(RuntimeError):
    """A process that grading needs cannot be started."""


class _OutOfTime(Exception):
    """A comparison has used up its `LIMIT`."""


def within_limit(compare: Callable[[], bool]) -> bool:
    """What a comparison says; False if its questions take over `LIMIT` seconds of CPU in all."""
    _left.seconds = LIMIT
    try:
        return compare()
    except _OutOfTime:
        return False


def ask(library: str, first: str, second: str) -> float:
    """The answer of a `worker.py` to two texts, within the limit of the comparison it is part of.

    `math_verify` says whether two pieces of LaTeX are mathematically equal (1 or 0), `reasoning_gym`
    which score, up to 1, a problem's scoring gives to an answer. Raises `GradingError` if the library
    cannot be started.
    """
    score, seconds = _asked(library, first, second)
    _left.seconds -= seconds
    if _left.seconds <= 0:
        raise _OutOfTime
    return score


@lru_cache(maxsize=100_000)
def _asked(library: str, first: str, second: str) -> tuple[float, float]:
    """The score and the seconds it took; not kept if it only did not fit into the rest of a limit."""
    answer = _graders[library].ask(first, second, _left.seconds)
    if answer is None and _left.seconds < LIMIT:
        raise _OutOfTime
    return answer or (0.0, LIMIT)


class Grader:
    """Workers with one library, as many as processors, each for one question at a time."""

    def __init__(self, library: str) -> None:
        self.library, self.free = library, threading.Semaphore(os.cpu_count() or 2)
        self.idle: list[subprocess.Popen] = []
        self.unreadable: set[str] = set()  # texts that no worker survived

    def ask(self, first: str, second: str, seconds: float) -> tuple[float, float] | None:
        """The score of a question and the seconds it took; None if it ended the worker."""
        if self.unreadable & {first, second}:
            return None
        with self.free:
            for _ in range(2):  # the first may have been killed from outside
                said = self._exchange([first, second, seconds])
                if said and said[-1] != READ:
                    score, _, spent = said[-1].partition(" ")
                    if spent:
                        return float(score), float(spent)
                    break
        if seconds >= LIMIT and said.count(READ) < 2:
            self.unreadable.add((first, second)[said.count(READ)])
        return None

    def _exchange(self, question: list) -> list[str]:
        """A worker's words on a question: `read` for each part that it read, then what it says."""
        said: list[str] = []
        try:
            worker = self.idle.pop()
        except IndexError:
            worker = _started(self.library)
        try:
            said = _said(worker, question)
        finally:  # also when the caller is interrupted: half an exchange must not stay
            if said and said[-1] != READ:
                self.idle.append(worker)
            else:
                worker.kill()
                worker.communicate()
        return said


def _started(library: str) -> subprocess.Popen:
    """A running `worker.py`, isolated from the environment, that finds packages where this one does."""
    paths, pipe = json.dumps([path for path in sys.path if path]), subprocess.PIPE
    command = [sys.executable, "-I", "-B", str(_PROGRAM), library, paths]
    # In a session of its own: an interrupted cell must not interrupt a comparison halfway.
    worker = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
    )
    if _said(worker, []) != [READY]:
        raise GradingError(f"the grader's process does not start: check that `import {library}` works.")
    return worker


def _said(worker: subprocess.Popen, question: list) -> list[str]:
    """A worker's words on a question, up to one that ends an answer, or to its own end."""
    assert worker.stdin and worker.stdout
    timer = threading.Timer(PATIENCE, worker.kill)
    timer.daemon = True
    timer.start()
    said: list[str] = []
    try:
        worker.stdin.write(json.dumps(question).encode() + b"\n")
        worker.stdin.flush()
        while (not said or said[-1] == READ) and (line := worker.stdout.readline()):
            said.append(line.decode().strip())
    except BrokenPipeError:
        pass
    finally:
        timer.cancel()
    return said


_graders: dict[str, Grader] = {}


def _start_afresh() -> None:
    """At first and after a fork: the workers belong to the parent."""
    _graders.update({library: Grader(library) for library in ("math_verify", "reasoning_gym")})


_start_afresh()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
