"""A debate that runs in a thread of its own, where it can be watched and stopped. Knows no widgets."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from maft_lib.backends import Backend
from maft_lib.backends.opening import open_backend
from maft_lib.config import Config
from maft_lib.debate import Debate, Turn, debate_rounds
from maft_lib.society import Society
from maft_lib.tasks.problem import Problem

TICK = 0.1  # seconds between two looks at what is new


# What a model needs takes seconds to import: begun by `warm_up`, or else by the first response.
_imports = threading.Thread(
    target=importlib.import_module, args=("maft_lib.backends.decoding",), daemon=True
)


def warm_up(config: Config) -> None:
    """Imports meanwhile what the first debate would wait for, if it will need that in this process."""
    if config.backend == "transformers" and config.executor == "local" and _imports.ident is None:
        _imports.start()


class Stopped(Exception):
    """Ends the debate from within, where it listens to the backend."""


class LiveDebate:
    """One debate, begun by `start`: `debate` is what has been said so far.

    `state` is `waiting`, `running`, `finished`, `stopped` or `failed`, with `error` in one sentence.
    Ten times a second at most, and once when all is over, `on_change` is called, always from the same
    thread. Without a backend the config's own is opened. `iteration` enters the seeds.
    """

    def __init__(
        self,
        society: Society,
        problem: Problem,
        config: Config,
        iteration: int = 0,
        backend: Backend | None = None,
        on_change: Callable[[LiveDebate], None] = lambda live: None,
    ):
        self.society, self.problem, self.config = society, problem, config
        self.iteration, self.backend, self.on_change = iteration, backend, on_change
        self.state, self.error = "waiting", ""
        self.seconds = 0.0
        self._ended = "failed"
        self._said = Debate(problem, ((),) * len(society.generators), None)  # whole rounds
        self._drafts: dict[int, Turn] = {}  # what agents are writing
        self._changes = 0
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def start(self) -> None:
        """Begins; a debate runs once."""
        self.state = "running"
        self._worker.start()
        self._teller.start()

    def stop(self) -> None:
        """Ends it at the next token, or with the next response of a backend that cannot stream."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    @property
    def running(self) -> bool:
        """Whether something may still be said."""
        return self.state == "running"

    def join(self, timeout: float | None = None) -> bool:
        """Waits until it is over and the last change was told; returns whether that is so."""
        self._teller.join(timeout)
        return not self._teller.is_alive()

    @property
    def debate(self) -> Debate:
        """All that was said so far; the vote comes with the last round."""
        with self._changing:
            said, drafts = self._said, dict(self._drafts)
        turns = ((*turns, drafts[n]) if n in drafts else turns for n, turns in enumerate(said.turns))
        return replace(said, turns=tuple(turns))

    def _work(self) -> None:
        began = time.perf_counter()
        try:
            if _imports.ident is not None:
                _imports.join()
            backend = self.backend or open_backend(self.config)
            rounds = debate_rounds(
                self.society, [self.problem], self.config, backend, self.iteration, self._hear
            )
            for (debate,) in rounds:
                self._change(debate, {})
            self._ended = "finished"
        except Stopped:
            self._ended = "stopped"
        except Exception as error:  # whatever it is: a thread's errors would end in a log
            self.error, self._ended = sentence(error), "failed"
        self.seconds = time.perf_counter() - began

    def _hear(self, _: int, agent: int, turn: Turn) -> None:
        if self.stopping:
            raise Stopped
        self._change(self._said, {**self._drafts, agent: turn})

    def _change(self, said: Debate, drafts: dict[int, Turn]) -> None:
        with self._changing:
            self._said, self._drafts = said, drafts
            self._changes += 1

    def _tell(self) -> None:
        told = -1
        while self._worker.is_alive():
            if told != self._changes:
                told = self._changes
                self.on_change(self)
            self._worker.join(TICK)
        self.state = self._ended
        self.on_change(self)


def sentence(error: Exception) -> str:
    """An error on one line; one that is not this library's own with its kind before it."""
    text = " ".join(str(error).split()) or "no reason given."
    own = type(error).__module__.startswith("maft_lib") or type(error) is ValueError
    return text if own else f"{type(error).__name__}: {text}"
