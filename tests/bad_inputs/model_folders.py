"""Bad model folders: what is changed in a copy of the shipped model, or of an adapter of it."""

import json

import numpy as np
from safetensors.numpy import load, save

WEIGHTS, PT = "model.safetensors", {"format": "pt"}
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def half(data):
    """A file that was cut short."""
    return data[: len(data) // 2]


def without(*names):
    """Weights that lack some tensors."""
    return lambda data: save({n: w for n, w in load(data).items() if n not in names}, PT)


def with_nan(name):
    """Weights with one number that is none."""

    def changed(data):
        weights = load(data)
        weights[name] = weights[name].copy()
        weights[name].flat[7] = np.nan
        return save(weights, PT)

    return changed


def cut(name, num):
    """Weights of which one tensor has lost rows."""
    return lambda data: save({n: w[:num] if n == name else w for n, w in load(data).items()}, PT)


def merged(data, changes):
    """The text of a JSON file with other values."""
    return json.dumps(json.loads(data) | changes)


# What is done to files: None removes one, bytes are its content, a dict is merged into its JSON, a
# function turns its content into another, a name moves it; `FOLDER` puts a folder in its place.
FOLDER = object()
NORM = "model.layers.2.input_layernorm.weight"
ROWS = {
    "no config.json": ({"config.json": None}, ["no config.json"]),
    "half a config.json": ({"config.json": half}, ["cannot be", "copy"]),
    "a list in config.json": ({"config.json": b"[]"}, ["cannot be loaded"]),
    "no architecture": ({"config.json": b"{}"}, ["cannot be loaded", "model_type"]),
    "unknown architecture": ({"config.json": {"model_type": "lama"}}, ["cannot be loaded", "lama"]),
    "an encoder-decoder": ({"config.json": {"model_type": "t5"}}, ["cannot be loaded"]),
    "another architecture": ({"config.json": {"model_type": "gpt2"}}, ["cannot be loaded", "missing"]),
    "words for numbers": ({"config.json": {"hidden_size": "wide"}}, ["hidden_size"]),
    "no heads": ({"config.json": {"num_attention_heads": 0}}, ["cannot be loaded"]),
    "wider than its weights": ({"config.json": {"hidden_size": 256}}, ["mismatched", "256"]),
    "more layers than weights": ({"config.json": {"num_hidden_layers": 5}}, ["model.layers.4."]),
    "a larger vocabulary": ({"config.json": {"vocab_size": 500}}, ["458, 128", "500, 128"]),
    "no weights": ({WEIGHTS: None}, ["no .safetensors file"]),
    "pickled weights": ({WEIGHTS: "pytorch_model.bin"}, ["can run code", "refused"]),
    "cut weights": ({WEIGHTS: half}, ["cannot be loaded", "copy or download"]),
    "empty weights": ({WEIGHTS: b""}, ["cannot be loaded"]),
    "a page of HTML for weights": ({WEIGHTS: b"<html>404</html>"}, ["cannot be loaded"]),
    "a pointer for weights": (
        {WEIGHTS: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"},
        ["cannot be loaded"],
    ),
    "a missing tensor": ({WEIGHTS: without(NORM)}, [NORM]),
    "no tensor": ({WEIGHTS: lambda data: save({}, PT)}, ["missing"]),
    "a tensor of another shape": ({WEIGHTS: cut(NORM, 64)}, [NORM, "64", "128"]),
    "weights that are not numbers": ({WEIGHTS: with_nan(NORM)}, [f"NaN or inf in {NORM}"]),
    "a shard that is missing": (
        {
            WEIGHTS: "model-00001-of-00002.safetensors",
            "model.safetensors.index.json": b'{"weight_map": {"a": "other.safetensors"}}',
        },
        ["cannot be loaded"],
    ),
    "no tokenizer": (
        {"tokenizer.json": None, "tokenizer_config.json": None},
        ["the tokenizer of", "copy or download"],
    ),
    "half a tokenizer": ({"tokenizer.json": half}, ["the tokenizer of", "cannot be loaded"]),
    "a broken tokenizer_config.json": ({"tokenizer_config.json": half}, ["the tokenizer of"]),
    "no end-of-sequence token": (
        {"tokenizer_config.json": {"eos_token": None}},
        ["no end-of-sequence token"],
    ),
    "no chat template": ({"chat_template.jinja": None}, ["no chat template"]),
    "an empty chat template": ({"chat_template.jinja": b""}, ["no chat template"]),
    "a broken chat template": (
        {"chat_template.jinja": b"{% for m in messages %}"},
        ["chat template"],
    ),
    "a chat template that refuses": (
        {"chat_template.jinja": b"{{ raise_exception('no users here') }}"},
        ["chat template", "no users here"],
    ),
}

# The same with the folder of an adapter
BASE, SETTINGS = "base.json", "adapter_config.json"
QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
ADAPTERS = {
    "no base.json": ({BASE: None}, ["adapter", "base.json"]),
    "half a base.json": ({BASE: half}, ["adapter"]),
    "a base.json that says nothing": ({BASE: b"{}"}, ["cannot be loaded", "identity"]),
    "a base that is missing": ({BASE: {"folder": "../gone"}}, ["gone"]),
    "a base that is not a model": ({BASE: {"folder": ".."}}, ["no config.json"]),
    "another base": ({BASE: {"identity": "0" * 64}}, ["belongs to another model"]),
    "half the settings": ({SETTINGS: half}, ["adapter"]),
    "an unknown kind": ({SETTINGS: {"peft_type": "LORAX"}}, ["cannot be loaded", "LORAX"]),
    "another rank": ({SETTINGS: {"r": 8}}, ["cannot be loaded"]),
    "a pickled adapter": ({ADAPTER_WEIGHTS: "adapter_model.bin"}, ["no .safetensors file"]),
    "half an adapter": ({ADAPTER_WEIGHTS: half}, ["cannot be loaded"]),
    "an adapter without a tensor": ({ADAPTER_WEIGHTS: without(QUERY)}, ["missing adapter keys"]),
}

# Names that lead to no model
NAMES = {
    "no such folder": ("/nowhere/model", ["'/nowhere/model'", "cannot be fetched"]),
    "no such name": ("nowhere", ["'nowhere'", "Hugging Face hub"]),
    "three parts": ("a/b/c", ["'a/b/c'"]),
    "a file": (__file__, ["model_folders.py"]),
    "any folder": ("/", ["no config.json"]),
    "an endless name": ("x" * 5000, ["cannot be fetched"]),
}
