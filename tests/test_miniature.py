"""The shipped model, its tokenizer and its corpus are what the card says."""

import json
import re

import pandas as pd
import pytest
from safetensors.torch import load_file

from maft_lib.backends.hub import load_tokenizer
from maft_lib.miniature import card, corpus, pretraining
from maft_lib.prompts import load_prompts
from maft_lib.tasks import GENERATED, load_problems
from maft_lib.tasks.problem import problem_id

SMALL = pretraining.Recipe(num_shards=1, hidden_size=32, intermediate_size=32, num_hidden_layers=1)


def test_the_model_is_small_and_whole():
    weights = pretraining.SHIPPED / "model.safetensors"
    assert weights.stat().st_size <= 8e6
    assert sum(tensor.numel() for tensor in load_file(weights).values()) <= 1_500_000
    log = json.loads((pretraining.SHIPPED / "pretraining.json").read_text())
    assert pretraining.Recipe(**log["recipe"]) == pretraining.Recipe()
    card = (pretraining.SHIPPED / "README.md").read_text()
    assert f"probability {corpus.ACCURACY}" in card and all(task in card for task in GENERATED)


def test_no_train_or_eval_problem_is_in_the_corpus():
    asked = {q for index in range(2) for q in corpus.questions(corpus.shard(0, index))}
    held_out = {
        problem_id(p.question)
        for task in GENERATED
        for split in ("train", "eval")
        for p in load_problems(task, split, 200, max_operand=corpus.MAX_OPERAND)
    }
    assert len(asked) > 1000 and not asked & held_out


def test_a_shard_is_the_same_for_its_seed():
    assert corpus.shard(0, 3, size=20) == corpus.shard(0, 3, size=20)
    assert corpus.shard(0, 3, size=20) != corpus.shard(1, 3, size=20)


def test_the_corpus_speaks_in_the_prompts_of_inference():
    kinds = dict(corpus.shard(0, 0, size=200))
    assert set(kinds) == set(corpus.KIND_WEIGHTS)
    prompts = load_prompts().texts
    heads = {name: prompts[name].split("{")[0] for name in ("summary", "critic")}
    assert kinds["summary"][0]["content"].startswith(heads["summary"])
    critics = [t for kind, t in corpus.shard(0, 0, size=200) if kind == "critic"]
    assert sum(turns[2]["content"].startswith(heads["critic"]) for turns in critics) > len(critics) / 2


def test_direct_answers_slip_as_documented():
    solved = [turns for kind, turns in corpus.shard(0, 0) if kind == "direct"]
    right = 0
    for turns in solved:
        steps = re.findall(r"(-?\d+)([-+*/%])(-?\d+)=(-?\d+)", turns[1]["content"])
        right += all(_true(*step) for step in steps)
    assert corpus.ACCURACY - 0.1 < right / len(solved) < corpus.ACCURACY + 0.1


def _true(a, op, b, c):
    a, b, c = int(a), int(b), int(c)
    return {
        "+": a + b == c,
        "-": a - b == c,
        "*": a * b == c,
        "/": b and a // b == c,
        "%": b and a % b == c,
    }[op]


@pytest.mark.parametrize("text", ["What is 12+3?", "Ünïcode \U0001f600 \n\t  \\frac{1}{2}", "", "\x00"])
def test_every_text_makes_the_round_trip(model, text):
    tokenizer = load_tokenizer(model)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_digits_are_single_and_prompt_words_whole(model):
    tokenizer = load_tokenizer(model)
    assert tokenizer.tokenize("12345") == list("12345")
    for name in ("critic", "summary"):
        prompt = re.sub(r"\{\w+\}", "", load_prompts().texts[name])
        whole = [token.lstrip("Ġ") for token in tokenizer.tokenize(prompt)]
        assert [word for word in whole if word.isalpha() and word.isascii()] == re.findall(
            r"\w+", prompt
        )


def test_pretraining_is_deterministic():
    tokenizer = pretraining.make_tokenizer(SMALL)
    rendered = pretraining.render_corpus(SMALL, tokenizer)[:300]
    losses = [
        list(pretraining.train(pretraining.make_model(SMALL, tokenizer), rendered, SMALL))
        for _ in range(2)
    ]
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]


def test_the_card_keeps_its_words_and_takes_new_numbers(config, tmp_path):
    shipped = (pretraining.SHIPPED / "README.md").read_text()
    (tmp_path / "README.md").write_text(shipped)
    roles, critics = pd.DataFrame({"direct": [41.26]}), pd.DataFrame({"cases": [7.0]})
    twelve = config.replace(num_eval=12)
    written = card.write(tmp_path, SMALL, (roles, critics), twelve).read_text()
    assert "41.3" in written and "|       7 |" in written and f"`{SMALL}`" in written
    assert "on 12 eval problems a task, seed 0;" in written and "mini_gsm   |" not in written
    kept = shipped[shipped.index("**Data.**") : shipped.index("**Accuracy**")]
    assert kept in written and shipped.split("**Made by**")[0] in written
