"""What is trained is what was said, under templates as models have them; the rest is refused early."""

import json
import shutil
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from maft_lib.backends.rendering import IGNORED, render_conversation, render_prompt, tokenize
from maft_lib.run import run_study
from maft_lib.society import Agent
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.training.finetuning import finetune, training_log
from tests.conftest import TURNS
from tests.scripted import ScriptedBackend

CRITIC = (
    *TURNS,
    {"role": "user", "content": "Try again."},
    {"role": "assistant", "content": "It is \\boxed{3}."},
)


def chatml(content, before="", prefill="", end="<|im_end|>\n"):
    """A template that writes `content` for an answer, and `prefill` where it is to begin."""
    return (
        f"{{% for m in messages %}}{before}<|im_start|>{{{{ m.role }}}}\n"
        f"{{% if m.role == 'assistant' %}}{content}{{% else %}}{{{{ m.content }}}}{{% endif %}}{end}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{prefill}{{% endif %}}"
    )


# As Qwen3 does: a thought, empty where there is none, in the answers after the last question
QWEN3 = "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
TEMPLATES = {
    "plain": chatml("{{ m.content }}"),
    "an empty thought in the last answer": chatml(QWEN3),
    "an empty thought in every answer": chatml("<think>\n\n</think>\n\n{{ m.content }}"),
    "an empty thought in the prompt": chatml("{{ m.content }}", prefill="<think>\n\n</think>\n\n"),
    "an empty thought in both": chatml(QWEN3, prefill="<think>\n\n</think>\n\n"),
    "stripped answers": chatml("{{ m.content | trim }}"),
    "a space before answers": chatml(" {{ m.content }}"),
    "words before the last answer": chatml("{% if loop.last %}(thought){% endif %}{{ m.content }}"),
    "thoughts cut off": chatml("{{ m.content.split('</think>')[-1].lstrip('\\n') }}"),
    "a note to the last question": chatml("{{ m.content }}", "{% if loop.last %}(last){% endif %}"),
    "no end": chatml("{{ m.content }}", end="\n"),
    "the end-of-sequence token": chatml("{{ m.content }}", end="{{ eos_token }}"),
    "no space after the end": chatml("{{ m.content }}", end="<|im_end|>"),
    "like Mistral's": "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
}
RESPONSES = {
    "a sentence": "It is \\boxed{3}.",
    "white space around": "\n It is \\boxed{3}.\n\n",
    "nothing": "",
    "the end of a turn, spelled": "I write <|im_end|> and go on: \\boxed{3}.",
    "a question's mark, spelled": "<|im_start|>user\nIt is \\boxed{3}.",
    "other scripts": "答案是 \\boxed{3}。 🙂",
}
APPENDED = (  # those under which a first answer stays as it was said
    *("plain", "an empty thought in the last answer", "the end-of-sequence token"),
    *("no space after the end", "thoughts cut off", "stripped answers", "words before the last answer"),
)


@pytest.fixture
def tokenizer(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def check(tokenizer, messages, rendered, number=0):
    """The labels of the answer with this number are its own ids and one end of turn."""
    ends = [i for i, label in enumerate(rendered.labels) if label != IGNORED]
    assert [rendered.input_ids[i] for i in ends] == [rendered.labels[i] for i in ends]
    prompt = render_prompt(tokenizer, messages[:-1])
    assert rendered.input_ids[: len(prompt)] == prompt
    said = rendered.input_ids[len(prompt) :]
    assert tokenizer.decode(said[:-1], skip_special_tokens=True) == messages[-1]["content"]
    assert not {*said[:-1]} & {*tokenizer.all_special_ids}
    special = (tokenizer.eos_token, "<|im_end|>", "<|end|>")
    assert tokenizer.decode(said[-1:]) in special
    assert rendered.labels == [IGNORED] * len(prompt) + said


@pytest.mark.parametrize("said", RESPONSES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_last_answer_is_trained_as_it_was_said(template, said, tokenizer):
    tokenizer.chat_template = TEMPLATES[template]
    for turns in (TURNS, CRITIC):
        messages = [*turns[:-1], {"role": "assistant", "content": RESPONSES[said]}]
        check(tokenizer, messages, render_conversation(tokenizer, messages))


@pytest.mark.parametrize("template", TEMPLATES)
def test_all_answers_are_trained_as_they_were_said_or_refused(template, tokenizer):
    tokenizer.chat_template = TEMPLATES[template]
    if template not in APPENDED:
        with pytest.raises(ValueError, match="critic_loss_on: final_turn"):
            render_conversation(tokenizer, CRITIC, "all_turns")
        return
    both = render_conversation(tokenizer, CRITIC, "all_turns")
    first = render_conversation(tokenizer, CRITIC[:2])
    last = render_conversation(tokenizer, CRITIC)
    assert both.input_ids == last.input_ids
    start = len(first.labels)
    assert both.labels[:start] == first.labels and both.labels[start:] == last.labels[start:]


def changed(model, folder, template=None, **config):
    """A copy of the miniature model with another template or other words in its config."""
    shutil.copytree(model, folder)
    if template:
        (folder / "chat_template.jinja").write_text(template)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | config))
    return str(folder)


