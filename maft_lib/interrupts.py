"""An interrupt ends what runs, for certain: Ctrl-C in a terminal, the stop button of a notebook.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. In a destructor, a callback or
a C library's function that cannot fail it is dropped with a line on stderr, and a study would go on for
hours; where a queue's lock has just been taken that stays so, and the next to need it waits for ever.
So an interrupt is remembered here and raised once more, and in a wrong place put off. Knows no studies.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 0.2  # seconds until an interrupt that was put off is looked for
_came = threading.Event()
_putting_off = False  # of the main thread, which alone is interrupted
_thread = threading.local()


@contextmanager
def heeded() -> Iterator[None]:
    """An interrupt that comes before the end, and is dropped, is raised by the next `heed` or there.

    Where the program has a handler of its own, or Python leaves interrupts alone, so it stays.
    """
    global _putting_off
    if not _is_main() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # within another `heeded`, that one remembers
        return
    _putting_off = False  # also where a generator that puts off was begun and never ended
    _came.clear()
    try:
        signal.signal(signal.SIGINT, _remember)
        yield
        heed()
    finally:
        if signal.getsignal(signal.SIGINT) is _remember:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _came.clear()


@contextmanager
def put_off() -> Iterator[None]:
    """An interrupt that comes before the end is raised by the next `heed`, or there, and not before."""
    global _putting_off
    if not _is_main():
        yield
        return
    with heeded():
        before, _putting_off = _putting_off, True
        try:
            yield
        finally:
            _putting_off = before
        heed()


def as_completed(futures: Iterable[Future[T]]) -> Iterator[Future[T]]:
    """The futures as they finish; while one waits for them interrupts are heeded."""
    left = set(futures)
    while left:
        heed()
        done, left = wait(left, PATIENCE, FIRST_COMPLETED)
        yield from done


def heed() -> None:
    """Raises `KeyboardInterrupt` if one has come, in the main thread and in those that take part."""
    if _came.is_set() and (_is_main() or getattr(_thread, "takes_part", False)):
        raise KeyboardInterrupt


def take_part() -> None:
    """This thread works for the main one, and ends with it."""
    _thread.takes_part = True


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _remember(number: int, frame: FrameType | None) -> None:
    _came.set()
    if not _putting_off:
        signal.default_int_handler(number, frame)
