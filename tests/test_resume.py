"""A study that is killed at any moment and started again ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time

import pytest

STUDY = """
import sys
import maft_lib as maft
from maft_lib.tables import save_table
from pathlib import Path

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    config = maft.load_config("smoke", runs_dir=str(folder / "runs"), num_workers=2)
    result = maft.run_study("multiagent_ft", "arithmetic", config)
    save_table(maft.metrics.accuracy(result.frame), folder / "table")
    result.frame.to_csv(folder / "scores.csv")
"""
MADE = ("table.md", "table.csv", "scores.csv")


def start(script, folder):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, script, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def children(pid):
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout
    pairs = [line.split() for line in listed.splitlines()[1:]]
    return [int(child) for child, parent in pairs if int(parent) == pid]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.pipeline
def test_killed_at_any_moment_and_started_again(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    began = time.monotonic()
    whole = start(script, tmp_path / "whole")
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors
    seconds = time.monotonic() - began

    killed, workers = 0, []
    for part in (0.45, 0.6, 0.75, 0.9):  # starting up alone takes about a third
        process = start(script, tmp_path / "killed")
        time.sleep(part * seconds)
        workers += children(process.pid)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert killed >= 2 and workers
    _, errors = start(script, tmp_path / "killed").communicate()
    for name in MADE:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (
            errors
        )
    assert not [pid for pid in workers if alive(pid)]  # a killed study leaves no workers behind
