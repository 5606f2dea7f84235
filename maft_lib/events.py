"""What a running study tells a listener: its phases, responses, trained agents and scores.

A study runs in one thread, and a context variable holds its listener. Where nobody listens, these
functions do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

# Makes a view of studies, None where nobody watches: a context with `say(line)` and `study(number)`,
# the context in which the study of a number runs. `lab` sets it.
open_view: Callable[[Any], Any] = lambda studies: None  # noqa: E731

_listener: ContextVar[Any] = ContextVar("listener of the running study", default=None)


@contextmanager
def listening(listener: Any) -> Iterator[None]:
    """Until the end, `listener` has the functions below as methods, which this thread's study calls."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def is_heard() -> bool:
    """Whether somebody listens: then the parts of a study show no bars of their own."""
    return _listener.get() is not None


def during(phase: str, iteration: int, num_agents: int = 0) -> AbstractContextManager[Any]:
    """The study is in `phase` (data, training or answers), which ends with `num_agents` trained."""
    return _listener.get().during(phase, iteration, num_agents) if is_heard() else nullcontext()


def counted(answers: Iterable[Any]) -> Iterable[Any]:
    """Answers (index of the request, completion), which the listener counts as they pass."""
    return _listener.get().counted(answers) if is_heard() else answers


def trained() -> None:
    """An agent has been trained."""
    if is_heard():
        _listener.get().trained()


def evaluated(frame: Any) -> None:
    """The study has the scores of another iteration, a frame of `metrics.scores`."""
    if is_heard():
        _listener.get().evaluated(frame)
