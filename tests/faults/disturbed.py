"""A study in a process of its own that is disturbed, and what is left of it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TABLES = ("table.md", "table.csv", "scores.csv")


class Disturbed:
    """A study with a store, and a folder of its own for its tables."""

    def __init__(self, folder, runs=None):
        self.tables = Path(folder)
        self.runs = Path(runs or self.tables / "runs")
        self.tables.mkdir(parents=True, exist_ok=True)

    def start(self, **environment):
        """A process of it."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.study", self.runs, self.tables],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process=None, **environment):
        """Runs it to its end; returns (requests that reached the model, agents trained, stderr)."""
        out, errors = (process := process or self.start(**environment)).communicate()
        assert process.returncode == 0, errors[-3000:]
        _, calls, trained = out.splitlines()[-1].split()
        return int(calls), int(trained), errors

    def fail(self, **environment):
        """Runs it to an end that must not be a good one; returns the last line of stderr."""
        process = self.start(**environment)
        _, errors = process.communicate()
        assert process.returncode != 0, "it finished in spite of the fault"
        return errors.strip().splitlines()[-1]

    def results(self):
        """The bytes of its tables."""
        return [(self.tables / name).read_bytes() for name in TABLES]

    def copy_as_killed(self, process, folder):
        """Copies its store as a kill at this moment would leave it, and lets it go on."""
        everyone = [psutil.Process(process.pid), *family(process)]
        for each in everyone:
            each.send_signal(signal.SIGSTOP)
        shutil.copytree(self.runs, folder)
        for each in everyone:
            each.send_signal(signal.SIGCONT)

    def keys(self):
        """Keys of the completions in the store, finished or being written."""
        try:
            connection = sqlite3.connect(f"file:{self.runs}/completions.sqlite?mode=ro", uri=True)
            found = {key for (key,) in connection.execute("SELECT key FROM completions")}
            connection.close()
            return found
        except sqlite3.Error:
            return set()

    def checkpoints(self):
        """Names of the finished checkpoints."""
        return {path.name for path in self.runs.glob("checkpoints/[!.]*")}

    def phase(self):
        """Where it is, by what it has left so far."""
        if not self.keys():
            return "before generation"
        if self.is_training():
            return "finetuning"
        return "between or after finetuning" if self.checkpoints() else "generation"

    def wait_for_moment(self, process, moment):
        """Until it writes completions or a checkpoint, has done so, or trains; or has ended."""
        is_there = {
            "writing": lambda: self.is_sealing() or self.written() != written,
            "generation": lambda: self.written() != written,
            "finetuning": self.is_training,
            "between": lambda: self.checkpoints() != checkpoints,
        }[moment]
        written, checkpoints = self.written(), self.checkpoints()
        while process.poll() is None and not is_there():
            time.sleep(0.003)

    def written(self):
        """When something was last written to the database."""
        log = Path(f"{self.runs}/completions.sqlite-wal")
        return log.stat().st_mtime_ns if log.exists() else 0

    def is_training(self):
        """Whether a checkpoint is being made, beside its place."""
        return any(self.runs.glob("checkpoints/.new-*"))

    def is_sealing(self):
        """Whether one is all but made."""
        new = self.runs.glob("checkpoints/.new-*")
        return any((folder / "manifest.json").exists() for folder in new)

    def wait_for(self, process, completions=1, checkpoints=0):
        """Until it has got so far."""
        while process.poll() is None:
            if len(self.keys()) >= completions and len(self.checkpoints()) >= checkpoints:
                return
            time.sleep(0.02)
        raise AssertionError(f"it ended before that: {process.communicate()[1][-2000:]}")


def family(process):
    """Its processes' descendants."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def orphans(processes, patience=15):
    """Those that are still there."""
    return psutil.wait_procs(processes, timeout=patience)[1]


@contextmanager
def small_disk(folder, size):
    """A disk of its own in memory. Skips where this process may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
