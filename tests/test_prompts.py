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
        ({"answer_format": {"number": "n"}}, "answer_format needs"),
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
