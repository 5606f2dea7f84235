"""Interrupts end what runs, even while they are delayed, and lose nothing that is finished."""

import signal
import subprocess
import sys
import threading

import pytest

import maft_lib as maft
from maft_lib.backends.scorer import Scorer
from maft_lib.config import Config
from maft_lib.store import Store
from maft_lib.training import finetuning
from maft_lib.workers import interrupts_delayed
from tests.scripted import ScriptedBackend


@pytest.fixture(autouse=True)
def python_raises_interrupts():
    """In a shell's background job it does not; and what was changed is changed back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def press():
    """Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def run_interrupted(function, tasks, **_):
    """Runs tasks right here, as `run_parallel` does elsewhere; interrupted after the first."""
    for place, task in enumerate(tasks):
        yield place, function(*task)
        press()


def test_it_waits_for_the_end_of_a_block_that_delays_it():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_delayed():
        press()
        done.append(1)
    assert done == [1]


def test_a_study_ends(config):
    backend = ScriptedBackend(lambda _: (len(backend.requests) == 10 and press(), "\\boxed{4}")[1])
    with pytest.raises(KeyboardInterrupt):
        maft.run_study("debate", "arithmetic", config, backend)
    assert len(backend.requests) == 10
    maft.run_study("debate", "arithmetic", config, backend)  # it is raised once


def test_studies_in_threads_end(config):
    backend = ScriptedBackend(lambda _: "\\boxed{4}")
    with pytest.raises(KeyboardInterrupt), interrupts_delayed():
        press()
        maft.run_studies([("base", "arithmetic", config)] * 2, backend)
    assert len(backend.requests) <= 2


HANDED_OVER = """
import signal, sys, threading
from maft_lib.workers import run_parallel

def press(frame, event, _):
    back = frame.f_back
    if event == "return" and frame.f_code is threading.Condition.__enter__.__code__:
        if back.f_code.co_name == "put" and back.f_code.co_filename.endswith("queue.py"):
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
print(list(run_parallel(abs, [(-1,)], 1)))
try:
    sys.setprofile(press)
    list(run_parallel(abs, [(-2,)], 1))
except KeyboardInterrupt:
    print("interrupted")
print(list(run_parallel(abs, [(-3,)], 1)))
"""


def test_an_interrupt_while_work_is_handed_over_leaves_no_lock_taken():
    """The next cell has its workers, and the program ends."""
    run = subprocess.run(
        [sys.executable, "-c", HANDED_OVER], capture_output=True, text=True, timeout=120
    )
    assert run.stdout.splitlines() == ["[(0, 1)]", "interrupted", "[(0, 3)]"], run.stderr


FIRST = """
import signal, sys
import maft_lib as maft
config = maft.load_config("smoke", device="cpu", num_eval=2, num_rounds=1, runs_dir=sys.argv[1])
class Press:
    def find_spec(self, name, *rest):
        if name in pressed:
            pressed.remove(name)
            signal.raise_signal(signal.SIGINT)
pressed = ["transformers.tokenization_utils_base", "numba.core.typing"]
sys.meta_path.insert(0, Press())
while True:
    try:
        print(len(maft.run_study("base", "arithmetic", config, report=str).frame), pressed)
        break
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_first_debate_may_be_interrupted_while_libraries_are_imported(tmp_path):
    """What is half imported cannot be imported again."""
    command = [sys.executable, "-c", FIRST, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert run.stdout.splitlines()[-3:] == ["interrupted", "interrupted", "2 []"], run.stderr


def test_an_interrupt_while_another_process_writes_leaves_no_transaction_open(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    other._connection.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    threading.Timer(0.5, other._connection.execute, ["COMMIT"]).start()
    with pytest.raises(KeyboardInterrupt):
        store.put([("key", {})])
    store.put([("key", {})])
    other.put([("another", {})])
    assert len(store) == 2


def test_a_handler_of_the_programs_own_is_left_alone(config):
    heard = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        maft.run_study("base", "arithmetic", config, ScriptedBackend(lambda _: press() or "4"))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert set(heard) == {signal.SIGINT}


def test_scoring_ends_and_keeps_its_scores(tmp_path, model):
    scorer = Scorer(Store(tmp_path), Config(device="cpu", num_workers=1, max_batch_size=1))
    scorer.run = run_interrupted
    with pytest.raises(KeyboardInterrupt):
        scorer.embeddings(model, ["one", "two and more"])
    again = Scorer(Store(tmp_path), Config(device="cpu", num_workers=1, max_batch_size=1))
    again.embeddings(model, ["one", "two and more"])
    assert (scorer.num_calls, again.num_calls) == (1, 1)


@pytest.mark.pipeline
def test_training_ends_and_keeps_its_agents(config, agent, examples, monkeypatch):
    monkeypatch.setattr(finetuning, "run_parallel", run_interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetuning.finetune_all([(agent, examples), (agent, examples[:8])], config)
    assert len(list(config.path(config.runs_dir).glob("checkpoints/[!.]*"))) == 1
