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
from queue import LifoQueue

LIMIT = 2.0  # seconds of CPU for one comparison, whatever it consists of
PATIENCE = 120.0  # seconds without a word after which a process counts as stuck

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
    answer = _answer(library, first, second, _left.seconds)
    if answer is None and _left.seconds < 0.9 * LIMIT:
        raise _OutOfTime
    return answer or (0.0, LIMIT)


def _answer(library: str, first: str, second: str, seconds: float) -> tuple[float, float] | None:
    """The score of a question and the seconds it took; None if it ended the worker."""
    said, free = "", _workers(library, os.getpid())
    for _ in range(2):  # the first worker may have been killed from outside
        worker = free.get()
        try:
            worker = worker or _started(library)
            said = _said(worker, [first, second, seconds])
        finally:  # also when the caller is interrupted: half an exchange must not stay
            if worker and not said:
                worker.kill()
                worker.communicate()
                worker = None
            free.put(worker)
        if said:
            break
    score, _, spent = said.partition(" ")
    return (float(score), float(spent)) if spent else None


@lru_cache
def _workers(library: str, pid: int) -> LifoQueue[subprocess.Popen | None]:
    """A process's workers with one library, as many as processors; None is one that has yet to start.

    Each is for one question at a time. A fork has workers of its own.
    """
    free: LifoQueue[subprocess.Popen | None] = LifoQueue()
    for _ in range(os.cpu_count() or 2):
        free.put(None)
    return free


def _started(library: str) -> subprocess.Popen:
    """A running `worker.py` that finds packages where this process does."""
    worker = subprocess.Popen(
        [sys.executable, "-P", "-B", str(_PROGRAM), library],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # an interrupted cell must not interrupt a comparison halfway
    )
    if _said(worker, []) != "ready":
        raise GradingError(f"the grader's process does not start: check that `import {library}` works.")
    return worker


def _said(worker: subprocess.Popen, question: list) -> str:
    """A worker's answer to a question, a line each; "" if the worker ends instead."""
    assert worker.stdin and worker.stdout
    timer = threading.Timer(PATIENCE, worker.kill)
    timer.daemon = True
    timer.start()
    try:
        worker.stdin.write(json.dumps(question) + "\n")
        worker.stdin.flush()
        return worker.stdout.readline().strip()
    except BrokenPipeError:
        return ""
    finally:
        timer.cancel()
