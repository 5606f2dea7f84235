"""Tables of what the library must refuse: a row is a name, the bad input and words of the error.

Each module holds the rows of one kind of input; `tests/test_bad_input.py` hands them in.
"""

from contextlib import contextmanager
from pathlib import Path

import pytest

import maft_lib

PACKAGE = str(Path(maft_lib.__file__).parent)


@contextmanager
def one_sentence(error_class, words):
    """What is done inside has the project itself raise this error, on one line, with these words."""
    with pytest.raises(error_class) as caught:
        yield
    message, last = str(caught.value), caught.traceback[-1]
    assert caught.type is error_class
    assert str(last.path).startswith(PACKAGE) and "raise" in str(last.statement), str(last)
    assert message.isprintable() and 20 < len(message) < 900, message
    assert all(word in message for word in words), message
