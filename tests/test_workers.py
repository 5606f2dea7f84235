"""Worker processes."""

import gc

from maft_lib.workers import run_parallel


def test_workers_collect_garbage_again():
    """Their server does not while it imports libraries."""
    assert list(run_parallel(gc.isenabled, [()], 1)) == [(0, True)]
