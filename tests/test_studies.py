"""The recipes: on the scripted backend by hand, on the miniature model end to end."""

import re
import subprocess
import sys
import threading
import time
import warnings

import pandas as pd
import pytest

from maft_lib import metrics
from maft_lib.backends import BackendError
from maft_lib.backends.opening import CachedBackend, open_backend
from maft_lib.config import ConfigError
from maft_lib.estimation import estimate
from maft_lib.methods import CONTROLS, METHODS
from maft_lib.metrics import diversity, statistics
from maft_lib.metrics.statistics import standard_error
from maft_lib.profiles import load_config
from maft_lib.run import run_studies, run_study
from maft_lib.society import list_societies
from maft_lib.store import Store
from maft_lib.store.files import content_key
from maft_lib.study import Result, Study, check_disjoint, problems
from maft_lib.tasks import load_problems
from maft_lib.training.data import build_finetuning_data
from maft_lib.workers import may_have_gpu
from tests.conftest import debate
from tests.scripted import ScriptedBackend


def agents_who_say(config, said):
    """A backend on which agent n answers truth + said[n][round]; critics are told apart by length."""
    truths = {p.question: int(p.answer) for p in problems("arithmetic", "eval", config)}
    order = []

    def script(request):
        last = request.messages[-1]["content"]
        if last.startswith("These are the responses"):
            return "a summary"
        number = (len(request.messages) - 1) // 2
        question = re.search(r"What is the result of \S+\?", last)[0]
        order.append((question, number))
        agent = order.count((question, number)) - 1
        offset = said[agent][number]
        return "no idea" if offset is None else f"\\boxed{{{truths[question] + offset}}}"

    return ScriptedBackend(script)


@pytest.mark.parametrize(
    "said, base, majority, debate",
    [
        ([(0, 0), (0, 0), (0, 0)], 1, 1, 1),
        ([(1, 0), (0, 0), (0, 1)], 0, 1, 1),
        ([(0, 1), (1, 1), (1, 0)], 1, 0, 0),
        ([(0, 0), (0, 1), (1, 1)], 1, 1, 0),
        ([(None, 0), (0, None), (None, None)], 0, 1, 1),
        ([(None, None)] * 3, 0, 0, 0),
    ],
)
def test_the_three_methods_that_train_nothing(config, said, base, majority, debate):
    for method, right in (("base", base), ("majority", majority), ("debate", debate)):
        result = run_study(method, "arithmetic", config, agents_who_say(config, said), report=str)
        assert len(result.frame) == config.num_eval  # what cannot be read stays in the denominator
        assert result.frame.correct.mean() == right
        assert set(result.frame.method) == {method}


STUDIES = ("base", "majority", "debate", "vote_equal_budget", "cooperative", "unique_id")


def test_studies_side_by_side_are_those_one_by_one_and_share_what_they_have(config, tmp_path):
    def said(request):
        time.sleep(0.001)  # so that threads meet
        return f"\\boxed{{{request.seed % 7}}}"

    inner = [ScriptedBackend(said), ScriptedBackend(said)]
    one, other = (CachedBackend(b, Store(tmp_path / str(i))) for i, b in enumerate(inner))
    jobs = [(method, task, config) for task in ("arithmetic", "mini_gsm") for method in STUDIES]
    alone = [run_study(*job, one, report=str) for job in jobs]
    together = run_studies(jobs, other, report=str)
    for a, b in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(a.frame, b.frame)
    assert len(inner[0].requests) == len(inner[1].requests) == other.num_calls
    assert len({content_key(inner[1].describe(r)) for r in inner[1].requests}) == other.num_calls


def test_evaluations_share_their_random_numbers_and_training_data_are_drawn_afresh(config):
    backend = ScriptedBackend(lambda request: f"\\boxed{{{request.seed % 7}}}")
    study = Study("debate", "arithmetic", config, backend, str)
    for iteration in (0, 1):
        study.evaluate(study.base_society(), iteration)
        study.learn(study.base_society(), iteration)
    result = study.result()
    assert result.evaluations[0] == result.evaluations[1]
    assert result.training[0] != result.training[1]


