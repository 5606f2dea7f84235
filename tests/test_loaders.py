"""Published data sets: splits are disjoint, the hub is optional. What is refused: `test_bad_input`."""

import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from maft_lib.config import ConfigError
from maft_lib.grading import is_correct
from maft_lib.profiles import load_config
from maft_lib.run import run_study
from maft_lib.study import check_disjoint, problems
from maft_lib.tasks import answer_type, load_problems, published
from maft_lib.tasks.problem import DataError, DataWarning
from maft_lib.tasks.published import GsmRecord, MathRecord, MmluRecord, OwnRecord
from tests.bad_inputs.data_files import EXAMPLE, GSM, HUB_MMLU, MATH, MMLU, numbered, write
from tests.scripted import ScriptedBackend


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    """Tests say themselves where files are."""
    monkeypatch.delenv("MAFT_DATA_DIR", raising=False)


def test_many_bad_records_are_counted_and_the_first_named(tmp_path):
    folder = write(tmp_path, "gsm8k_test.jsonl", [b"{", *numbered("gsm", 3), *[b"{"] * 8])
    with pytest.raises(DataError, match=r"\(9\): .*jsonl:1 .*; .*jsonl:8 .*; and 4 more"):
        load_problems("gsm", "eval", 1, data_dir=folder)


def test_a_repeated_question_with_the_same_answer_is_left_out_and_told(tmp_path):
    again = {**GSM, "question": "what is  1+1"}
    folder = write(tmp_path, "gsm8k_test.jsonl", [GSM, *numbered("gsm", 2), again])
    with pytest.warns(DataWarning, match=r"left out \(1\): .*:4 repeats .*:1\."):
        found = load_problems("gsm", "eval", 3, data_dir=folder)
    assert "What is 1+1?" in {p.question for p in found}


def test_the_same_question_with_other_options_is_another_one(tmp_path):
    folder = write(tmp_path, "mmlu_test.jsonl", [MMLU, {**MMLU, "options": ["u", "v"]}])
    loaded = published.load("mmlu", "test", Path(folder))
    assert len({p.id for p in loaded}) == 2
    halves = [published.pool("mmlu", split, folder, "refuse") for split in ("train", "eval")]
    assert len({p.id for half in halves for p in half}) == 2 and [] in halves


def test_what_records_become(tmp_path):
    solution = {**GSM, "answer": "#### 7 or\n#### 1,234.50"}
    assert GsmRecord(**solution).problem().answer == "1234.50"
    problem = MathRecord(**{**MATH, "solution": r"\boxed{1}, so \fbox{\frac{1}{2}}"}).problem()
    assert (problem.answer, problem.level, problem.subject) == (r"\frac{1}{2}", 2, "Algebra")
    assert MathRecord(**{**MATH, "level": "Level ?"}).problem().level is None
    both = MmluRecord(**MMLU).problem(), MmluRecord(**HUB_MMLU).problem()
    assert both[0] == both[1] and both[0].options == ("x", "y", "z")
    assert both[0].question == "Which?\n(A) x\n(B) y\n(C) z" and both[0].answer == "B"


def test_a_missing_option_is_the_word_none(tmp_path):
    folder = write(tmp_path, "mmlu_test.jsonl", [{**MMLU, "options": [float("nan"), "y"]}])
    (problem,) = published.load("mmlu", "test", Path(folder))
    assert problem.options == ("None", "y")


def test_a_changed_file_is_read_again(tmp_path):
    folder = write(tmp_path, "gsm8k_test.jsonl", [GSM])
    assert len(load_problems("gsm", "eval", 1, data_dir=folder)) == 1
    write(tmp_path, "gsm8k_test.jsonl", numbered("gsm", 2))
    assert len(load_problems("gsm", "eval", 2, data_dir=folder)) == 2


# --- where the files are ------------------------------------------------------------------------


def test_the_environment_names_the_folder_and_generated_tasks_ignore_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MAFT_DATA_DIR", write(tmp_path, "gsm8k_test.jsonl", [GSM]))
    (problem,) = load_problems("gsm8k", "eval", 1)
    assert (problem.task, problem.source) == ("gsm", "gsm8k_test.jsonl")
    assert load_problems("mini_gsm", "eval", 3)
    monkeypatch.setenv("MAFT_DATA_DIR", str(tmp_path / "nowhere"))
    assert load_problems("mini_gsm", "eval", 3)
    with pytest.raises(DataError, match="nowhere.* is not a folder.*MAFT_DATA_DIR"):
        load_problems("gsm", "eval", 1)


