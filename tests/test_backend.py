"""The transformers backend on the miniature model: right, independent of the batch, clear in errors."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

from maft_lib import estimation
from maft_lib.backends import (
    BackendError,
    Request,
    Sampling,
    decoding,
    generate,
    hub,
    models,
)
from maft_lib.backends.opening import CachedBackend
from maft_lib.backends.rendering import render_prompt
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.prompts import load_prompts
from maft_lib.store import Store
from maft_lib.tasks import load_problems


@pytest.fixture(scope="module")
def backend():
    return TransformersBackend(Config(device="cpu", num_workers=1))


@pytest.fixture
def without_numba(monkeypatch):
    """As where numba is not installed: all is decoded by transformers."""
    monkeypatch.setitem(sys.modules, "maft_lib.backends.cpu_decoding", None)


def requests(model, num=12, temperature=1.0, top_p=1.0, max_tokens=80):
    asked = []
    for i, task in enumerate(("arithmetic", "mini_gsm", "mini_mmlu")):
        for problem in load_problems(task, "eval", num // 3, max_operand=9):
            message = load_prompts().generation(problem)
            drawn = Sampling(temperature, top_p, max_tokens)
            asked.append(Request(model, (message,), drawn, seed=1000 * i + len(asked)))
    return asked


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (1.3, 0.9), (0.0, 1.0)])
def test_a_response_does_not_depend_on_its_batch(backend, model, temperature, top_p, without_numba):
    asked = requests(model, 12, temperature, top_p)
    together = generate(backend, asked)
    alone = [generate(backend, [request])[0] for request in asked[::3]]
    assert alone == together[::3]
    one_by_one = TransformersBackend(Config(device="cpu", num_workers=1, max_batch_size=5))
    assert generate(one_by_one, asked[::-1]) == together[::-1]


def test_an_uncertain_draw_is_settled_by_the_row_alone(model, monkeypatch, without_numba):
    """With every draw called uncertain, batches must still write what single rows write."""
    here = TransformersBackend(Config(device="cpu", num_workers=1))
    here.num_workers = 0  # in this process, where the patch is
    asked = requests(model, 6)
    expected = generate(here, asked)
    monkeypatch.setattr(decoding, "MARGIN", 1.0)
    assert generate(here, asked) == expected


def test_greedy_is_what_transformers_generates(backend, model):
    asked = requests(model, 6, temperature=0)
    tokenizer = hub.load_tokenizer(model)
    reference = AutoModelForCausalLM.from_pretrained(model).eval()
    for request, completion in zip(asked, generate(backend, asked)):
        prompt = render_prompt(tokenizer, request.messages)
        output = reference.generate(torch.tensor([prompt]), max_new_tokens=80, do_sample=False)
        assert completion.text == tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
        assert completion.num_prompt_tokens == len(prompt)
        assert completion.num_completion_tokens == output.shape[1] - len(prompt)
        assert completion.finish_reason == "stop"


@pytest.mark.parametrize("temperature, calls", [(0.0, 1), (1.0, 2)])
def test_what_seeds_cannot_change_is_generated_once(backend, model, tmp_path, temperature, calls):
    first = requests(model, 3, temperature)[0]
    cached = CachedBackend(backend, Store(tmp_path))
    answers = generate(cached, [first, replace(first, seed=first.seed + 1)])
    assert cached.num_calls == calls and len({a.text for a in answers}) <= calls


def test_seeds_make_responses_differ(backend, model):
    request = requests(model, 3)[1]
    drawn = [Request(request.model, request.messages, request.sampling, seed) for seed in range(8)]
    assert len({completion.text for completion in generate(backend, drawn)}) > 3


def test_a_response_that_is_cut_says_length(backend, model):
    completions = generate(backend, requests(model, 3, max_tokens=4))
    assert {(c.num_completion_tokens, c.finish_reason) for c in completions} == {(4, "length")}


def test_out_of_memory_halves_the_batch(model, monkeypatch, without_numba):
    sizes, written = [], decoding._written

    def tight(loaded, rows, *how):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return written(loaded, rows, *how)

    here = TransformersBackend(Config(device="cpu", num_workers=1))
    asked = requests(model, 6)
    expected = generate(here, asked)
    here.num_workers = 0  # in this process, where the patch is
    monkeypatch.setattr(decoding, "_written", tight)
    assert generate(here, asked) == expected
    assert sizes == [6, 3, 2, 1, 3, 2, 1]


def test_draws_follow_the_distribution():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20000, 1)
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, _ = decoding.draw(logits, 1.0, 1.0, uniform)
    shares = tokens.bincount(minlength=4) / 20000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)
    tokens, _ = decoding.draw(logits, 1.0, 0.75, uniform)  # 0.5 + 0.3 reach 0.75
    assert (tokens.bincount(minlength=4) / 20000).tolist() == pytest.approx(
        [5 / 8, 3 / 8, 0, 0], abs=0.015
    )
    tokens, _ = decoding.draw(logits, 0.0, 1.0, uniform)
    assert tokens.unique().tolist() == [0]


def test_draws_near_a_boundary_are_reported():
    logits = torch.tensor([[0.5, 0.5]]).log().repeat(3, 1)
    _, unsure = decoding.draw(logits, 1.0, 1.0, torch.tensor([0.25, 0.500001, 0.75]).double())
    assert unsure.tolist() == [False, True, False]
    _, unsure = decoding.draw(logits, 0.0, 1.0, torch.zeros(3))
    assert unsure.all()  # equally likely tokens: the last bits decide
    tied = torch.tensor([[0.4, 0.3, 0.3]]).log()
    _, unsure = decoding.draw(tied, 1.0, 0.5, torch.tensor([0.2]))
    assert unsure.item()  # either of two equal tokens could be cut


@pytest.fixture
def broken(model, tmp_path):
    return lambda: shutil.copytree(model, tmp_path / "model")


def test_a_model_that_does_not_exist(backend):
    for name in ("/nowhere/model", "nowhere"):
        with pytest.raises(BackendError, match=f"{name}.* cannot be fetched"):
            generate(backend, [Request(name, ({"role": "user", "content": "?"},), Sampling(), 0)])


def test_a_folder_that_is_no_model(backend, tmp_path):
    with pytest.raises(BackendError, match="no model directory"):
        hub.identity(str(tmp_path))


def test_a_model_without_a_chat_template(broken):
    folder = broken()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BackendError, match="has no chat template"):
        hub.load_tokenizer(str(folder))


def test_a_model_with_damaged_weights(broken):
    folder = broken()
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(BackendError, match="cannot be loaded"):
        models.load_model(str(folder), "float32", "cpu")


def test_pickled_weights_are_refused(broken):
    folder = broken()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match="can run code"):
        models.load_model(str(folder), "float32", "cpu")


SIZES = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(params=["plain", "composite"])
def small(request, model, tmp_path):
    """Makes a tiny model with a window of 64, also one whose text model lies within another."""

    def made(vocab_size=458, **changes):
        sizes = SIZES | {"vocab_size": vocab_size, "max_position_embeddings": 64}
        torch.manual_seed(0)
        if request.param == "plain":
            LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path)
        else:
            text = sizes | {"head_dim": 16, "num_key_value_heads": 1, "sliding_window": 8}
            eye = SIZES | {"image_size": 16, "patch_size": 8}
            config = Gemma3Config(text_config=text, vision_config=eye, mm_tokens_per_image=4)
            Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
        for name, value in changes.items():
            settings = json.loads((tmp_path / "config.json").read_text())
            settings.get("text_config", settings)[name] = value
            (tmp_path / "config.json").write_text(json.dumps(settings))
        tokenizer = hub.load_tokenizer.__wrapped__(model)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})  # its id is 458
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return made


def ask(model, texts, max_tokens=8):
    here = TransformersBackend(Config(device="cpu", num_workers=1))
    here.num_workers = 0
    drawn = Sampling(1.0, 1.0, max_tokens)
    asked = [Request(model, ({"role": "user", "content": t},), drawn, i) for i, t in enumerate(texts)]
    return generate(here, asked)


@pytest.mark.parametrize("pad", [0, -1, None])
def test_padding_takes_no_part(small, pad):
    texts, folder = ["1+1?", "What is 1+2*3?", "?"], small(pad_token_id=pad)
    assert ask(folder, texts)[0] == ask(folder, texts[:1])[0]


def test_the_context_window_is_kept(small, scorer):
    folder = small()
    (completion,) = ask(folder, ["1+1?"], 500)
    assert completion.num_prompt_tokens + completion.num_completion_tokens <= 64
    with pytest.raises(BackendError, match="does not fit the 64"):
        ask(folder, ["1+1=" * 40])
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "1+1=" * 40}]
    for score in (
        lambda: scorer.log_likelihoods([folder], [turns]),
        lambda: scorer.embeddings(folder, ["1+" * 99]),
    ):
        with pytest.raises(BackendError, match="does not fit the 64"):
            score()


def test_a_token_without_an_embedding_is_refused_where_a_prompt_holds_it(small, scorer):
    folder = small()
    assert len(ask(folder, ["1+1?"])) == 1
    with pytest.raises(BackendError, match="a text holds '<image>'"):
        ask(folder, ["1+1?", "What is in <image>?"])
    turns = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "1+1"}]
    with pytest.raises(BackendError, match="a text holds '<image>'"):
        scorer.log_likelihoods([folder], [turns])


def test_copies_of_the_weights_do_not_count(small, tmp_path, monkeypatch):
    folder, asked = small(), {}
    before = hub.identity(folder), estimation.model_shape(folder)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "consolidated.safetensors")
    assert (hub.identity(folder), estimation.model_shape(folder)) == before
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **how: asked.update(how) or folder
    )
    hub.model_folder(f"some/{tmp_path.name}")
    wanted = ["config.json", "model-00001-of-00002.safetensors", "2_Dense/model.safetensors"]
    copies = [
        "consolidated-00001-of-00002.safetensors",
        "original/model.safetensors",
        "onnx/config.json",
    ]
    assert list(filter_repo_objects(wanted + copies, **asked)) == wanted


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(BackendError, match="device is cuda"):
        TransformersBackend(Config(device="cuda"))
