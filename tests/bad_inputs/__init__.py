"""Tables of what the library must refuse: a row is a name, the bad input and words of the error.

Each module holds the rows of one kind of input; `tests/test_bad_input.py` hands them in.
"""

from contextlib import contextmanager

import pytest


@contextmanager
def one_sentence(error_class, words):
    """What is done inside raises exactly this error of the project, on one line, with these words."""
    with pytest.raises(error_class) as caught:
        yield
    message = str(caught.value)
    assert caught.type is error_class and caught.type.__module__.startswith("maft_lib.")
    assert message.isprintable() and 20 < len(message) < 900, message
    assert all(word in message for word in words), message
