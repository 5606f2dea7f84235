"""Hostile answers, and a grader that survives them: nothing executed, bounded, always there again."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import pytest

import maft_lib.grading as grading
from maft_lib.grading import equivalence, extract_answer, is_equivalent, process
from tests.hostile_answers import CODE, HOSTILE

FOR_EVER = "9^{9^{9^9}}"
EQUAL = ("(x+1)^2", "x^2+2x+1")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def copies(pid):
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def started():
    return [worker for worker in process._workers("math_verify", os.getpid()).queue if worker]


def cpu_of_workers():
    """Seconds of CPU that workers, their copies and the copies that questions ended have used."""
    ticks = 0
    for pid in [worker.pid for worker in started()]:
        for process_id in (pid, *copies(pid)):
            stat = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, stat[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    """And a limit that is reached sooner."""
    monkeypatch.setattr(process, "LIMIT", 0.5)
    process._asked.cache_clear()
    grading._same.cache_clear()


@pytest.fixture
def own_workers(monkeypatch):
    monkeypatch.setattr(process, "_workers", lru_cache(process._workers.__wrapped__))
    yield
    for worker in started():
        worker.kill()
        worker.communicate()


def test_hostile_answers_are_wrong_in_time_and_execute_nothing(tmp_path, monkeypatch, own_workers):
    assert len(HOSTILE) >= 100
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "LIMIT", 0.2)
    is_equivalent(*EQUAL, "math")  # the workers are up
    slow, right = {}, []
    for name, answer in HOSTILE.items():
        start = time.process_time() + cpu_of_workers()
        graded = [is_equivalent(answer, "42", task) for task in ("math", "gsm", "arithmetic", "mmlu")]
        graded.append(is_equivalent(extract_answer(f"\\boxed{{{answer}}}", "math"), "42", "math"))
        if any(graded):
            right.append(name)
        seconds = time.process_time() + cpu_of_workers() - start
        if seconds > process.LIMIT + 1:
            slow[name] = seconds
    assert not right
    assert not slow
    assert os.listdir(tmp_path) == []
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2.5 * 1024**2  # KiB


@pytest.mark.parametrize(
    "answer, task",
    [
        ("5 " + "cm " * 90 + "5", "math"),
        ("5 " + "hours " * 45 + "(total", "gsm"),
        ("a!=(" * 20 + "a" + ")" * 20, "math"),
        ("x \\neq (" + "(" * 14 + "1" + ")" * 15, "math"),
        ("The answer is \\(" + "((a)" * 60, "math"),
        ("The correct option" + " " * 4000 + "zz", "mmlu"),
        ("a." * 150 + "!", "math"),
        ("1," * 149, "math"),
        ("The a is 1, " * 160 + "!", "math"),
        ("the is $x$ and " * 200 + "!", "math"),
        ("\\boxed{" * 50_000 + "5" + "}" * 50_000, "math"),
    ],
)
def test_repetition_takes_no_time(answer, task):
    """A model that repeats itself must not meet a pattern that tries every way of splitting."""
    start = time.process_time()
    is_equivalent(answer, "42", task)
    extract_answer(answer, task)
    extract_answer(f"\\boxed{{{answer}}}", task)
    assert time.process_time() - start < 1


def test_an_answer_that_takes_for_ever_is_wrong_and_costs_once():
    assert not is_equivalent(FOR_EVER, "42", "math")
    assert is_equivalent(*EQUAL, "math")
    start = cpu_of_workers()
    assert not is_equivalent(FOR_EVER, "43", "math")
    assert cpu_of_workers() < start + 0.2


def test_a_list_has_one_limit():
    bombs = [f"(({n}!)!)!" for n in range(10, 34)]
    is_equivalent(*EQUAL, "math")
    before = cpu_of_workers()
    assert not is_equivalent(", ".join(bombs), ", ".join(f"{bomb}+1" for bomb in bombs[::-1]), "math")
    assert cpu_of_workers() - before < process.LIMIT + 0.25


def test_threads_give_the_verdicts_that_each_gives_alone():
    pairs = [(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n + n % 2}") for n in range(1, 17)]
    pairs += [(f"(({n}!)!)!", "42") for n in range(10, 13)]
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda pair: is_equivalent(*pair, "math"), pairs))
    assert verdicts == [n % 2 == 0 for n in range(1, 17)] + [False] * 3


def test_a_worker_that_was_killed_is_replaced():
    assert is_equivalent(*EQUAL, "math")
    os.kill(copies(started()[-1].pid)[0], signal.SIGKILL)
    assert is_equivalent("(x+3)^2", "x^2+6x+9", "math")
    started()[-1].kill()
    started()[-1].wait()
    assert is_equivalent("(x+2)^2", "x^2+4x+4", "math")


def test_an_interrupted_comparison_leaves_nothing_behind(monkeypatch):
    assert is_equivalent(*EQUAL, "math")
    said = process._said

    def interrupted(worker, question):
        said(worker, question)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(process, "_said", interrupted)
        with pytest.raises(KeyboardInterrupt):
            is_equivalent("(x+2)^2", "x^2+4x+4", "math")
    assert is_equivalent("(x+2)^2", "x^2+4x+4", "math")
    assert not is_equivalent("(x+2)^2", "x^2+4x+5", "math")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_daemonic_processes_grade_too(method):
    is_equivalent(*EQUAL, "math")
    with multiprocessing.get_context(method).Pool(2) as pool:  # its workers are daemons
        pairs = [(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n}", "math") for n in range(1, 9)]
        assert pool.starmap(is_equivalent, pairs) == [True] * 8
    assert is_equivalent("(x-1)^2", "x^2-2x+1", "math")


def test_the_workers_end_with_their_process():
    program = (
        "from maft_lib.grading import is_equivalent, process\n"
        f"assert is_equivalent(*{EQUAL!r}, 'math')\n"
        "import os; workers = process._workers('math_verify', os.getpid()).queue\n"
        "print(*[worker.pid for worker in workers if worker], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    ended = threading.Event()
    for pid in map(int, said.stdout.split()):
        for _ in range(100):
            if not is_running(pid):
                break
            ended.wait(0.1)
        assert not is_running(pid)
    assert len(said.stdout.split()) == 1


def test_a_grader_that_cannot_start_says_so(monkeypatch, tmp_path, own_workers):
    (tmp_path / "broken.py").write_text("import does_not_exist")
    monkeypatch.setattr(process, "_PROGRAM", tmp_path / "broken.py")
    with pytest.raises(process.GradingError, match="import math_verify"):
        is_equivalent(*EQUAL, "math")


AUDITED = """
import os, re, sys

