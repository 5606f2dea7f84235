"""Processes that are killed, interrupted, doubled or starved of memory."""

import random
import signal
import subprocess

import psutil
import pytest

from tests.faults.conftest import KILLS
from tests.faults.disturbed import ROOT, Disturbed, family, orphans

pytestmark = pytest.mark.faults


def test_killed_at_random_moments(tmp_path, undisturbed, tally):
    """Each study is killed and started again until it comes through; then it must be the same."""
    moments, counted = random.Random(0), tally("killed (SIGKILL)")
    killed = number = 0
    while killed < KILLS:
        study = Disturbed(tmp_path / str(number := number + 1))
        while kill_at(study, moments.uniform(0, undisturbed.seconds), counted):
            killed += 1
            if killed == KILLS:
                study.finish()
                break
        counted.compare(study, undisturbed)
        assert study.keys() == undisturbed.keys()
        assert not list(study.runs.glob("checkpoints/.new-*"))
    assert not counted.counts["lost"] and not counted.counts["orphans"]


def kill_at(study, moment, counted):
    """Kills a study some seconds after its start; False if it has ended before."""
    process = study.start()
    try:
        process.communicate(timeout=moment)
        assert process.returncode == 0
        return False
    except subprocess.TimeoutExpired:
        before, phase, workers = study.keys(), study.phase(), family(process)
        process.kill()
        process.communicate()
        counted.count(lost=len(before - study.keys()), orphans=len(orphans(workers)), **{phase: 1})
        return True


def test_interrupted(tmp_path, undisturbed, tally):
    """What Ctrl-C or a kernel's interrupt sends, to the study alone, as a kernel does."""
    study, counted = Disturbed(tmp_path), tally("interrupted (SIGINT)")
    for completions, checkpoints in [(1, 0), (100, 0), (150, 1), (150, 8)]:
        process = study.start()
        study.wait_for(process, completions, checkpoints)
        before, workers = study.keys(), family(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and "KeyboardInterrupt" in errors, errors[-3000:]
        counted.count(lost=len(before - study.keys()), orphans=len(orphans(workers)))
    study.finish()
    counted.compare(study, undisturbed)
    assert not counted.counts["orphans"] and not counted.counts["lost"]


def test_a_worker_is_killed(tmp_path, undisturbed, tally):
    study, counted = Disturbed(tmp_path), tally("a worker killed")
    for completions, checkpoints in [(50, 0), (150, 2)]:
        process = study.start()
        study.wait_for(process, completions, checkpoints)
        before = study.keys()
        youngest(process).kill()
        _, errors = process.communicate(timeout=120)
        counted.count(lost=len(before - study.keys()))
        if process.returncode:
            assert "WorkerError: a worker process was killed" in errors.splitlines()[-1]
    study.finish()
    counted.compare(study, undisturbed)


def youngest(process):
    """The process that was started last: a worker, not the server that forks them."""
    return max(family(process), key=lambda child: child.create_time())


def test_out_of_memory_in_a_batch(tmp_path, undisturbed, tally):
    """No process of the study gets another 8 MiB, once it generates."""
    study, counted = Disturbed(tmp_path), tally("out of memory")
    process = study.start()
    study.wait_for(process)
    before = study.keys()
    for child in family(process):
        limit = child.memory_info().vms + 2**23
        child.rlimit(psutil.RLIMIT_AS, (limit, limit))
    _, errors = process.communicate(timeout=300)
    counted.count(lost=len(before - study.keys()), survived=process.returncode == 0)
    if process.returncode:
        assert "Error: " in errors.splitlines()[-1]
    study.finish()
    counted.compare(study, undisturbed)


def test_two_at_once_on_the_same_store(tmp_path, undisturbed, tally):
    first = Disturbed(tmp_path / "first", tmp_path / "runs")
    second = Disturbed(tmp_path / "second", tmp_path / "runs")
    counted = tally("two on the same store")
    processes = [first.start(), second.start()]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    counted.count(tried=1)
    for study in (first, second):
        counted.compare(study, undisturbed)


def test_the_clock_is_set_back(tmp_path, undisturbed, tally):
    """By a day while it runs, in every process; and what it finds on disk comes from the future."""
    study, counted = Disturbed(tmp_path / "study"), tally("clock set back")
    process = study.start()
    study.wait_for(process, 150, 1)
    process.kill()
    process.communicate()
    for path in study.runs.rglob("*"):
        subprocess.run(["touch", "-d", "+10 years", str(path)], check=True)
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    before = study.keys()
    study.finish(PYTHONPATH=f"{tmp_path}:{ROOT}")
    counted.count(lost=len(before - study.keys()))
    counted.compare(study, undisturbed)


CLOCK = """
import time
real, began = time.time, time.time()
time.time = lambda: real() - (86400 if real() > began + 3 else 0)
time.time_ns = lambda: int(time.time() * 1e9)
"""
