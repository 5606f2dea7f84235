"""Equality of expressions by math-verify, in a process that can be killed.

What a model writes can keep a computer algebra system busy for ever or fill the memory, and
math-verify's own limits need signals of the main thread. So `symbolic_worker.py` runs as a process of
its own, with little memory and no right to write files, and is killed when a comparison takes longer
than `LIMIT`. It is started as a program, not by multiprocessing, so it works alike in a script, in a
Jupyter kernel, in threads and in worker processes. Texts cross as JSON: nothing is pickled.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

LIMIT = 2.0  # seconds for one comparison
_START_LIMIT = 120.0  # seconds until a new worker has imported its libraries

_PROGRAM = Path(__file__).with_name("symbolic_worker.py")


class GradingError(RuntimeError):
    """The process that compares expressions cannot be started."""


def symbolically_equal(a: str, b: str) -> bool:
    """Whether two pieces of LaTeX are mathematically equal; False if that takes longer than `LIMIT`.

    Raises `GradingError` if math-verify cannot be started.
    """
    return _compared(*sorted((a, b)))


@lru_cache(maxsize=100_000)
def _compared(a: str, b: str) -> bool:
    return _workers.compare(a, b)


class _Worker:
    """A running `symbolic_worker.py`."""

    def __init__(self) -> None:
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupted cell must not interrupt a comparison halfway
            )
        except OSError as error:
            raise GradingError(f"the grader's process cannot be started: {error}") from error
        self.greeted = self.expired = False

    def greet(self) -> None:
        """Waits until the worker has imported its libraries."""
        if not self.greeted and self.ask(["", ""], _START_LIMIT)[-1:] != ["ready"]:
            raise GradingError(
                "the grader's process does not start: check that `import math_verify` works in this "
                "environment (pip install 'math-verify[antlr4_13_2]')."
            )
        self.greeted = True

    def ask(self, pair: list[str], limit: float) -> list[str]:
        """The worker's words on a pair, up to its verdict, or up to its death at the limit."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        timer = threading.Timer(limit, self._expire)
        timer.daemon = True
        timer.start()
        said: list[str] = []
        try:
            stdin.write(json.dumps(pair).encode() + b"\n")
            stdin.flush()
            while not said or said[-1] == "read":
                line = stdout.readline()
                if not line:
                    break
                said.append(line.decode().strip())
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        return said

    def _expire(self) -> None:
        self.expired = True
        self.process.kill()

    def stop(self) -> None:
        """Kills the process and waits for its end."""
        self.process.kill()
        self.process.communicate()


class _Workers:
    """One worker that compares and one that stands by, so that a kill costs no start-up."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.workers: list[_Worker] = []
        self.unreadable: set[str] = set()  # expressions that no worker survived

    def compare(self, a: str, b: str) -> bool:
        """Whether a worker says `equal`; False for a pair that two do not survive, or one in time."""
        with self.lock:
            return self._compare(a, b, last=False)

    def _compare(self, a: str, b: str, last: bool) -> bool:
        if self.unreadable & {a, b}:
            return False
        while len(self.workers) < 2:
            self.workers.append(_Worker())
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
