"""Math-verify and the scorers of reasoning_gym, in processes that can be killed.

What a model writes can keep a computer algebra system busy for ever or fill the memory, and
math-verify's own limits need signals of the main thread. So `worker.py` runs as a process of its own,
with little memory and no right to write files, and is killed when a question takes longer than `LIMIT`.
It is started as a program, so it works in a Jupyter kernel, in threads and in daemonic processes. It
ends with the process that started it, when its standard input closes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

LIMIT = 2.0  # seconds for one question
START_LIMIT = 120.0  # seconds until a new process has imported its library
READ = "read"  # the word for a part of a question that is read; any other word ends an answer

_PROGRAM = Path(__file__).with_name("worker.py")


class GradingError(RuntimeError):
    """A process that grading needs cannot be started."""


@lru_cache(maxsize=100_000)
def ask(library: str, first: str, second: str) -> float:
    """The answer of a `worker.py` to two texts; 0 if that takes over `LIMIT` seconds.

    `math_verify` says whether two pieces of LaTeX are mathematically equal (1 or 0), `reasoning_gym`
    which score, up to 1, a problem's scoring gives to an answer. Raises `GradingError` if the library
    cannot be started.
    """
    return _graders[library].ask(first, second)


class Grader:
    """Two workers with one library: one answers, one stands by, so that a kill costs no start-up."""

    def __init__(self, library: str) -> None:
        self.library, self.lock = library, threading.Lock()
        self.workers: list[subprocess.Popen] = []
        self.ready: subprocess.Popen | None = None  # the one that has imported its library
        self.unreadable: set[str] = set()  # texts that no worker survived

    def ask(self, first: str, second: str) -> float:
        """The number that a worker says; 0 if two workers die of the question, or one at the limit."""
        with self.lock:
            if self.unreadable & {first, second}:
                return 0.0
            for _ in range(2):  # the first may have been killed from outside
                said, expired = self._ask([first, second])
                if said and said[-1] != READ:
                    return float(said[-1])
                if expired:
                    break
            if len(said) < 2:
                self.unreadable.add((first, second)[len(said)])
            return 0.0

    def _ask(self, question: list[str]) -> tuple[list[str], bool]:
        while len(self.workers) < 2:
            self.workers.append(_started(self.library))
        worker, said, expired = self.workers[0], [READ], False
        try:
            if worker is not self.ready and _said(worker, [], START_LIMIT)[0] != ["ready"]:
                raise GradingError(
                    f"the grader's process does not start: check that `import {self.library}` works."
                )
            self.ready = worker
            said, expired = _said(worker, question, LIMIT)
        finally:  # also when the caller is interrupted: half an exchange must not stay
            if not said or said[-1] == READ:
                self.workers.remove(worker)
                _stop(worker)
        return said, expired


def _started(library: str) -> subprocess.Popen:
    """A running `worker.py`, isolated from the environment, that finds packages where this one does."""
    paths, pipe = json.dumps([path for path in sys.path if path]), subprocess.PIPE
    command = [sys.executable, "-I", "-B", str(_PROGRAM), library, paths]
    # In a session of its own: an interrupted cell must not interrupt a comparison halfway.
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _said(worker: subprocess.Popen, question: list[str], limit: float) -> tuple[list[str], bool]:
    """A worker's words on a question, and whether it was killed since it took over `limit` seconds."""
    assert worker.stdin and worker.stdout
    timer, start = threading.Timer(limit, worker.kill), time.monotonic()
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
    return said, time.monotonic() - start >= limit


def _stop(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.communicate()


_graders: dict[str, Grader] = {}


def _start_afresh() -> None:
    """At first and after a fork: the workers belong to the parent, and its lock may be held."""
    _graders.update({library: Grader(library) for library in ("math_verify", "reasoning_gym")})


_start_afresh()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
