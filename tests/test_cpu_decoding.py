"""Decoding by the CPU kernel: the texts of transformers, whatever is computed beside them."""

import json
import shutil
import signal
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import maft_lib as maft
from maft_lib.backends import (
    BackendError,
    Request,
    Sampling,
    cpu_decoding,
    cpu_kernel,
    generate,
    hub,
    models,
)
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.prompts import load_prompts
from maft_lib.society import base_society
from maft_lib.tasks import load_problems

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 458}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
MODELS = {
    "tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "scaled": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "bias": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "wide heads": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=32, sliding_window=None)),
}


@pytest.fixture
def backend():
    """In this process, with a memory of its own."""
    cpu_decoding.remembered.clear()
    backend = TransformersBackend(Config(device="cpu", num_workers=1))
    backend.num_workers = 0
    return backend


@pytest.fixture
def without_numba(monkeypatch):
    """As where numba is not installed."""
    return lambda: monkeypatch.setitem(sys.modules, "maft_lib.backends.cpu_decoding", None)


def write(folder, kind, config):
    """A random model, biases too, with the miniature model's tokenizer."""
    torch.manual_seed(0)
    model = kind(config)
    for weights in model.parameters():
        if weights.ndim == 1:
            weights.data += 0.1 * torch.randn_like(weights)
    model.save_pretrained(folder)
    return model.eval()


def read(folder):
    """The kernel of a model."""
    model = hub.Model(str(folder), str(folder), "float32", "cpu")
    return cpu_decoding.kernels([model], 0)[model]


def logits_of(weights, texts, sizes):
    """The last logits of each text, read in turns of `sizes` tokens of each that is not at its end."""
    decoder = cpu_decoding.Decoder("", weights, len(texts), 64)
    done, last = [0] * len(texts), {}
    for size in sizes:
        rows = [
            (token, slot, position)
            for slot, text in enumerate(texts)
            for position, token in enumerate(text)
            if done[slot] <= position < done[slot] + size
        ]
        ends = [i for i, (_, slot, position) in enumerate(rows) if position == len(texts[slot]) - 1]
        done = [n + size for n in done]
        arrays = np.array(rows, np.int32), np.array(ends, np.int32)
        found = cpu_kernel.forward(weights, decoder.keys, decoder.values, *arrays)
        last |= {rows[i][1]: logits for i, logits in zip(ends, found)}
    return last


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers_and_do_not_depend_on_what_is_beside(tmp_path, name):
    model = write(tmp_path, *MODELS[name])
    weights = read(tmp_path).weights
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 458, length).tolist() for length in (1, 40, 17, 33, 40, 2, 25)]
    together = logits_of(weights, texts, [11, 1, 1, 20, 9])
    for slot, text in enumerate(texts):
        with torch.inference_mode():
            expected = model(torch.tensor([text])).logits[0, -1].numpy()
        np.testing.assert_allclose(together[slot][:458], expected, atol=2e-5)
        alone = logits_of(weights, [text], [64])[0]
        assert (alone == together[slot]).all()


