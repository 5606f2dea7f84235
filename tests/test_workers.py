"""Worker processes."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from maft_lib.workers import PRELOADED, run_parallel

SCRIPT = """
import maft_lib as maft
print("begun")
config = maft.load_config("smoke", runs_dir={runs!r}, num_eval=4)
print(len(maft.run_study("base", "arithmetic", config, report=print).frame), "answers")
"""


def test_what_the_workers_server_imports_is_there():
    """It would leave out silently what is not."""
    assert all(map(find_spec, PRELOADED))


@pytest.mark.pipeline
@pytest.mark.parametrize("under", [[], ["-m", "pdb", "-c", "continue", "-c", "quit"]])
def test_a_script_without_a_guard_runs_once(tmp_path, under):
    """Though workers are processes, users need no `if __name__ == "__main__"`; nor in a debugger."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(runs=str(tmp_path / "runs")))
    run = subprocess.run([sys.executable, *under, str(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("begun") == run.stdout.count("4 answers") == 1


def test_this_program_is_known_again_when_workers_have_started():
    main = sys.modules["__main__"]
    before = (main.__spec__, getattr(main, "__file__", None))
    list(run_parallel(os.getpid, [()], 1))
    assert (main.__spec__, getattr(main, "__file__", None)) == before
