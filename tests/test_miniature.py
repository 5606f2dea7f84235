"""The shipped model, its tokenizer and its corpus are what the card says."""

import json
import random
import re
from collections import Counter

import pandas as pd
import pytest
from safetensors.torch import load_file

from maft_lib import study
from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.opening import open_backend
from maft_lib.debate import run_debates
from maft_lib.metrics import scores
from maft_lib.miniature import card, corpus, pretraining
from maft_lib.profiles import load_config
from maft_lib.prompts import load_prompts
from maft_lib.society import Agent, base_society
from maft_lib.tasks import GENERATED, load_problems
from maft_lib.tasks.generated import draw_split
from maft_lib.tasks.problem import problem_id
from maft_lib.tasks.worked import OWN_SLIPS, Worked, solve, styles
from maft_lib.training.data import right_responses
from maft_lib.training.finetuning import finetune

ORDER = "p=b*c {}, q=e*f {}, s=a+p {}, t=s+d {}, r=t-q {}."
WORKED = Worked("1+2*3+4-5*6?", dict(zip("abcdef", range(1, 7))), styles(ORDER, ORDER))
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


def test_wrong_answers_agree_within_a_style_and_differ_between_styles():
    rng = random.Random(0)
    _, worked = draw_split("arithmetic", "corpus", rng, max_operand=corpus.MAX_OPERAND)
    wrong = [
        Counter(a for a in answers if a != worked.answer)
        for style in range(3)
        for answers in [[solve(worked, style, 0.5, rng).answer for _ in range(300)]]
    ]
    for style, answers in enumerate(wrong):
        own, times = answers.most_common(1)[0]
        assert int(own) == int(worked.answer) + OWN_SLIPS[style] and times > 0.6 * answers.total()


def test_steps_lead_to_the_box_in_every_solution_swayed_or_not():
    said = [
        m["content"] for kind, turns in corpus.shard(0, 0) if kind != "summary" for m in turns[1::2]
    ]
    ends = [re.search(r"=(-?\d+)[^=]*\\boxed\{(-?\d+)\}", text) for text in said]
    assert sum(map(bool, ends)) > 500 and all(end[1] == end[2] for end in ends if end)
    swayed = solve(WORKED, 0, towards=solve(WORKED, 1, 0.0, random.Random(0)))
    assert swayed.text == "2*3=6, 5*6=30, 1+6=7, 7+4=11, 11-30=-18. The answer is \\boxed{-18}."


def test_prompts_name_agents_as_unique_ids_do():
    asked = [turns[0]["content"] for kind, turns in corpus.shard(0, 0) if kind in ("direct", "critic")]
    named = [text for text in asked if re.match(r"Agent ID: GEN\d \(", text)]
    assert corpus.NAMED - 0.05 < len(named) / len(asked) < corpus.NAMED + 0.05


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


def test_finetuning_on_right_labels_raises_first_answers(tmp_path):
    """At the dose of `laptop`. With this seed by 10 points, with the five after it by 5 to 18."""
    config = load_config("laptop", runs_dir=str(tmp_path / "runs"), num_rounds=1, seed=11)
    backend = open_backend(config)

    def first_answers(model, split, num_agents=3):
        asked = study.problems("arithmetic", split, config)
        return run_debates(base_society(model, num_agents), asked, config, backend)

    base = Agent("generation-1", "generator", config.base_model)
    trained = finetune(base, right_responses(first_answers(base.model, "train", 1)), config)
    models = (base.model, str(trained))
    before, after = (scores(first_answers(model, "eval")).first_correct.mean() for model in models)
    assert after > before + 0.03


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