from maft_lib.grading import worker

for pair in ({equal!r}, ("\\\\sqrt{{2}}", "1,2"), ("\\\\begin{{pmatrix}}1\\\\end{{pmatrix}}", "x=2")):
    worker.answer("math_verify", *pair, 60)  # what is imported late is imported now

number = re.compile(rb"from sympy import \\*|(Integer|Float|Rational) ?\\(['\\d., ]+\\)")

def told(event, details):
    if event == "compile" and str(details[1]).startswith("<"):
        spoken = not number.fullmatch((details[0] or b"").strip())
    else:
        spoken = event in ("os.system", "os.exec", "subprocess.Popen")
    if spoken:
        os.makedirs({mark!r}, exist_ok=True)

sys.addaudithook(told)
{then}
worker.main()
"""


@pytest.mark.parametrize("then", ["eval('1')", ""], ids=["the trap works", "no text is compiled"])
def test_no_answer_becomes_a_program(then, tmp_path, monkeypatch, own_workers):
    """Python itself says when text is compiled or a process started: no hostile answer gets there.

    Numbers do: latex2sympy has SymPy read the digits that its grammar found, which evaluates them.
    """
    program, mark = tmp_path / "audited.py", tmp_path / "compiled"
    program.write_text(AUDITED.format(equal=EQUAL, mark=str(mark), then=then))
    monkeypatch.setattr(process, "_PROGRAM", program)
    for answer in ["1"] if then else CODE.values():
        process.within_limit(partial(equivalence.symbolically_equal, answer, "x+1"))
    assert is_equivalent(*EQUAL, "math")  # and the audited process does grade
    assert mark.exists() is bool(then)
