"""Processes that are killed, interrupted, doubled or starved of memory."""

import itertools
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from tests.faults.conftest import KILLS
from tests.faults.disturbed import ROOT, Disturbed, family, orphans

pytestmark = pytest.mark.faults


def test_killed_at_random_moments(tmp_path, undisturbed, tally):
    """Each study is killed five times and started again, two studies side by side; then it must be the
    same as the undisturbed one."""
    counted, moments = tally("killed (SIGKILL)"), SimpleQueue()
    for number in range(KILLS):
        moments.put([*MOMENTS][number % len(MOMENTS)])

    def one(number):
        chance = random.Random(number)
        for folder in (tmp_path / f"{number}-{again}" for again in itertools.count()):
            if moments.empty():
                return
            study = killed_again_and_again(Disturbed(folder), moments, chance, counted)
            counted.compare(study, undisturbed)
            assert study.keys() == undisturbed.keys()
            assert not list(study.runs.glob("checkpoints/.new-*"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    assert counted.counts["tried"] == KILLS
    assert not counted.counts["lost"] and not counted.counts["orphans"]


# When a study is killed: the seconds after that has begun, at most.
MOMENTS = {"anywhere": 6, "generation": 0.5, "writing": 0, "finetuning": 0.2, "between": 0.2}


def killed_again_and_again(study, moments, chance, counted):
    """A study that came to its end after five kills, or because a moment did not come any more."""
    for _ in range(5):
        try:
            moment = moments.get_nowait()
        except Empty:
            break
        if not kill_at(study, moment, chance, counted):
            moments.put(moment)
            return study
    study.finish()
    return study


def kill_at(study, moment, chance, counted):
    """Kills a study; False if it has ended before."""
    process = study.start()
    if moment != "anywhere":
        study.wait_for_moment(process, moment)
    try:
        process.wait(timeout=chance.uniform(0, MOMENTS[moment]))
        assert process.returncode == 0, process.communicate()[1]
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGSTOP)  # so that what it was doing can be looked at
    phase = "writing" if moment == "writing" else study.phase()
    keys, workers = study.keys(), family(process)
    process.kill()
    process.communicate()
    counted.count(lost=len(keys - study.keys()), orphans=len(orphans(workers)), **{phase: 1})
    return True


def test_interrupted(tmp_path, undisturbed, tally):
    """What Ctrl-C or a kernel's interrupt sends, to the study alone, as a kernel does."""
    study, counted = Disturbed(tmp_path), tally("interrupted (SIGINT)")
    for completions, checkpoints in [(1, 0), (60, 1), (100, 4)]:
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


def test_an_interrupted_kernel(tmp_path, undisturbed, tally):
    """By the stop button: another cell goes on in the same kernel, at whose end nothing is left."""
    study, counted = Disturbed(tmp_path), tally("kernel interrupted")
    cell = f"from tests.faults.study import main; main({str(study.runs)!r}, {str(study.tables)!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    manager, client = start_new_kernel(kernel_name="python3", cwd=ROOT, env=environment)
    try:
        for completions, checkpoints in [(1, 0), (60, 2)]:
            asked = client.execute(cell)
            study.wait_for(manager.provisioner.process, completions, checkpoints)
            before = study.keys()
            manager.interrupt_kernel()
            assert reply_to(asked, client)["ename"] == "KeyboardInterrupt"
            counted.count(lost=len(before - study.keys()))
        finished = reply_to(client.execute(cell), client)
        assert finished["status"] == "ok", finished
    finally:
        processes = family(manager.provisioner.process)
        client.stop_channels()
        manager.shutdown_kernel()
    assert len(processes) > 2
    counted.count(tried=0, orphans=len(orphans(processes)))
    counted.compare(study, undisturbed)
    assert not counted.counts["orphans"] and not counted.counts["lost"]


def reply_to(asked, client):
    """What the kernel says of a cell, once that has ended."""
    while (said := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != asked:
        pass
    return said["content"]


def test_a_worker_is_killed(tmp_path, undisturbed, tally):
    study, counted = Disturbed(tmp_path), tally("a worker killed")
    for checkpoints in (0, 2):
        process = study.start()
        study.wait_for(process, 20, checkpoints)
        study.wait_for_moment(process, "finetuning")
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


def test_two_notebooks_at_once_on_the_same_store(tmp_path, tally):
    """Each writes figures and tables of its own, the same as one that was alone with another store."""
    counted = tally("two notebooks on one store")
    stores = {"first": "one", "second": "one", "alone": "another"}
    notebooks = [by_papermill(tmp_path / name, tmp_path / store) for name, store in stores.items()]
    assert [notebook.wait(timeout=300) for notebook in notebooks] == [0, 0, 0]
    wanted = artefacts(tmp_path / "alone")
    assert {"dataset_sizes.csv", "fig02.png"} <= wanted.keys()
    different = sum(artefacts(tmp_path / name) != wanted for name in ("first", "second"))
    counted.count(finished=2, differed=different)
    assert not counted.counts["differed"]


def by_papermill(folder, runs):
    """A process that executes a notebook on a small study; it says what goes wrong."""
    folder.mkdir()
    sizes = {"num_agents": 2, "num_train": 6, "num_eval": 4}
    given = {"profile": "smoke", "runs_dir": runs, "figures_dir": folder, **sizes}
    pairs = [part for pair in given.items() for part in ("-p", *map(str, pair))]
    notebook = ROOT / "notebooks" / "02_3_multiagent_finetuning.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), *pairs]
    return subprocess.Popen([*command, "--no-progress-bar", "--log-level", "ERROR"], cwd=ROOT)


def artefacts(folder):
    """Names and bytes of the figures and tables that a notebook has written."""
    return {path.name: path.read_bytes() for path in folder.glob("smoke/*")}


def test_the_clock_is_set_back(tmp_path, killed, undisturbed, tally):
    """By a day while it runs, in every process; and what it finds on disk comes from the future."""
    study, counted = killed("half"), tally("clock set back")
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
