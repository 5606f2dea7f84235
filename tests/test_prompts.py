"""Prompt sets are data, filled in one pass. What is refused: `test_bad_input`."""

import yaml

from maft_lib.prompts import DEFAULT, Prompts, load_prompts
from tests.conftest import problem


def test_values_are_never_templates():
    asked = load_prompts().generation(problem("What is {answer_format} + {x}?"))
    assert asked["content"].startswith("What is {answer_format} + {x}?")
    assert asked["content"].endswith("as a single number in \\boxed{}.")


def test_a_prompt_set_of_ones_own(tmp_path):
    texts = yaml.safe_load(DEFAULT.read_text())
    texts["generation"] = r"Please: {question} {answer_format} No \boxed{answer}, {x} or a_{number}."
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(texts))
    asked = Prompts(tmp_path / "mine.yml").generation(problem("1+1?"))
    assert asked["content"].startswith("Please: 1+1? Explain")
    assert asked["content"].endswith(r"No \boxed{answer}, {x} or a_{number}.")


def test_a_task_may_ask_for_its_answer_in_its_own_way():
    maths, ours = (problem(task=task) for task in ("math", "mini_math"))
    asked = [load_prompts().generation(p)["content"] for p in (maths, ours)]
    assert "simplest exact form" in asked[0] and "simplest" not in asked[1]
