"""Prompt sets are data: filled in one pass, refused when a field is missing."""

import pytest
import yaml

from maft_lib.prompts import DEFAULT, Prompts, load_prompts
from tests.conftest import problem


def test_values_are_never_templates():
    asked = load_prompts().generation(problem("What is {answer_format} + {x}?"), "number")
    assert asked[0]["content"].startswith("What is {answer_format} + {x}?")
    assert asked[0]["content"].endswith("as a single number in \\boxed{}.")


def test_a_prompt_set_of_ones_own(tmp_path):
    texts = yaml.safe_load(DEFAULT.read_text())
    texts["generation"] = "Please: {question} {answer_format}"
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(texts))
    asked = Prompts(tmp_path / "mine.yml").generation(problem("1+1?"), "choice")
    assert asked[0]["content"].startswith("Please: 1+1? Explain")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"critic": "{question} {answer_format}"}, "`critic` lacks {summary}"),
        ({"summary": None}, "`summary` lacks {responses}"),
        ({"answer_format": {"number": "n"}}, "answer_format needs `expression`"),
        ({"answer_format": ["number"]}, "answer_format needs `number`"),
    ],
)
def test_incomplete_prompt_sets_are_refused(tmp_path, change, words):
    texts = yaml.safe_load(DEFAULT.read_text()) | change
    (tmp_path / "bad.yml").write_text(yaml.safe_dump(texts))
    with pytest.raises(ValueError, match=words):
        Prompts(tmp_path / "bad.yml")


def test_a_prompts_file_that_is_missing():
    with pytest.raises(ValueError, match="cannot be read"):
        Prompts("nowhere.yml")


def test_a_task_may_ask_for_its_answer_in_its_own_way():
    maths, ours = (problem(task=task) for task in ("math", "mini_math"))
    asked = [load_prompts().generation(p, "expression")[0]["content"] for p in (maths, ours)]
    assert "simplest exact form" in asked[0] and "simplest" not in asked[1]


def test_a_format_for_a_task_that_does_not_exist(tmp_path):
    texts = yaml.safe_load(DEFAULT.read_text())
    texts["answer_format"]["gms"] = "As a number."
    (tmp_path / "bad.yml").write_text(yaml.safe_dump(texts))
    with pytest.raises(ValueError, match="did you mean 'gsm'"):
        Prompts(tmp_path / "bad.yml")
