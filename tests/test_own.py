"""`docs/own.md` as a new user follows it: problems in a file, a method in a notebook."""

import json
import re
from pathlib import Path

import papermill
import pytest

import maft_lib as maft
from maft_lib.config import ConfigError
from maft_lib.methods import METHODS

PAGE = (Path(__file__).parent.parent / "docs" / "own.md").read_text()
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL))  # the last one of each language


@pytest.fixture
def problems(tmp_path):
    """The lines of the page, and enough others."""
    lines = BLOCKS["json"].splitlines()
    lines[1:] = [json.dumps({"question": f"What is {n}+{n}?", "answer": 2 * n}) for n in range(60)]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines))
    return f"{tmp_path}/problems.jsonl"


@pytest.mark.pipeline
def test_the_method_of_the_page_takes_its_place_in_a_table(tmp_path, monkeypatch):
    code = BLOCKS["python"].replace('"laptop"', f'"smoke", runs_dir="{tmp_path}"')
    names = {"__name__": "__main__"}
    monkeypatch.setattr("maft_lib.methods.METHODS", METHODS)
    try:
        exec(code, names)
        assert list(names["table"].index) == ["Debate", "Fresh start"]
        trained = names["results"][1]
        assert list(trained.frame.iteration.unique()) == [0, 1] and trained.costs.phase.iloc[-1]
    finally:
        METHODS.pop("fresh_start", None)


def test_a_plain_function_is_a_method_but_takes_no_others_name():
    def mine(study):
        """Nothing."""

    def debate(study):
        """Another one."""

    assert maft.methods.name_of(mine) == "mine" and METHODS.pop("mine").label == "mine"
    with pytest.raises(ConfigError, match="debate is a method already"):
        maft.run_study(debate, "arithmetic", maft.load_config("smoke"))


@pytest.mark.notebooks
def test_a_notebook_runs_on_ones_own_problems(tmp_path, problems):
    notebook = Path(__file__).parent.parent / "notebooks" / "02_1_multiagent_debate.ipynb"
    own = {"profile": "smoke", "task": problems, "num_train": 4, "num_eval": 4}
    folders = {"runs_dir": str(tmp_path / "runs"), "figures_dir": str(tmp_path / "figures")}
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", {**own, **folders}, progress_bar=False)
    assert "What is" in (tmp_path / "out.ipynb").read_text()