LINEAR = {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    "kind, said",
    [
        ("tied", {"rope_scaling": LINEAR}),  # beside rope_parameters
        ("tied", {"rope_parameters": {"type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
        ("tied", {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": LINEAR}),
        ("scaled", {"original_max_position_embeddings": 16}),
        ("scaled", {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": None}}),
        ("tied", {"rope_parameters": {**LINEAR, "rope_theta": 1e4, "factor": 0}}),
        ("tied", {"rope_parameters": {**LINEAR, "rope_theta": 1e4, "factor": "4"}}),
        ("tied", {"rms_norm_eps": None}),
        ("tied", {"is_causal": False}),
        ("wide heads", {"use_sliding_window": False, "sliding_window": 8}),
        ("wide heads", {"use_sliding_window": True}),
        ("bias", {"use_sliding_window": False, "sliding_window": 8}),
    ],
)
def test_a_config_means_what_it_means_to_transformers(tmp_path, kind, said):
    """Or the kernel leaves it to transformers, which may refuse it."""
    write(tmp_path, *MODELS[kind])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    if not (kernel := read(tmp_path)):
        return
    text = list(range(3, 43))
    with torch.inference_mode():
        loaded = models.load_model(str(tmp_path), "float32", "cpu")
        expected = loaded(torch.tensor([text])).logits[0, -1].numpy()
    np.testing.assert_allclose(logits_of(kernel.weights, [text], [64])[0][:458], expected, atol=2e-5)


def test_weights_may_be_in_several_files_and_in_half_precision(tmp_path):
    model = write(tmp_path / "one", *MODELS["scaled"]).bfloat16()
    model.save_pretrained(tmp_path / "many", max_shard_size="50KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    found = read(tmp_path / "many").weights
    model.float().save_pretrained(tmp_path / "one")
    for part, same in zip(found, read(tmp_path / "one").weights):
        np.testing.assert_array_equal(part, same)


@pytest.mark.parametrize("broken", ["missing", "nan"])
def test_broken_weights_are_refused_as_by_transformers(model, backend, tmp_path, broken):
    folder = tmp_path / "broken"
    shutil.copytree(hub.model_folder(model), folder)
    weights = load_file(folder / "model.safetensors")
    if broken == "nan":
        weights["model.norm.weight"][0] = np.nan
    else:
        del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match="missing: model.norm|NaN or inf in model.norm"):
        generate(backend, asked(str(folder), 1))


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (1.2, 0.8), (0.0, 1.0)])
def test_debates_say_what_they_say_by_transformers(
    backend, config, without_numba, monkeypatch, temperature, top_p
):
    """First answers, summaries and critics."""
    config = config.replace(temperature=temperature, top_p=top_p, max_tokens=60)
    society = base_society(config.base_model, 3)
    problems = [p for task in ("arithmetic", "mini_gsm") for p in load_problems(task, "eval", 3)]
    by_kernel = maft.run_debates(society, problems, config, backend)
    assert backend.num_workers == 0 and cpu_decoding.remembered._texts
    without_numba()
    monkeypatch.setattr(cpu_decoding, "forward", None)  # nor is it used
    assert maft.run_debates(society, problems, config, backend) == by_kernel


def asked(model, num, temperature=1.0, max_tokens=60):
    prompts = load_prompts()
    drawn = Sampling(temperature, 1.0, max_tokens)
    problems = load_problems("arithmetic", "eval", num, max_operand=9)
    return [
        Request(model, (prompts.generation(problem),), drawn, seed)
        for seed, problem in enumerate(problems)
    ]


def test_more_texts_than_slots_say_the_same(backend, model, monkeypatch):
    requests = asked(model, 12)
    expected = generate(backend, requests)
    for slots, workers in ((5, 2), (1, 1)):
        few = TransformersBackend(Config(device="cpu", num_workers=workers, max_batch_size=slots))
        cpu_decoding.remembered.clear()
        assert generate(few, requests[::-1]) == expected[::-1]
    monkeypatch.setattr(cpu_decoding, "READ", 3)
    cpu_decoding.remembered.clear()
    assert generate(backend, requests) == expected
    monkeypatch.setattr(cpu_decoding, "KEPT", 10**5)  # room for one text or none
    assert generate(backend, requests) == expected


def test_what_was_read_is_not_read_again(backend, model, monkeypatch):
    """Equal prompts, and a conversation that goes on."""
    num_rows, forward = [], cpu_decoding.forward

    def counting(weights, keys, values, rows, wanted):
        num_rows.append(len(rows))
        return forward(weights, keys, values, rows, wanted)

    counting.signatures = forward.signatures
    monkeypatch.setattr(cpu_decoding, "forward", counting)
    request = asked(model, 1)[0]
    same = [replace(request, seed=seed) for seed in range(6)]
    completions = generate(backend, same)
    written = sum(c.num_completion_tokens for c in completions)
    assert sum(num_rows) == completions[0].num_prompt_tokens - 1 + written
    said = {"role": "assistant", "content": completions[0].text}
    more = replace(request, messages=(*request.messages, said, *request.messages))
    num_rows.clear()
    critic = generate(backend, [more])[0]
    new = critic.num_prompt_tokens - completions[0].num_prompt_tokens
    assert sum(num_rows) <= new - completions[0].num_completion_tokens + critic.num_completion_tokens


@pytest.mark.parametrize(
    "kind, settings",
    [
        (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=8)),
        (LlamaForCausalLM, LlamaConfig(**SIZES, mlp_bias=True)),
        (LlamaForCausalLM, LlamaConfig(**SIZES | {"intermediate_size": 90})),
        (LlamaForCausalLM, LlamaConfig(**SIZES, hidden_act="gelu")),
    ],
)
def test_what_the_kernel_does_not_know_is_answered_by_transformers(
    backend, model, tmp_path, without_numba, kind, settings
):
    write(tmp_path, kind, settings)
    hub.load_tokenizer(model).save_pretrained(tmp_path)
    assert read(tmp_path) is None
    requests = [*asked(str(tmp_path), 2, max_tokens=5), *asked(model, 2)]
    mixed = generate(backend, requests)
    without_numba()
    assert generate(backend, requests) == mixed


def test_an_interrupt_ends_the_threads(model):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    backend, num_threads = (
        TransformersBackend(Config(device="cpu", num_workers=2)),
        threading.active_count(),
    )
    generate(backend, asked(model, 1))
    heard = []

    def press(index, text):
        heard.append(text)
        if len(heard) == 20:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            generate(backend, asked(model, 12), press)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) == 20
    assert threading.active_count() <= num_threads + 3  # those of the workers' pool stay
    assert not [t for t in threading.enumerate() if "stream_threads" in str(t)]
