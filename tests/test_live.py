"""Live progress of studies: what is counted, what is said of the rest, and who gets to see it."""

import re
import threading
import time

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from maft_lib import events
from maft_lib.backends import Completion
from maft_lib.backends.opening import CachedBackend
from maft_lib.estimation import planned
from maft_lib.lab import live
from maft_lib.lab.live import OPEN, LiveView
from maft_lib.methods import METHODS
from maft_lib.run import run_studies, run_study
from maft_lib.society import base_society
from maft_lib.store import Store
from maft_lib.study import Study
from maft_lib.training import finetuning
from tests.scripted import ScriptedBackend


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def completions(num, stored=False, tokens=10):
    return [(i, Completion("text", 5, tokens, "stop", stored=stored)) for i in range(num)]


def pass_through(answers):
    return list(events.counted(answers))


@pytest.fixture
def trainer(monkeypatch):
    """Agents that are their own checkpoints, each told as the real trainer tells it."""
    log = {"num_tokens": 1, "seconds": 1.0, "losses": [1.0, 0.99, 0.985, 0.98, 0.979],
           "settings": {"num_train_epochs": 1}}  # fmt: skip

    def finetune_all(jobs, config):
        for _ in jobs:
            events.trained()
        return [agent.model for agent, _ in jobs]

    monkeypatch.setattr("maft_lib.study.finetune_all", finetune_all)
    monkeypatch.setattr("maft_lib.study.training_log", lambda model: log)


def said(request):
    return f"I think that it is \\boxed{{{request.seed % 5}}}."


@pytest.mark.parametrize("method", METHODS)
def test_what_is_planned_is_what_is_done(method, config, trainer):
    view = LiveView([(method, "arithmetic", config)])
    expected = planned(method, config)
    with view.study(0):
        study = Study(method, "arithmetic", config, ScriptedBackend(said), report=str)
        METHODS[method].recipe(study)
    phases = view.phases()
    assert {name: phase.done for name, phase in phases.items()} == {
        name: num for name, num in expected.items() if num
    } or method in OPEN
    assert all(phase.done == phase.total > 0 for phase in phases.values())
    assert len(view.studies[0].frames) == (study.result().frame.iteration.nunique())


def test_a_total_that_is_not_known_yet_is_said_to_be_one(config):
    assert ">0 of about " in LiveView([("star", "arithmetic", config)]).html()
    assert ">0 of " in (shown := LiveView([("base", "arithmetic", config)]).html())
    assert "about" not in shown.split("</style>")[-1]


def test_stored_responses_are_counted_apart(config, tmp_path):
    backend = CachedBackend(ScriptedBackend(said), Store(tmp_path))
    two = LiveView([("debate", "arithmetic", config)] * 2)
    for number in (0, 1):
        with two.study(number):
            Study("debate", "arithmetic", config, backend, report=str).evaluate(
                base_society("m", 3, summarizer="m")
            )
    half = planned("debate", config)["answers"]
    assert list(two.phases()) == ["answers"] and two.phases()["answers"][:3] == (
        2 * half,
        2 * half,
        half,
    )
    shown = BeautifulSoup(two.html(ended=True), "html.parser").dd.get_text(" ")
    assert f"{2 * half:,} of {2 * half:,} responses , {half:,} from the store" in shown
    tokens = sum(len(said(r).split()) for r in backend.inner.requests)
    assert [study.num_tokens for study in two.studies] == [tokens, 0]


def test_tokens_per_second_count_the_time_in_which_somebody_waits(config):
    clock = Clock()
    two = LiveView([("base", "arithmetic", config)] * 2, clock)
    with two.study(0), two.study(1):
        first, second = (study.counted(completions(50)) for study in two.studies)
        next(first)
        clock.now += 5
        list(first), list(second)
        assert "1,000 tokens generated at 200 tokens/s" in two.pace()
        with two.studies[0].during("training", 1), two.studies[1].during("training", 1):
            clock.now += 100
        list(two.studies[0].counted(completions(50, stored=True)))
    assert "1,000 tokens generated at 200 tokens/s" in two.pace()


