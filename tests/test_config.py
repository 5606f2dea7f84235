"""Profiles load, and overrides win. What is wrong: `test_bad_input`."""

import pytest
import yaml

from maft_lib.config import ConfigError, project_root
from maft_lib.profiles import NOTEBOOKS, load_config
from maft_lib.setup_cell import notebook_config
from maft_lib.study import problems


def test_a_profile_is_the_defaults_then_its_file_then_the_overrides():
    config = load_config("smoke", num_agents=5)
    assert (config.profile, config.num_train, config.num_agents) == ("smoke", 24, 5)
    assert config.num_rounds == 2  # the paper's default, in no file


def test_defaults_are_the_papers(tmp_path):
    (tmp_path / "plain.yml").write_text("profile: plain")
    config = load_config(str(tmp_path / "plain.yml"))
    assert (config.num_train, config.num_eval, config.num_agents, config.num_rounds) == (500, 500, 3, 2)
    assert (config.temperature, config.top_p, config.max_tokens) == (1.0, 0.9, 2048)
    assert config.max_operand == 30


def test_the_environment_names_the_profile(monkeypatch):
    monkeypatch.setenv("MAFT_PROFILE", "smoke")
    assert load_config().profile == "smoke"
    monkeypatch.delenv("MAFT_PROFILE")
    assert load_config().profile == "laptop"


@pytest.mark.parametrize("profile", ["laptop", "organism", "smoke", "smollm2"])
def test_a_profile_asks_for_no_more_problems_than_there_are(profile):
    for notebook in (None, *NOTEBOOKS):
        config = load_config(profile, notebook=notebook)
        for task in {config.task, *config.tasks}:
            for split in ("train", "eval"):
                assert len(problems(task, split, config)) == config.num_problems(split, task)


@pytest.mark.parametrize("folder", [".", "notebooks", "tests"])
def test_paths_work_from_root_and_from_notebooks(folder, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath / folder)
    config = load_config("smoke")
    assert config.path("params/smoke.yml").is_file()
    assert config.base_model.endswith("maft_lib/miniature/model")


def test_a_notebook_gives_its_globals():
    cell = {"profile": "smoke", "task": None, "num_agents": 4, "In": [""], "_private": 1, "f": print}
    assert notebook_config(dict(cell)).num_agents == 4
    assert notebook_config({**cell, "retrain": True}, own={"retrain": (False, True)}).num_agents == 4
    with pytest.raises(ConfigError, match="num_agents"):
        notebook_config({**cell, "num_agentss": 4})


def test_the_setup_cell_can_be_run_again_after_others():
    cell = {"profile": "smoke"}
    notebook_config(cell)
    cell.update(count=3, num_agents=5)
    assert notebook_config(cell).num_agents == 5


@pytest.mark.parametrize(
    "profile, rates", [("phi3", (5e-6, 5e-7)), ("mistral", (5e-7, 5e-7)), ("llama3", (5e-7, 2e-7))]
)
def test_the_papers_settings(profile, rates):
    config = load_config(profile)
    assert (config.learning_rate, config.critic_learning_rate) == rates
    assert (config.num_agents, config.num_rounds, config.num_train, config.num_eval) == (3, 2, 500, 500)
    assert (config.levels, config.tasks) == ([1, 2, 3], ["arithmetic", "gsm", "math"])
    assert config.per_device_train_batch_size == 1 and config.max_operand == 30


def test_a_notebook_has_parameters_of_its_own():
    assert load_config("phi3", notebook="F_more_agents").num_agents == 5
    harder = load_config("phi3", notebook="H_additional_evaluations")
    assert (harder.tasks, harder.levels) == (["math", "mmlu"], None)
    assert load_config("phi3").levels == [1, 2, 3]
    asked = load_config("phi3", notebook="R_reviewers_questions")
    assert (asked.task, asked.num_train, asked.num_eval) == ("gsm", 1000, 1000)


def test_several_iterations_have_the_papers_rates():
    """Appendix B.3: both roles at 5e-7, LLaMA-3 with another weight decay."""
    rates = [
        (c.learning_rate, c.critic_learning_rate, c.weight_decay)
        for p in ("phi3", "mistral", "llama3")
        for c in [load_config(p, notebook="03_4_multiple_iterations")]
    ]
    assert rates == [(5e-7, 5e-7, 1e-3), (5e-7, 5e-7, 1e-2), (5e-7, 5e-7, 1e-2)]


def test_what_is_given_beats_the_profile_for_the_notebook_and_that_beats_the_papers(tmp_path):
    own = "notebooks: {R_reviewers_questions: {num_train: 40}, F_more_agents: {num_agents: 4}}"
    (tmp_path / "own.yml").write_text(f"num_train: 30\nnum_eval: 20\n{own}\n")
    path = str(tmp_path / "own.yml")
    config = load_config(path, notebook="R_reviewers_questions", num_eval=10)
    assert (config.num_train, config.num_eval, config.task) == (40, 10, "gsm")
    assert load_config(path, notebook="F_more_agents").num_agents == 4
    assert load_config(path).num_train == 30


@pytest.mark.parametrize("profile", ["smoke", "mistral"])  # the second has no key `notebooks`
def test_a_whole_params_file_in_a_notebook_says_what_its_profile_says(profile, capsys):
    """papermill -f injects every key of the file, and -p on top of them."""
    file = yaml.safe_load((project_root() / "params" / f"{profile}.yml").read_text())
    name, here = (
        "R_reviewers_questions",
        {"backend": "transformers"},
    )  # vLLM is refused where it is missing
    file |= here
    assert notebook_config(dict(file), name) == notebook_config({"profile": profile, **here}, name)
    assert "R_reviewers_questions has values of its own: task: " in capsys.readouterr().out
    assert notebook_config({**file, "num_eval": 7}, name).num_eval == 7


def test_an_own_value_that_is_wrong_is_found_when_it_is_needed(tmp_path):
    (tmp_path / "own.yml").write_text("notebooks: {F_more_agents: {num_agents: 1}}")
    with pytest.raises(ConfigError, match="num_agents: .*greater than or equal to 2"):
        load_config(str(tmp_path / "own.yml"), notebook="F_more_agents")
    with pytest.raises(ConfigError, match="unknown notebook 'F_agents'"):
        load_config("smoke", notebook="F_agents")


def test_the_environment_names_the_folder_of_runs(monkeypatch):
    monkeypatch.setenv("MAFT_RUNS_DIR", "/scratch/runs")
    assert load_config("smoke").runs_dir == "/scratch/runs"
    assert load_config("smoke", runs_dir="here").runs_dir == "here"
