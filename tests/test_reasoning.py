"""What a model thinks is told from what it answers, in the marks of several families of models."""

import time

import pytest

from maft_lib.grading import extract_answer
from maft_lib.reasoning import split_reasoning

HARMONY = (
    "<|channel|>analysis<|message|>4 or \\boxed{5}?<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is \\boxed{6}.<|return|>"
)


@pytest.mark.parametrize(
    "text, reasoning, answer",
    [
        ("It is 6.", "", "It is 6."),
        ("<think>\n4?\n</think>\n\nIt is 6.", "4?", "It is 6."),
        ("4? </think> It is 6.", "4?", "It is 6."),
        ("<think>4?</think> no <think>5?</think> It is 6.", "4? no 5?", "It is 6."),
        ("[THINK]4?[/THINK]It is 6.", "4?", "It is 6."),
        ("<think>\nIt is 6.", "It is 6.", ""),
        ("It is 5. <think> or 6", "It is 5.  or 6", ""),
        (HARMONY, "4 or \\boxed{5}?", "It is \\boxed{6}."),
        (HARMONY.partition("<|start|>")[0], "4 or \\boxed{5}?", ""),
    ],
)
def test_reasoning_and_answer_part(text, reasoning, answer):
    assert split_reasoning(text) == (reasoning, answer)


def test_a_prompt_that_begins_the_thought():
    assert split_reasoning("4?</think>It is 6.") == ("4?", "It is 6.")


@pytest.mark.parametrize(
    "text, answer",
    [
        ("<think>\\boxed{5}</think>The answer is 6.", "6"),
        ("\\boxed{5}</think>The answer is 6.", "6"),
        ("<think>The answer is \\boxed{5}.", None),
        (HARMONY, "6"),
        (HARMONY.partition("<|start|>")[0], None),
    ],
)
def test_a_thought_gives_no_answer(text, answer):
    assert extract_answer(text, "gsm") == answer


def test_repeated_marks_take_no_time():
    start = time.process_time()
    for mark in ("<think>", "</think>", "<|channel|>" + "a" * 9, "<|channel|>final<|message|>"):
        split_reasoning(mark * 20_000)
    split_reasoning("<|channel|>" + "a" * 100_000)
    assert time.process_time() - start < 2
