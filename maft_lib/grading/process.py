"""A program of ours in a process that can be killed: asked in JSON lines, answered in words.

It is started as a program, not by multiprocessing, so it works alike in a script, in a Jupyter kernel,
in threads and in worker processes that may have no children. Nothing is pickled. Knows no mathematics.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

START_LIMIT = 120.0  # seconds until a new process has imported its libraries
READ = "read"  # the word for a part of a question that is done; any other word ends an answer


class GradingError(RuntimeError):
    """A process that grading needs cannot be started."""


class Worker:
    """A running program of this folder. It answers an empty question by `ready`."""

    def __init__(self, program: Path, needs: str) -> None:
        self.program, self.needs = program.name, needs
        try:
            self.process = subprocess.Popen(
                # Isolated from the environment, but it finds packages where this process does.
                [sys.executable, "-I", "-B", str(program), json.dumps([p for p in sys.path if p])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupted cell must not interrupt a comparison halfway
            )
        except OSError as error:
            raise GradingError(f"the grader's process cannot be started: {error}") from error
        self.greeted = self.expired = False

    def greet(self) -> None:
        """Waits until the process has imported its libraries. Raises `GradingError` if it does not."""
        if not self.greeted and self.ask([], START_LIMIT)[-1:] != ["ready"]:
            raise GradingError(
                f"the grader's process {self.program} does not start: check that `import {self.needs}` "
                f"works in this environment."
            )
        self.greeted = True

    def ask(self, question: list[str], limit: float) -> list[str]:
        """Its words on a question, up to the last one, or up to its death at the limit in seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        timer = threading.Timer(limit, self._expire)
        timer.daemon = True
        timer.start()
        said: list[str] = []
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
            while not said or said[-1] == READ:
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