@pytest.fixture
def hub(monkeypatch):
    """A hub that holds what a test puts into `rows`, or fails as it says."""
    asked, package = [], types.ModuleType("datasets")

    def load_dataset(repo, config, split, revision):
        asked.append((repo, config, split, revision))
        if isinstance(package.rows, Exception):
            raise package.rows
        return package.rows

    package.load_dataset, package.rows, package.asked = load_dataset, [GSM], asked
    monkeypatch.setitem(sys.modules, "datasets", package)
    published._hub_rows.cache_clear()
    yield package
    published._hub_rows.cache_clear()


def test_the_hub_is_read_at_a_pinned_revision(hub):
    (problem,) = published.load("gsm", "test", None)
    assert problem.source == "openai/gsm8k test@740312a" and problem.answer == "2"
    assert hub.asked == [("openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866")]


def test_without_the_hub_the_error_names_the_file(hub):
    hub.rows = ConnectionError("no\nroute")
    words = r"gsm needs gsm8k_train.jsonl: .* could not be reached \(ConnectionError: no route\); put"
    with pytest.raises(DataError, match=words):
        load_problems("gsm", "train", 1)


def test_offline_the_real_package_leads_to_the_same_sentence(tmp_path):
    code = "from maft_lib.tasks import load_problems; load_problems('gsm', 'eval', 1)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = ran.stderr.strip().splitlines()[-1]
    assert "DataError: gsm needs gsm8k_test.jsonl: the Hugging Face hub could not be reached" in last


# --- splits -------------------------------------------------------------------------------------


def both_splits(task, folder, num, seed):
    return [load_problems(task, split, num, seed, data_dir=folder) for split in ("train", "eval")]


@pytest.mark.parametrize("task", EXAMPLE)
@pytest.mark.filterwarnings("ignore::maft_lib.tasks.problem.DataWarning")
def test_splits_are_disjoint_whatever_the_seeds(tmp_path, task):
    folder = write(tmp_path, EXAMPLE[task][0], numbered(task, 60))
    if task == "gsm":
        write(tmp_path, "gsm8k_train.jsonl", numbered(task, 60, start=50))
    drawn = [both_splits(task, folder, 15, seed) for seed in range(12)]
    train, evaluation = ([p for both in drawn for p in both[i]] for i in (0, 1))
    check_disjoint(train, evaluation)
    assert both_splits(task, folder, 15, 3) == drawn[3] and drawn[3] != drawn[4]
    assert all(len({p.id for p in split}) == 15 for both in drawn for split in both)


def test_the_order_of_a_file_makes_no_difference(tmp_path):
    rows = numbered("gsm", 40)
    first = load_problems("gsm", "eval", 10, data_dir=write(tmp_path, "gsm8k_test.jsonl", rows))
    again = load_problems("gsm", "eval", 10, data_dir=write(tmp_path, "gsm8k_test.jsonl", rows[::-1]))
    assert first == again


def test_train_questions_that_are_tested_too_are_left_out_and_told(tmp_path):
    write(tmp_path, "gsm8k_train.jsonl", [*numbered("gsm", 9), {**GSM, "question": "WHAT is 1+1"}])
    folder = write(tmp_path, "gsm8k_test.jsonl", [GSM])
    with pytest.warns(DataWarning, match="1 left out, since the test split asks them too"):
        assert len(load_problems("gsm", "train", 9, data_dir=folder)) == 9


def test_math_with_a_train_file_evaluates_on_the_whole_test_split(tmp_path):
    write(tmp_path, "math_test.jsonl", numbered("math", 20))
    folder = write(tmp_path, "math_train.jsonl", numbered("math", 20, start=20))
    train, evaluation = both_splits("math", folder, 20, 0)
    assert published.note_on_train(train) is None
    assert {p.source for p in evaluation} == {"math_test.jsonl"}


def test_math_with_a_test_file_alone_says_so(tmp_path, config):
    folder = write(tmp_path, "math_test.jsonl", numbered("math", 200))
    config = config.replace(task="math", data_dir=folder, levels=[1, 2])
    told = []
    backend = ScriptedBackend(lambda request: "\\boxed{4}")
    result = run_study("base", "competition_math", config, backend, told.append)
    assert result.task == "math" and result.frame.correct.all()
    assert "train problems come from a test split (math_test.jsonl" in told[0] == f"math: {result.note}"
    assert set(result.frame.train_source) == {"math_test.jsonl, train half"}
    assert list(result.eval_ids) == list(result.frame.problem)
    assert len(result.train_ids) == 24 and not {*result.train_ids} & {*result.eval_ids}


def test_an_overlap_by_text_alone_raises():
    problem = GsmRecord(**GSM).problem()
    other = GsmRecord(**{**GSM, "question": "what is 1+1 ?"}).problem()
    assert problem.id != other.id
    with pytest.raises(ValueError, match="1 problems are both in train and eval"):
        check_disjoint([problem], [other])


