"""An interrupt ends what runs, for certain: Ctrl-C in a terminal, the stop button of a notebook.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. In a destructor, a callback or
a C library's function that cannot fail it is dropped with a line on stderr, and a study would go on for
hours. Here it is remembered and raised once more. Knows no studies.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = threading.Event()


@contextmanager
def heeded() -> Iterator[None]:
    """An interrupt that comes before the end, and is dropped, is raised by the next `heed` or there.

    Where the program has a handler of its own, or Python leaves interrupts alone, so it stays.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # within another `heeded`, that one remembers
        return
    try:
        signal.signal(signal.SIGINT, _remember)
        yield
        heed()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _came.clear()


def heed() -> None:
    """Raises `KeyboardInterrupt` if an interrupt has come, in whatever thread that asks."""
    if _came.is_set():
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _came.set()
    signal.default_int_handler(number, frame)
