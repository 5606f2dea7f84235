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
    "no config.json": ({"config.json": None}, ["no model directory", "no config.json"]),
    "an empty config.json": ({"config.json": b""}, ["config.json is no JSON object", "copy"]),
    "half a config.json": ({"config.json": half}, ["config.json is no JSON object"]),
    "a list in config.json": ({"config.json": b"[]"}, ["config.json is no JSON object"]),
    "config.json in UTF-16": ({"config.json": "{}".encode("utf-16")}, ["config.json is no JSON"]),
    "a folder config.json": ({"config.json": FOLDER}, ["config.json is no JSON object"]),
    "deep config.json": ({"config.json": b'{"a": ' + b"[" * 100_000}, ["config.json is no JSON"]),
    "no architecture": ({"config.json": b"{}"}, ["cannot be loaded", "model_type"]),
    "unknown architecture": ({"config.json": {"model_type": "lama"}}, ["cannot be loaded", "lama"]),
    "an encoder-decoder": ({"config.json": {"model_type": "t5"}}, ["cannot be loaded"]),
    "another architecture": ({"config.json": {"model_type": "gpt2"}}, ["cannot be loaded", "lack"]),
    "words for numbers": (
        {"config.json": {"hidden_size": "wide"}},
        ["cannot be loaded", "hidden_size"],
    ),
    "no heads": ({"config.json": {"num_attention_heads": 0}}, ["cannot be loaded"]),
    "unknown activation": ({"config.json": {"hidden_act": "relux"}}, ["cannot be loaded", "relux"]),
    "wider than its weights": ({"config.json": {"hidden_size": 256}}, ["of shape", "256"]),
    "more layers than weights": (
        {"config.json": {"num_hidden_layers": 5}},
        ["weights lack model.layers.4.", "copy or download"],
    ),
    "fewer layers than weights": (
        {"config.json": {"num_hidden_layers": 3}},
        ["weights have model.layers.3.", "config.json does not"],
    ),
    "a smaller vocabulary": ({"config.json": {"vocab_size": 100}}, ["tokens, but its model 100"]),
    "a larger vocabulary": ({"config.json": {"vocab_size": 500}}, ["(448, 128)", "(500, 128)"]),
    "a broken generation_config.json": (
        {"generation_config.json": half},
        ["generation_config.json is no JSON object"],
    ),
    "no weights": ({WEIGHTS: None}, ["no .safetensors file"]),
    "pickled weights": ({WEIGHTS: "pytorch_model.bin"}, ["can run code", "refused"]),
    "cut weights": ({WEIGHTS: half}, ["cannot be loaded", "copy or download"]),
    "empty weights": ({WEIGHTS: b""}, ["cannot be loaded"]),
    "zeros for weights": ({WEIGHTS: b"\0" * 100}, ["cannot be loaded"]),
    "a page of HTML for weights": ({WEIGHTS: b"<html>404</html>"}, ["cannot be loaded"]),
    "a pointer for weights": (
        {WEIGHTS: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"},
        ["cannot be loaded"],
    ),
    "a folder for weights": ({WEIGHTS: FOLDER}, ["cannot be read", "copy or download"]),
    "a missing tensor": ({WEIGHTS: without(NORM)}, [f"weights lack {NORM}, one of 1"]),
    "no tensor": ({WEIGHTS: lambda data: save({}, PT)}, ["weights lack"]),
    "a tensor of another shape": ({WEIGHTS: cut(NORM, 64)}, [NORM, "(64,)", "(128,)"]),
    "weights that are no numbers": ({WEIGHTS: with_nan(NORM)}, [f"NaN or inf in {NORM}"]),
    "a shard that is not there": (
        {
            WEIGHTS: "model-00001-of-00002.safetensors",
            "model.safetensors.index.json": b'{"weight_map": {"a": "other.safetensors"}}',
        },
        ["cannot be loaded"],
    ),
    "no tokenizer": (
        {"tokenizer.json": None, "tokenizer_config.json": None},
        ["has no tokenizer.json", "copy or download"],
    ),
    "no tokenizer.json": ({"tokenizer.json": None}, ["has no tokenizer.json"]),
    "half a tokenizer": ({"tokenizer.json": half}, ["the tokenizer of", "cannot be loaded"]),
    "an empty tokenizer": ({"tokenizer.json": b"{}"}, ["the tokenizer of", "cannot be loaded"]),
    "a broken tokenizer_config.json": (
        {"tokenizer_config.json": half},
        ["tokenizer_config.json is no JSON object"],
    ),
    "an unknown tokenizer": (
        {"tokenizer_config.json": {"tokenizer_class": "NoTokenizer"}, "tokenizer.json": None},
        ["the tokenizer of", "cannot be loaded"],
    ),
    "no end-of-sequence token": (
        {"tokenizer_config.json": {"eos_token": None}},
        ["no end-of-sequence token", "set `eos_token`"],
    ),
    "no chat template": ({"chat_template.jinja": None}, ["no chat template", "instruction-tuned"]),
    "an empty chat template": ({"chat_template.jinja": b""}, ["no chat template"]),
    "a broken chat template": (
        {"chat_template.jinja": b"{% for m in messages %}"},
        ["chat template", "fails", "mend it"],
    ),
    "a chat template that refuses": (
        {"chat_template.jinja": b"{{ raise_exception('no users here') }}"},
        ["chat template", "no users here"],
    ),
    "a chat template that reads files": (
        {"chat_template.jinja": b"{{ messages.__class__.__base__.__subclasses__() }}"},
        ["chat template", "fails"],
    ),
    "a chat template that says nothing": (
        {"chat_template.jinja": b"Hello."},
        ["chat template", "leaves out"],
    ),
}