def test_levels_and_too_few_problems(tmp_path):
    rows = numbered("math", 60)
    levels = ["Level 1", "Level 3", "Level ?"] * 20
    folder = write(tmp_path, "math_test.jsonl", [{**r, "level": v} for r, v in zip(rows, levels)])
    assert {p.level for p in load_problems("math", "eval", 5, levels=[3], data_dir=folder)} == {3}
    with pytest.raises(ValueError, match=r"math has only \d+ different eval .*ask for fewer"):
        load_problems("math", "eval", 30, levels=(1, 3), data_dir=folder)


def test_the_config_hands_the_problems_its_parameters(tmp_path, config):
    folder = write(tmp_path, "gsm8k_test.jsonl", [*numbered("gsm", 40), b"{"])
    assert load_config("smoke", tasks=["gsm8k", "reasoning_gym:gcd"]).tasks[0] == "gsm"
    config = config.replace(data_dir=folder)
    with pytest.raises(DataError, match="jsonl:41"):
        problems("gsm", "eval", config)
    with pytest.warns(DataWarning):
        assert len(problems("gsm8k", "eval", config.replace(on_bad_records="skip", levels=[1]))) == 24
    assert len(problems("mini_math", "eval", config)) == 24  # reads no files
    with pytest.raises(ConfigError, match="on_bad_records"):
        config.replace(on_bad_records="ignore")
    with pytest.raises(ConfigError, match="twice"):
        load_config("smoke", tasks=["math", "competition_math"])
    with pytest.raises(ValueError, match="on_bad_records is 'ignore'"):
        load_problems("gsm", "eval", 1, data_dir=folder, on_bad_records="ignore")


# --- a file of one's own --------------------------------------------------------------------------

OWN = [{"question": f"What is {n}+1?", "answer": n + 1, "level": 1 + n % 2} for n in range(40)]


def test_a_file_of_ones_own_is_a_task(tmp_path, monkeypatch):
    write(tmp_path, "mine.jsonl", OWN)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")  # found from a folder below, too
    train, evaluated = (load_problems("mine.jsonl", split, 8) for split in ("train", "eval"))
    assert not {p.question for p in train} & {p.question for p in evaluated}
    assert answer_type("mine.jsonl") == "number" and is_correct("1.0", problem_of(OWN[0]))
    assert all(p.level == 2 for p in load_problems("mine.jsonl", "eval", 4, levels=[2]))


def problem_of(record):
    return replace(OwnRecord(**record).problem(), task="mine.jsonl")


@pytest.mark.parametrize(
    "records, kind",
    [
        ([{"question": "?", "answer": "1,250"}, {"question": "!", "answer": -0.5}], "number"),
        ([{"question": "?", "answer": r"\frac{1}{2}"}, {"question": "!", "answer": 3}], "expression"),
        ([{"question": "?", "answer": "B", "choices": ["x", "y"]}], "choice"),
        ([{"question": "?", "answer": "3", "answer_type": "text"}], "text"),
    ],
)
def test_how_answers_of_ones_own_are_compared(tmp_path, records, kind):
    assert answer_type(str(Path(write(tmp_path, "mine.jsonl", records)) / "mine.jsonl")) == kind


@pytest.mark.parametrize(
    "record, said",
    [
        ({"question": "?"}, "mine.jsonl:1 has the answer"),
        ({"question": "?", "answer": "C", "choices": ["x", "y"]}, "no letter of its choices"),
        ({"question": "?", "answer": "1", "level": 7}, "mine.jsonl:1 has the level 7"),
        ({"question": "?", "answer": "1", "answer_type": "word"}, "answer_type word"),
    ],
)
def test_what_is_wrong_in_a_file_of_ones_own_is_named(tmp_path, record, said):
    folder = write(tmp_path, "mine.jsonl", [record])
    with pytest.raises(DataError, match=said):
        load_problems(f"{folder}/mine.jsonl", "eval", 1)


def test_a_missing_file_of_ones_own_is_named():
    with pytest.raises(ConfigError, match="nowhere.jsonl is no file"):
        load_config("smoke", task="nowhere.jsonl")


def test_a_study_of_ones_own_problems_says_how_it_reads_them(tmp_path):
    task = f"{write(tmp_path, 'mine.jsonl', OWN)}/mine.jsonl"
    said = []
    config = load_config("smoke", num_train=4, num_eval=4, runs_dir=str(tmp_path / "runs"))
    result = run_study("base", task, config, ScriptedBackend(lambda _: r"\boxed{1}"), said.append)
    assert "compared as number" in said[0] and result.frame.task.unique() == [task]
