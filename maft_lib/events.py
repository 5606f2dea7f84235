"""What a running study tells a listener: its phases, responses, trained agents and scores.

A study runs in one thread, and a context variable holds its listener: nothing is handed down through
debates and trainings. Where nobody listens, these functions do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol


class Listener(Protocol):
    """What a study tells; each method is the function below of the same name."""

    def during(self, phase: str, iteration: int, num_agents: int) -> AbstractContextManager[Any]: ...

    def counted(self, answers: Iterable[Any]) -> Iterable[Any]: ...

    def trained(self) -> None: ...

    def evaluated(self, frame: Any) -> None: ...


_listener: ContextVar[Listener | None] = ContextVar("listener of the running study", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """`listener` hears what this thread's study does until the end."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def is_heard() -> bool:
    """Whether somebody listens: then the parts of a study show no bars of their own."""
    return _listener.get() is not None


def during(phase: str, iteration: int, num_agents: int = 0) -> AbstractContextManager[Any]:
    """The study is in `phase` (data, training, answers) of `iteration`; at the end of training
    `num_agents` have their checkpoints."""
    listener = _listener.get()
    return listener.during(phase, iteration, num_agents) if listener else nullcontext()


def counted(answers: Iterable[Any]) -> Iterable[Any]:
    """Answers (index of the request, completion), which the listener counts as they pass."""
    listener = _listener.get()
    return listener.counted(answers) if listener else answers


def trained() -> None:
    """An agent has been trained."""
    if listener := _listener.get():
        listener.trained()


def evaluated(frame: Any) -> None:
    """The study has the scores of another iteration, as a frame of `metrics.scores`."""
    if listener := _listener.get():
        listener.evaluated(frame)
