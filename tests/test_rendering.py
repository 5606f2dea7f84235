"""What an agent is trained on is, token by token, what it is asked at inference."""

import pytest
from transformers import AutoTokenizer

from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.rendering import IGNORED, render_conversation, render_prompt

TURNS = [
    {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"},
    {"role": "assistant", "content": "2*3=6, The answer is \\boxed{6}."},
    {"role": "user", "content": "Try again."},
    {"role": "assistant", "content": "The answer is \\boxed{-3}."},
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Writes an empty thought into the last answer only, as some templates of reasoning models do.
TWO_FACED = CHATML.replace(
    "{{ m['content'] }}", "{% if loop.last and loop.index > 1 %}(thought){% endif %}{{ m['content'] }}"
)


@pytest.fixture
def tokenizer(model):
    return load_tokenizer(model)


@pytest.fixture
def chatml(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def labelled(tokenizer, rendered):
    pairs = zip(rendered.input_ids, rendered.labels)
    assert all(label in (IGNORED, token) for token, label in pairs)
    return tokenizer.decode([label for label in rendered.labels if label != IGNORED])


def test_the_training_prompt_is_the_inference_prompt(tokenizer):
    prompt = render_prompt(tokenizer, TURNS[:3])
    rendered = render_conversation(tokenizer, TURNS)
    assert rendered.input_ids[: len(prompt)] == prompt
    assert rendered.labels[: len(prompt)] == [IGNORED] * len(prompt)


def test_the_end_of_turn_is_learned_and_first_turns_are_not(tokenizer):
    text = labelled(tokenizer, render_conversation(tokenizer, TURNS))
    assert text == "The answer is \\boxed{-3}.<|end|>"


def test_all_turns_on_request(tokenizer):
    text = labelled(tokenizer, render_conversation(tokenizer, TURNS, "all_turns"))
    assert text == "2*3=6, The answer is \\boxed{6}.<|end|>The answer is \\boxed{-3}.<|end|>"


def test_white_space_after_the_end_of_turn_is_not_learned(chatml):
    text = labelled(chatml, render_conversation(chatml, TURNS))
    assert text == "The answer is \\boxed{-3}.<|im_end|>"
    both = labelled(chatml, render_conversation(chatml, TURNS, "all_turns"))
    assert both.count("<|im_end|>") == 2 and "\n" not in both


def test_a_template_without_an_end_gets_one(tokenizer, model):
    bare = AutoTokenizer.from_pretrained(model)
    bare.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    bare.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    rendered = render_conversation(bare, TURNS)
    assert rendered.input_ids[-1] == rendered.labels[-1] == bare.eos_token_id


def test_a_template_that_rewrites_the_prompt_is_refused(chatml):
    chatml.chat_template = TWO_FACED
    with pytest.raises(ValueError, match="differently when an answer follows"):
        render_conversation(chatml, TURNS)