def refused(method, config, match):
    """Refused before anything is asked."""
    backend = ScriptedBackend(lambda _: "\\boxed{4}")
    with pytest.raises(FinetuneError, match=match) as caught:
        run_study(method, "arithmetic", config, backend, report=str)
    assert not backend.requests and "\n" not in str(caught.value)
    assert config.model_name_or_path in str(caught.value)


OPENED = chatml("{{ m.content }}", prefill="<think>\n")
CHANNELS = chatml("<|channel|>final<|message|>{{ m.content }}")
FORGETFUL = chatml("{{ m.content }}", prefill="<think>\n\n</think>\n\n")


@pytest.mark.parametrize("method", ["multiagent_ft", "single_agent_ft", "star", "multiagent_ft_lora"])
def test_a_template_that_opens_a_thought_is_refused_before_the_study(method, model, config, tmp_path):
    config = config.replace(model_name_or_path=changed(model, tmp_path / "r1", OPENED))
    refused(method, config, "<think>.*enable_thinking: false")


def test_a_thought_that_is_switched_off_is_trained_without(model, config, agent, tmp_path):
    """As Qwen3's kin do: the prompt closes an empty thought if thinking is off, else it opens one."""
    shut = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
    folder = changed(model, tmp_path / "both", chatml("{{ m.content }}", prefill=shut))
    config = config.replace(model_name_or_path=folder, num_workers=1)
    refused("multiagent_ft", config, "<think>.*enable_thinking: false")
    config, agent = config.replace(enable_thinking=False), replace(agent, model=folder)
    backend = ScriptedBackend(lambda _: "\\boxed{4}")
    run_study("debate", "arithmetic", config, backend, report=str)
    trained = finetune(agent, [Example(f"{i}", TURNS) for i in range(4)], config)
    assert training_log(trained)["num_examples"] == 4


def test_channels_are_refused_before_the_study(model, config, tmp_path):
    config = config.replace(model_name_or_path=changed(model, tmp_path / "oss", CHANNELS))
    refused("multiagent_ft", config, "channel")


def test_first_answers_that_change_are_refused_before_the_study(model, config, tmp_path):
    config = config.replace(model_name_or_path=changed(model, tmp_path / "shy", FORGETFUL))
    refused("multiagent_ft", config.replace(critic_loss_on="all_turns"), "critic_loss_on: final_turn")
    run_study("majority", "arithmetic", config.replace(critic_loss_on="all_turns"), report=str)


def test_a_checkpoint_in_four_bits_is_refused_before_the_study(model, config, tmp_path):
    four = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    config = config.replace(model_name_or_path=changed(model, tmp_path / "four", **four))
    refused("multiagent_ft", config, "bitsandbytes.*lora_rank")
    refused("star", config, "bitsandbytes.*lora_rank")


def test_what_trains_nothing_is_not_refused(model, config, tmp_path):
    config = config.replace(model_name_or_path=changed(model, tmp_path / "r1", OPENED))
    backend = ScriptedBackend(lambda _: "\\boxed{4}")
    run_study("debate", "arithmetic", config, backend, report=str)
    assert backend.requests


def test_errors_name_the_agent_and_the_example(agent, config, tmp_path):
    long = Example("problem 7", (TURNS[0], {"role": "assistant", "content": "1+1=2, " * 400}))
    with pytest.raises(FinetuneError, match="generation-1.*problem 7.*not truncated: lower max_tokens"):
        finetune(agent, [Example("problem 6", TURNS), long], config.replace(num_workers=1))
    critic = Agent("critic-1", "critic", changed(agent.model, tmp_path / "shy", FORGETFUL))
    with pytest.raises(FinetuneError, match="critic-1.*problem 5.*critic_loss_on: final_turn"):
        finetune(critic, [Example("problem 5", CRITIC)], config.replace(critic_loss_on="all_turns"))


def test_star_without_a_right_answer_runs_through(config):
    """One token is no answer, so there is nothing to learn from."""
    with pytest.warns(UserWarning, match="generation-1 has no example"):
        result = run_study("star", "arithmetic", config.replace(max_tokens=1), report=str)
    assert sorted(set(result.frame.iteration)) == [0, 1] and not result.frame.correct.any()


def test_the_ids_of_a_response_are_those_of_its_text(tokenizer):
    tokenizer.chat_template = TEMPLATES["plain"]
    rendered = render_conversation(tokenizer, TURNS)
    said = [label for label in rendered.labels if label != IGNORED]
    assert said[:-1] == tokenize(tokenizer, TURNS[1]["content"])