def test_time_left_by_hand(config):
    clock = Clock()
    config = config.replace(num_iterations=1, num_train=10, num_eval=10, num_agents=2, num_rounds=1)
    one = LiveView([("majority_ft", "arithmetic", config)], clock)  # 20 + 20 + 1 agent + 20
    assert one.summary() == "0 of 1 finished, 0 s so far, time left not known yet"
    with one.study(0):
        with events.during("answers", 0):
            for answer in completions(20):
                clock.now += 1
                pass_through([answer])
        assert "not known yet" in one.summary()  # nobody knows how long data takes
        with events.during("data", 1):
            for answer in completions(20):
                clock.now += 2
                pass_through([answer])
        assert "not known yet" in one.summary()
        with events.during("training", 1, 1):
            clock.now += 30
            events.trained()
        assert one.summary().endswith("about 20 s left")
        with events.during("answers", 1):
            clock.now += 5  # work on the next one has begun
            assert one.summary() == "0 of 1 finished, 95 s so far, about 15 s left"


def test_time_left_knows_that_studies_run_side_by_side(config):
    clock = Clock()
    config = config.replace(num_eval=100)
    four = LiveView([("base", "arithmetic", config)] * 4, clock)
    with four.study(0), four.study(1):
        for _ in range(50):  # in both, one a second
            clock.now += 1
            for study in four.studies[:2]:
                list(study.counted(completions(1)))
        assert four.summary().endswith("about 2 min left")


def test_a_resumed_run_does_not_promise_the_pace_of_the_store(config):
    clock = Clock()
    one = LiveView([("base", "arithmetic", config.replace(num_eval=100))], clock)
    with one.study(0):
        clock.now += 1
        pass_through(completions(60, stored=True))
        assert "not known yet" in one.summary()
        clock.now += 9
        pass_through(completions(1))
        assert one.summary().endswith("about 6 min left")


def test_threads_count_for_their_own_studies(config):
    num, each = 8, 300
    whole = LiveView([("base", "arithmetic", config.replace(num_eval=each))] * num)

    def run(number):
        with whole.study(number):
            pass_through(completions(each - number))
            time.sleep(0.01)
            whole.summary()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(num)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [study.phases["answers"].done for study in whole.studies] == [each - n for n in range(num)]
    assert not events.is_heard() and {study.state for study in whole.studies} == {"finished"}


def test_where_nobody_listens_nothing_is_done():
    answers = completions(3)
    assert events.counted(answers) is answers
    events.trained()
    events.evaluated(pd.DataFrame())
    with events.during("data", 1):
        assert not events.is_heard()


@pytest.mark.pipeline
def test_trainings_are_told_as_they_finish_and_found_ones_at_the_end(config, examples, agent):
    whole = LiveView([("multiagent_ft", "arithmetic", config)] * 2)
    for number, fresh in ((0, 2), (1, 0)):
        with whole.study(number), events.during("training", 1, 2):
            jobs = [(agent, examples), (agent, examples[:8])]
            finetuning.finetune_all(jobs, config)
        phase = whole.studies[number].phases["training"]
        assert (phase.done, phase.fresh) == (2, fresh)


# --- the view ------------------------------------------------------------------------------------


def evaluated(method, right, iteration=0, seed=0, num=40, task="arithmetic"):
    return pd.DataFrame({
        "method": method, "task": task, "model": "m", "seed": seed, "iteration": iteration,
        "problem": [f"q{i}" for i in range(num)], "correct": [i < right for i in range(num)],
        "readable": True, "first_correct": 0.0, "last_correct": 0.0,
    })  # fmt: skip