# The same with the folder of an adapter
BASE, SETTINGS = "base.json", "adapter_config.json"
QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
ADAPTERS = {
    "no base.json": ({BASE: None}, ["does not say whose it is", "base.json"]),
    "half a base.json": ({BASE: half}, ["base.json is no JSON object"]),
    "a base.json that says nothing": ({BASE: b"{}"}, ["cannot be read", "identity"]),
    "a base that is gone": ({BASE: {"folder": "../gone"}}, ["needs its base model", "gone"]),
    "a base that is no model": ({BASE: {"folder": ".."}}, ["no model directory"]),
    "another base": ({BASE: {"identity": "0" * 64}}, ["belongs to another model"]),
    "half the settings": ({SETTINGS: half}, ["adapter_config.json is no JSON object"]),
    "an unknown kind": ({SETTINGS: {"peft_type": "LORAX"}}, ["cannot be loaded", "LORAX"]),
    "another rank": ({SETTINGS: {"r": 8}}, ["cannot be loaded"]),
    "a pickled adapter": ({ADAPTER_WEIGHTS: "adapter_model.bin"}, ["no .safetensors file"]),
    "half an adapter": ({ADAPTER_WEIGHTS: half}, ["cannot be loaded"]),
    "an adapter without a tensor": ({ADAPTER_WEIGHTS: without(QUERY)}, ["missing adapter keys"]),
}

# Names that lead to no model
NAMES = {
    "no such folder": ("/nowhere/model", ["'/nowhere/model' does not exist", "model directory"]),
    "no such name": ("nowhere", ["'nowhere' does not exist", "Hugging Face hub"]),
    "no such home": ("~nobody-here/model", ["cannot be fetched", "check the name"]),
    "no name of the hub": ("a b/c", ["'a b/c' is no directory here", "check the name"]),
    "three parts": ("a/b/c", ["'a/b/c' does not exist"]),
    "a file": (__file__, ["is a file", "name the folder"]),
    "any folder": ("/", ["/ is no model directory"]),
    "nothing": ("", ["no model directory"]),
    "an endless name": ("x" * 5000, ["does not exist"]),
    "a null character": ("a\0b", ["does not exist"]),
}