def test_the_first_study_that_fails_stops_the_others(config):
    def said(request):
        raise BackendError("the server is gone")

    jobs = [("debate", "arithmetic", config), ("multiagent_ft", "arithmetic", config)]
    with pytest.raises(BackendError, match="the server is gone"):
        run_studies(jobs, ScriptedBackend(said), report=str)
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


@pytest.mark.skipif(may_have_gpu(), reason="only PyTorch knows whether a GPU can be used")
def test_nothing_waits_for_pytorch_that_does_not_compute(tmp_path):
    """To import it takes longer than the first debate of the shipped model on a CPU."""
    program = (
        "import sys, maft_lib as m; m.run_studies, m.plots, m.tables;"
        "print(*{'torch', 'transformers'} & set(sys.modules), end='');"
        "c = m.load_config('smoke', runs_dir=sys.argv[1]); agents = m.base_society(c.base_model, 2);"
        "m.run_debates(agents, m.load_problems(c.task, 'eval', 2), c, m.open_backend(c));"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr


def test_each_task_may_have_a_number_of_eval_problems_of_its_own(config):
    config = config.replace(tasks=["arithmetic", "mini_gsm"], num_eval={"arithmetic": 3, "mini_gsm": 5})
    studies = [("base", task, config) for task in config.tasks]
    results = run_studies(studies, ScriptedBackend(lambda request: "\\boxed{1}"))
    assert [len(result.frame) for result in results] == [3, 5]
    assert estimate(studies).requests == 8
    zero_shot = [("base", "arithmetic", config.replace(eval_task="mini_gsm"))]
    assert estimate(zero_shot).requests == 5
    for refused in (run_studies, estimate):
        with pytest.raises(ConfigError, match="num_eval: .* has no number for 'mini_math'"):
            refused([("base", "mini_math", config)])
    named = load_config("smoke", task="gsm8k", tasks=["gsm"], num_eval={"gsm8k": 4})
    assert named.num_eval == {"gsm": 4}


def test_unknown_method_and_task(config):
    with pytest.raises(ConfigError, match="unknown method 'multi_ft': did you mean 'multiagent_ft'"):
        run_study("multi_ft", "arithmetic", config)
    with pytest.raises(ValueError, match="unknown task"):
        run_study("base", "algebra", config)


def test_an_overlap_of_train_and_eval_raises():
    shared = load_problems("arithmetic", "eval", 3)
    with pytest.raises(ValueError, match="1 problems are both in train and eval"):
        check_disjoint(shared[:2], shared[1:])


def test_accuracy_and_its_standard_error_over_runs():
    debates = [debate([["2", "2"], ["3", "2"]], "2", f"q{i}") for i in range(3)]
    debates.append(debate([["2", None], ["3", None]], None, "q3"))
    run = {"method": "debate", "task": "arithmetic", "model": "m", "iteration": 0}
    frames = [metrics.scores(debates).assign(**run, seed=seed) for seed in (0, 1)]
    row = metrics.accuracy(frames[0]).iloc[0]
    assert (row.accuracy, row.first_answers, row.last_answers, row.unreadable) == (75, 50, 75, 25)
    assert row.standard_error == pytest.approx(100 * (0.75 * 0.25 / 4) ** 0.5)
    pooled = metrics.accuracy(pd.concat(frames), pool_seeds=True)  # the same problems say nothing new
    assert len(pooled) == 1 and (pooled.accuracy[0], pooled.problems[0]) == (75, 4)
    assert pooled.standard_error[0] == pytest.approx(row.standard_error)
    others = frames[1].assign(problem=frames[1].problem + "'")
    pooled = metrics.accuracy(pd.concat([frames[0], others]), pool_seeds=True)
    assert pooled.problems[0] == 8
    assert pooled.standard_error[0] == pytest.approx(100 * (0.75 * 0.25 / 8) ** 0.5)
    assert standard_error([1, 1, 1, 0]) == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    over = metrics.accuracy_over_seeds(pd.concat(frames)).iloc[0]
    assert (over["mean"], over.error, over.seeds) == (75, 0, 2)
    assert diversity.disagreement(debates).value.mean() == 0.25  # no vote: nobody agrees with it


def test_what_stands_behind_each_round_and_iteration(config):
    said = [("2", "3"), ("3", "2"), ("3", "2")]  # a right one is spoiled, two wrong ones are corrected
    debates = [debate(said, "2"), debate([("3", "3")] * 3, "3", "q2")]
    rows = metrics.by_round(debates).set_index("problem").loc[[d.problem.id for d in debates]]
    assert rows.vote_1.tolist() == [False, False] and rows.oracle_1.tolist() == [True, False]
    assert rows.vote_2.tolist() == [True, False] and rows.oracle_2.tolist() == [True, False]
    assert rows.corrected.tolist() == [2 / 3, 0] and rows.spoiled.tolist() == [1 / 3, 0]
    run = {"method": "multiagent_ft", "task": "arithmetic", "model": "m", "seed": 0}
    result = Result(
        "multiagent_ft",
        "arithmetic",
        pd.concat([metrics.scores(debates).assign(**run, iteration=i) for i in (0, 1)]),
        evaluations=[debates, debates],
        training=[debates],
        data=[build_finetuning_data(debates, w=0.5)],
        costs=metrics.cost_frame([{"iteration": 1, "phase": "training", "num_updates": 7}]),
        config=config,
    )
    table = metrics.per_iteration(result).set_index("iteration")
    assert table.accuracy.tolist() == table.vote_2.tolist() == [50, 50]
    assert table.oracle_1.tolist() == [50, 50] and table.corrected.tolist() == pytest.approx(
        [100 / 3] * 2
    )
    # D^G: one right, three wrong; two critics learn a right and a wrong conversation each
    assert table.examples[1] == 8 and table.labels_right[1] == 37.5 and table.num_updates[1] == 7
    assert table["last"].tolist() == [False, True] and table.best.all()


def test_costs_of_a_method_are_counted_over_tasks_and_iterations():
    spent = {"num_calls": 2, "num_prompt_tokens": 30, "num_completion_tokens": 20, "seconds": 0.5}
    rows = [
        {"iteration": 0, "phase": "answers", **spent},
        {"iteration": 1, "phase": "training", "agent": "critic-1", "num_training_tokens": 70},
    ]
    frames = [metrics.cost_frame(rows).assign(task=task, seed=0) for task in ("gsm", "math")]
    frames = [
        frame.assign(method=m) for m, frame in zip(("star", "star", "base"), [*frames, frames[0]])
    ]
    table = metrics.counts(pd.concat(frames))
    assert table.loc["star"].to_dict() == {
        "calls": 4,
        "tokens read": 60,
        "tokens written": 40,
        "tokens trained on": 140,
    }
    assert list(table.index) == ["star", "base"] and table.loc["base", "calls"] == 2


def test_seeds_that_stop_at_different_iterations_are_pooled():
    """STaR stops where its loss saturates."""
    debates = [debate([["2"], ["2"]], "2", f"q{i}") for i in range(2)]
    run = {"task": "arithmetic", "model": "m"}
    stops = {("star", 0): 2, ("star", 1): 3, ("base", 0): 0, ("base", 1): 0}
    frame = pd.concat(
        metrics.scores(debates).assign(**run, method=method, seed=seed, iteration=iteration)
        for (method, seed), last in stops.items()
        for iteration in range(last + 1)
    )
    last = metrics.last_iteration(frame)
    assert last.groupby(["method", "seed"]).iteration.unique().map(list).to_dict() == {
        ("base", 0): [0],
        ("base", 1): [0],
        ("star", 0): [3],
        ("star", 1): [3],
    }
    assert len(last) == 8 and len(metrics.accuracy(last, pool_seeds=True)) == 2
    assert statistics.compare(last, baselines=["base"]).method.tolist() == ["star", "base"]


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory):
    return str(tmp_path_factory.mktemp("runs"))