def test_the_chart_has_a_line_per_method_and_a_bar_per_point(config):
    whole = LiveView([("multiagent_ft", "arithmetic", config), ("base", "arithmetic", config)])
    assert live.charts_html(whole.studies) == ""
    whole.studies[0].frames += [
        evaluated("multiagent_ft", right, i) for i, right in enumerate((20, 30))
    ]
    whole.studies[1].frames += [evaluated("base", 10)]
    page = BeautifulSoup(live.charts_html(whole.studies), "html.parser")
    rows = [row.get_text(" ", strip=True) for row in page.table.find_all("tr")]
    assert rows == ["Multiagent FT (ours) 75.0 ± 6.8 %", "Base 25.0 ± 6.8 %"]
    texts = [text.text for text in page.svg.find_all("text")]
    assert {"Base", "Multiagent FT (ours)", "iterations of finetuning"} <= set(texts)
    for color in ("#0072b2", "#8c8c8c"):  # a line, its markers and its bars
        assert len(page.svg.find_all(style=re.compile(f"stroke: {color}"))) >= 3


def test_seeds_are_pooled_and_each_config_has_a_chart(config):
    runs = [config.replace(seed=seed, num_agents=num) for num in (3, 5) for seed in (0, 1)]
    whole = LiveView([("debate", "arithmetic", run) for run in runs])
    for study, right in zip(whole.studies, (10, 30, 40, 40)):
        study.frames.append(evaluated("debate", right, seed=study.config.seed))
    page = BeautifulSoup(live.charts_html(whole.studies), "html.parser")
    tables = [table.get_text(" ", strip=True).split(" ± ")[0] for table in page.find_all("table")]
    assert tables == [
        "accuracy (%), arithmetic, num_agents 3 Debate 50.0",
        "accuracy (%), arithmetic, num_agents 5 Debate 100.0",
    ]


def test_what_is_shown_is_escaped_and_keeps_nothing_foreign(config):
    whole = LiveView([("debate", "<script>alert(1)</script>", config)])
    whole.studies[0].frames.append(evaluated("<img onerror=x>", 1))
    hostile = "<script>alert(2)</script>"
    whole.say(hostile)
    for ended in (False, True):
        with whole.study(0):
            html = whole.html(ended)
        page = BeautifulSoup(html, "html.parser")
        assert not page.find_all(["script", "img"]) and "<script>alert(1)" in page.text
        assert not re.search(r"(href|src)=.https?:|url\([^#]", html)
    assert hostile in page.text


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "0 s"), (95, "95 s"), (130, "2 min"), (2040, "34 min"), (18360, "5.1 h")],
)
def test_times_are_for_people(seconds, words):
    assert live.span(seconds) == words


class Screen:
    """Stands for a front end: takes what is displayed, or cannot."""

    def __init__(self, monkeypatch, fails_at=None):
        self.outputs, self.fails_at = [], fails_at
        monkeypatch.setattr(events, "open_view", LiveView)
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, output, raw, display_id):
        self.update(output, raw)
        return self

    def update(self, output, raw):
        if len(self.outputs) == self.fails_at:
            raise RuntimeError("the front end is gone")
        self.outputs.append((time.monotonic(), output))


