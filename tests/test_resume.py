"""A study that is killed at any moment and started again ends with the same bytes."""

import sqlite3
import subprocess
import sys
import time

import psutil
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


def progress(folder):
    """(completions, checkpoints) in the store of a study, finished or being written."""
    try:
        connection = sqlite3.connect(f"file:{folder}/runs/completions.sqlite?mode=ro", uri=True)
        (completions,) = connection.execute("SELECT count(*) FROM completions").fetchone()
        connection.close()
        return completions, len(list((folder / "runs" / "checkpoints").iterdir()))
    except (sqlite3.Error, OSError):
        return 0, 0


def kill_at(script, folder, completions, checkpoints):
    """Kills the study once it has got so far; returns its workers' processes."""
    process = start(script, folder)
    while process.poll() is None:
        done = progress(folder)
        if done[0] >= completions and done[1] >= checkpoints:
            workers = psutil.Process(process.pid).children()
            process.kill()
            process.communicate()
            return workers
        time.sleep(0.01)
    raise AssertionError(f"finished before it could be killed at {completions}, {checkpoints}")


@pytest.mark.pipeline
def test_killed_at_any_moment_and_started_again(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(script, whole)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    completions, checkpoints = progress(whole)
    assert completions > 500 and checkpoints == 12

    workers = []
    for part in (0.05, 0.35, 0.6, 0.9):  # in the middle of generating
        workers += kill_at(script, killed, int(part * completions), 0)
    kill_here = 8  # in the middle of finetuning the second iteration's agents
    workers += kill_at(script, killed, 0, kill_here)
    process = start(script, killed)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    for name in MADE:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert progress(killed) == (completions, checkpoints)  # no half-written folder is left
    _, still_there = psutil.wait_procs(workers, timeout=10)
    assert workers and not still_there  # nor a worker