@pytest.mark.pipeline
def test_finetuning_end_to_end_and_again_without_a_model_call(config, shared_runs):
    config = config.replace(runs_dir=shared_runs, num_train=12, num_eval=6)
    multi = run_study("multiagent_ft", "arithmetic", config, report=str)
    single = run_study("single_agent_ft", "arithmetic", config, report=str)
    for result in (multi, single):
        assert result.frame.groupby("iteration").size().to_dict() == {0: 6, 1: 6, 2: 6}
        assert [len(part) for part in (result.training, result.data)] == [2, 2]
    agents = [*multi.societies[-1].generators, *multi.societies[-1].critics]
    assert len({agent.model for agent in agents}) == 6  # each agent learned from its own data
    assert len({a.model for a in single.societies[-1].generators + single.societies[-1].critics}) == 1
    assert all(s.summarizer.model == config.base_model for s in multi.societies + single.societies)
    start = [r.frame[r.frame.iteration == 0].drop(columns="method") for r in (multi, single)]
    pd.testing.assert_frame_equal(*start)

    checkpoints = config.path(config.runs_dir) / "checkpoints"
    made = {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")}
    backend = open_backend(config)
    calls = backend.num_calls
    again = run_study("multiagent_ft", "arithmetic", config, report=str)
    assert backend.num_calls == calls
    assert {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")} == made
    pd.testing.assert_frame_equal(again.frame, multi.frame)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list_societies(config.path(config.runs_dir))
    assert [saved.society for saved in found] == multi.societies[1:] + single.societies[1:]
    right = pd.concat([multi.frame, single.frame]).groupby(["method", "iteration"]).correct.mean()
    for about in (saved.about for saved in found):
        assert about["accuracy"] == right[about["method"], about["iteration"]]
        assert about["profile"] == "smoke"


@pytest.mark.pipeline
def test_what_is_learned_on_one_task_is_tested_on_another(config, shared_runs):
    config = config.replace(runs_dir=shared_runs, num_train=12, num_eval=6, num_iterations=1)
    at_home = run_study("multiagent_ft", "arithmetic", config, report=str)
    away = run_study("multiagent_ft", "arithmetic", config.replace(eval_task="mini_gsm"), report=str)
    assert away.societies == at_home.societies and away.train_ids == at_home.train_ids
    assert set(away.frame.task) == {"mini_gsm"} and set(away.frame.trained_on) == {"arithmetic"}
    gsm = [p.id for p in problems("mini_gsm", "eval", config)]
    assert list(away.frame[away.frame.iteration == 1].problem) == gsm == list(away.eval_ids)
    both = pd.concat([away.frame, run_study("debate", "mini_gsm", config, report=str).frame])
    accuracies = metrics.accuracy(metrics.last_iteration(both)).set_index("method")
    assert accuracies.problems.to_dict() == {"multiagent_ft": 6, "debate": 6}
    assert accuracies.trained_on["multiagent_ft"] == "arithmetic"


@pytest.mark.pipeline
@pytest.mark.parametrize("method", [*METHODS][: -len(CONTROLS)])
def test_every_method_runs_on_the_miniature_model(method, config, shared_runs):
    config = config.replace(runs_dir=shared_runs, num_train=12, num_eval=6, num_iterations=1)
    result = run_study(method, "arithmetic", config, report=str)
    assert (result.frame.groupby("iteration").problem.nunique() == 6).all()
    costs = result.costs[metrics.COSTS].sum()
    trains = method in ("star", "distilled_society", "no_interaction") or "_ft" in method
    assert (costs.num_training_tokens > 0) == result.costs.peak_memory.notna().any() == trains
    assert min(costs.num_calls, costs.num_prompt_tokens, costs.num_completion_tokens, costs.seconds) > 0
    phases = {"answers", "data", "training"} if trains else {"answers"}
    assert set(result.costs.phase) == phases


def test_studies_may_begin_side_by_side(tmp_path):
    """Their threads need transformers at the same time, which cannot be imported in two at once."""
    program = (
        "import sys, maft_lib as m; c = m.load_config('smoke', runs_dir=sys.argv[1], num_eval=2);"
        "print(len(m.run_studies([('base', 'arithmetic', c.replace(seed=s)) for s in range(8)])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout.endswith("8\n"), run.stderr