def test_a_watched_study_shows_itself_and_prints_nothing(config, trainer, monkeypatch, capsys):
    screen = Screen(monkeypatch)

    def slow(request):
        time.sleep(0.002)
        return said(request)

    backend = ScriptedBackend(slow)
    watched = run_study("multiagent_ft", "arithmetic", config, backend)
    assert capsys.readouterr().out == ""
    plain = run_study("multiagent_ft", "arithmetic", config, ScriptedBackend(said), report=str)
    pd.testing.assert_frame_equal(watched.frame, plain.frame)
    times = [when for when, _ in screen.outputs]
    assert len(times) > 3 and len(times) <= 2 + 2 * (times[-1] - times[0]) + 1
    last = screen.outputs[-1][1]
    assert re.match(r"1 of 1 finished, \d+ s in all\n[\d,]+ tokens generated at", last["text/plain"])
    assert last["text/plain"].count("% right") == 3  # the lines that would have been printed
    page = BeautifulSoup(last["text/html"], "html.parser")
    assert "12 of 12 agents" in page.get_text() and "now:" in screen.outputs[1][1]["text/html"]
    assert page.svg and "now:" not in page.get_text()
    assert "arithmetic, seed 0, multiagent_ft, iteration 2" in page.details.text


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_view_that_fails_takes_no_study_with_it(config, monkeypatch, capsys, fails_at):
    Screen(monkeypatch, fails_at)

    def slow(request):
        time.sleep(0.02)
        return said(request)

    (result,) = run_studies([("base", "arithmetic", config)], ScriptedBackend(slow))
    assert len(result.frame) == config.num_eval
    printed = capsys.readouterr().out
    assert "The live view cannot be shown (RuntimeError: the front end is gone)" in printed
    assert printed.count("arithmetic, seed 0, base, iteration 0") == 1


def test_a_study_that_fails_says_so_in_its_view(config, monkeypatch):
    screen = Screen(monkeypatch)

    def broken(request):
        assert events.is_heard()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study("base", "arithmetic", config, ScriptedBackend(broken))
    last = screen.outputs[-1][1]["text/plain"]
    assert re.match(r"0 of 1 finished, \d+ s in all\nno tokens generated", last)
    backend = ScriptedBackend(["only one"])
    with pytest.raises(Exception, match="ran out of answers"):
        run_study("base", "arithmetic", config, backend)
    assert screen.outputs[-1][1]["text/plain"].startswith("0 of 1 finished")


def test_a_report_of_the_callers_gets_the_lines(config, monkeypatch):
    screen, lines = Screen(monkeypatch), []
    run_study("base", "arithmetic", config, ScriptedBackend(said), lines.append)
    run_studies([("base", "arithmetic", config)], ScriptedBackend(said), print)
    assert len(lines) == 1 and screen.outputs == []


# --- in real kernels -----------------------------------------------------------------------------

CELL = """
import time
import maft_lib as maft
from tests.scripted import ScriptedBackend

def said(request):
    time.sleep(0.02)
    return f"\\\\boxed{{{request.seed % 5}}}"

config = maft.load_config("smoke")
runs = [(method, "arithmetic", config) for method in ("base", "majority")]
results = maft.run_studies(runs, ScriptedBackend(said))
"""


@pytest.mark.notebooks
def test_without_a_front_end_lines_are_printed_as_ever():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    outputs = notebook.cells[0].outputs
    assert {(output.output_type, output.get("name")) for output in outputs} == {("stream", "stdout")}
    lines = "".join(output.text for output in outputs).splitlines()
    pattern = r"arithmetic, seed 0, (base|majority), iteration 0: [\d.]+ % right \([\d.]+ s\)"
    assert len(lines) == 2 and all(re.fullmatch(pattern, line) for line in lines)


@pytest.mark.notebooks
def test_a_front_end_gets_one_output_that_changes():
    manager, client = start_new_kernel(kernel_name="python3")
    messages = []
    try:
        reply = client.execute_interactive(
            CELL, allow_stdin=True, timeout=120, output_hook=messages.append
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok"
    shown = [m for m in messages if m["header"]["msg_type"].endswith("display_data")]
    kinds = [m["header"]["msg_type"] for m in shown]
    assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"} and len(kinds) > 2
    assert len({m["content"]["transient"]["display_id"] for m in shown}) == 1
    assert "<progress" in shown[1]["content"]["data"]["text/html"]
    last = shown[-1]["content"]["data"]
    assert last["text/plain"].startswith("2 of 2 finished") and "<svg" in last["text/html"]
    assert not [m for m in messages if m["header"]["msg_type"] == "stream"
                and m["content"]["name"] == "stdout"]  # fmt: skip
