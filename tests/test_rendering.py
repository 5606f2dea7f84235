"""What an agent is trained on is, token by token, what it is asked at inference."""

from datetime import date

import pytest
from transformers import AutoTokenizer

from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.models import canary_ids
from maft_lib.backends.rendering import (
    IGNORED,
    Template,
    prompt_text,
    render_conversation,
    render_prompt,
    stop_ids,
    written_text,
)
from maft_lib.config import Config, ConfigError
from maft_lib.reasoning import split_reasoning
from maft_lib.training.finetuning import hyper_parameters

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


def with_tokens(model, template, *special, eos=None):
    """The shipped tokenizer with another template and more tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special, *([eos] if eos else [])]})
    tokenizer.chat_template, tokenizer.eos_token = template, eos or tokenizer.eos_token
    return tokenizer


# --- what a template is given ---------------------------------------------------------------------

MACRO = "{% macro day() %}{{ strftime_now('%d.%m.') }}{% endmacro %}{{ day() }}"


@pytest.mark.parametrize(
    "asking, told",
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ strftime_now('%A, %H:%M') }}", "Friday, 00:00"),
        ("{% if strftime_now is defined %}{{ strftime_now('%B') }}{% endif %}", "July"),
        (MACRO, "26.07."),
    ],
)
def test_the_day_is_always_the_same(model, asking, told):
    tokenizer = with_tokens(model, asking + "|" + CHATML, "<|im_start|>", "<|im_end|>")
    assert prompt_text(tokenizer, TURNS[:1]).startswith(told + "|")
    assert tokenizer.decode(render_conversation(tokenizer, TURNS).input_ids).startswith(told)
    assert tokenizer.decode(canary_ids(tokenizer)).startswith(told)
    tokenizer.template = Template(date="2031-01-02")
    assert not prompt_text(tokenizer, TURNS[:1]).startswith(told)


def test_a_template_that_does_not_ask_is_not_told(chatml):
    before = prompt_text(chatml, TURNS[:1])
    chatml.template = Template(True, "2031-01-02")
    assert prompt_text(chatml, TURNS[:1]) == before


OFF = (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
ON = "{% if enable_thinking is defined and enable_thinking %}<think>{% else %}</think>{% endif %}"


@pytest.mark.parametrize(
    "switch, thinking, end",
    [
        (OFF, False, "</think>\n\n"),
        (OFF, True, "assistant\n"),
        (OFF, None, "assistant\n"),
        (ON, None, "</think>"),
        (ON, True, "<think>"),
    ],
)
def test_thinking_is_switched_on_off_or_left_to_the_template(chatml, switch, thinking, end):
    chatml.chat_template = CHATML.replace("assistant\n", "assistant\n" + switch)
    chatml.template = Template(thinking)
    assert prompt_text(chatml, TURNS[:1]).endswith(end)


def test_training_is_given_the_same(config, agent):
    usual = hyper_parameters(agent, config)
    changed = hyper_parameters(agent, config.replace(enable_thinking=False, template_date="2031-01-02"))
    assert changed == usual | {"enable_thinking": False, "template_date": "2031-01-02"}
    assert usual.keys().isdisjoint(changed.keys() - usual.keys())


def test_a_config_names_the_day_as_text_or_as_yaml_reads_it():
    for day in ("2025-01-02", date(2025, 1, 2)):
        assert Config.of({"template_date": day}).template_date == "2025-01-02"
    with pytest.raises(ConfigError, match="template_date"):
        Config.of({"template_date": "26 Jul"})


# --- what ends a turn -----------------------------------------------------------------------------

HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def stops(tokenizer, *declared):
    return {tokenizer.convert_ids_to_tokens(i) for i in stop_ids(tokenizer, declared)}


@pytest.mark.parametrize("end", ["<|im_end|>", "<turn|>", "<|eot|>", "<|END_OF_TURN_TOKEN|>", "</s>"])
def test_what_a_template_writes_after_an_answer_ends_it(model, end):
    template = CHATML.replace("<|im_end|>", end)
    for text in (template, template.replace("m['content']", "m['content'] | trim") + "<|im_start|>"):
        assert stops(with_tokens(model, text, "<|im_start|>", end, eos="<eos>")) == {"<eos>", end}


def test_what_ends_an_analysis_does_not_end_a_turn(model):
    marks = ("<|start|>", "<|message|>", "<|return|>", "<|call|>")
    tokenizer = with_tokens(model, HARMONY, *marks, eos="<|return|>")
    assert stops(tokenizer) == {"<|return|>"}  # though it has <|end|>
    call = tokenizer.convert_tokens_to_ids("<|call|>")
    assert stops(tokenizer, call) == {"<|return|>", "<|call|>"}


def test_the_usual_ends_are_for_templates_that_show_none(model):
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer = with_tokens(model, plain, "<|im_end|>", "<eos>", eos="<eos>")
    assert stops(tokenizer) == {"<eos>", "<|end|>", "<|im_end|>"}
    assert stops(tokenizer, tokenizer.eos_token_id) == {"<eos>"}
    tokenizer.chat_template = "{{ raise_exception('no answers') }}"
    assert stops(tokenizer, tokenizer.eos_token_id) == {"<eos>"}


# --- what is written ------------------------------------------------------------------------------

PREFILLED = CHATML.replace("assistant\n", "assistant\n<think>\n")
CHANNELS = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>3"


@pytest.mark.parametrize(
    "template, special, written, thought, answer",
    [
        (PREFILLED, (), "hm</think>3", "hm", "3"),
        (PREFILLED, ("<think>", "</think>"), "hm</think>3", "hm", "3"),
        (PREFILLED, ("<think>", "</think>"), "I say \\boxed{3}", "I say \\boxed{3}", ""),
        (CHATML, ("[THINK]", "[/THINK]"), "[THINK]hm[/THINK]3", "hm", "3"),
        (CHATML, ("<think>", "</think>"), "<think>hm</think>3", "hm", "3"),
        (HARMONY, ("<|channel|>", "<|message|>", "<|start|>", "<|end|>"), CHANNELS, "hm", "3"),
        (CHATML, ("<pad>",), "<pad>3<pad>", "", "3"),
    ],
)
def test_thoughts_can_be_told_from_the_answer(model, template, special, written, thought, answer):
    tokenizer = with_tokens(model, template, "<|im_start|>", "<|im_end|>", *special)
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    text = written_text(tokenizer, ids, prompt_text(tokenizer, TURNS[:1]))
    assert split_reasoning(text) == (thought, answer)
