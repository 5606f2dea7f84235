"""Strangers' models: their code, their pickles and their templates do nothing."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers.dynamic_module_utils

from maft_lib.backends import BackendError, Request, Sampling, generate, hub, models, vllm
from maft_lib.backends.rendering import prompt_text
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.setup_cell import notebook_config
from maft_lib.store.files import ADAPTER, BASE, model_identity
from maft_lib.training import trainer
from maft_lib.training.finetuning import hyper_parameters
from tests.hostile_answers import HOSTILE

ASKED = ({"role": "user", "content": "What is the result of 1+2*3+4-5*1?"},)
CODE = """
import os
os.mkdir({mark!r})
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MODEL = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}


@pytest.fixture
def mark(tmp_path):
    """A folder that appears when a stranger's code has run."""
    return tmp_path / "it_ran"


@pytest.fixture
def folder(model, tmp_path):
    """A copy of the shipped model, to be spoiled."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def load(scorer, examples, agent, config, tmp_path, monkeypatch):
    """Every way that a model's folder is loaded, by name."""
    monkeypatch.setattr(vllm, "_version", lambda: "vllm 0")
    settings = hyper_parameters(agent, config)

    def generation(name, trust=False):
        backend = TransformersBackend(Config(device="cpu", trust_remote_code=trust))
        backend.num_workers = 0
        return generate(backend, [Request(name, ASKED, Sampling(max_tokens=8), 0)])

    def train(name, **changes):
        trainer.train(name, examples[:2], settings | changes, "cpu", tmp_path / "trained")

    answered = [[*ASKED, {"role": "assistant", "content": "\\boxed{6}"}]]
    return {
        "generation": generation,
        "likelihoods": lambda name: scorer.log_likelihoods([name], answered),
        "divergences": lambda name: scorer.divergences(name, [list(ASKED)], [["6", "7"]]),
        "embeddings": lambda name: scorer.embeddings(name, ["6"]),
        "training": train,
        "training of an adapter": lambda name: train(name, lora_rank=2),
        "vllm": lambda name: vllm.VLLMBackend(Config(model_name_or_path=name)),
        "adapters of vllm": hub.check_weights,
        "weights": lambda name: models.load_model(name, "float32", "cpu"),
    }


WAYS = (
    *("generation", "likelihoods", "divergences", "embeddings", "training", "training of an adapter"),
    "weights",
)


def refused(load, mark, match):
    with pytest.raises(BackendError, match=match) as caught:
        load()
    assert "\n" not in str(caught.value) and not mark.exists()


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# Code of their own


def with_code(folder, mark, tokenizer=False):
    """The model as one whose classes are in a file beside it."""
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    if tokenizer:
        own = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
        change(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=own)
    else:
        change(folder / "config.json", model_type="own", auto_map=MODEL)
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tokenizer", [False, True], ids=["model", "tokenizer"])
def test_a_models_own_code_is_refused(load, way, folder, mark, tokenizer):
    with_code(folder, mark, tokenizer)
    if tokenizer and way == "weights":
        load[way](str(folder))  # which needs no tokenizer
        assert not mark.exists()
        return
    refused(lambda: load[way](str(folder)), mark, "custom code.*set trust_remote_code: true")


def test_the_base_of_an_adapter_is_no_way_in(folder, mark, tmp_path, load):
    with_code(folder, mark)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / name, adapter)
    (adapter / "config.json").write_text('{"model_type": "llama"}')
    (adapter / ADAPTER).write_text('{"r": 2, "peft_type": "LORA"}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    named = {"folder": "../model", "identity": model_identity(folder)}
    (adapter / BASE).write_text(json.dumps(named))
    for way in ("weights", "training of an adapter"):
        refused(lambda way=way: load[way](str(adapter)), mark, "custom code")


def test_code_runs_where_it_is_trusted(folder, mark, load, model, monkeypatch, tmp_path):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "code"))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    expected = load["generation"](model)
    assert load["generation"](str(with_code(folder, mark)), trust=True) == expected and mark.exists()


def test_code_that_nothing_needs_is_left_alone(folder, mark, load, model):
    """Phi-3 brings its authors' code along, and transformers knows it by itself."""
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    change(folder / "config.json", auto_map=MODEL)
    assert load["generation"](str(folder)) == load["generation"](model) and not mark.exists()


def test_keys_tell_whose_code_ran(folder, mark, model):
    assert hub.identity(model, trust=True) == hub.identity(model)
    with_code(folder, mark)
    trusted = hub.identity(str(folder), trust=True)
    assert trusted != hub.identity(str(folder))
    (folder / "own.py").write_text("# other code")
    assert trusted != hub.identity(str(folder), trust=True)


def test_vllm_is_told(monkeypatch):
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    chosen = vllm.arguments(Config(trust_remote_code=True), 0)
    assert chosen["trust_remote_code"] is True and chosen["load_format"] == "safetensors"


@pytest.mark.parametrize("trust", [False, True])
def test_a_notebook_says_that_code_will_run(trust, monkeypatch, capsys, tmp_path):
    given = {"profile": "smoke", "runs_dir": str(tmp_path), "encoder": "some/encoder"}
    assert notebook_config({**given, "trust_remote_code": trust}).trust_remote_code is trust
    line = "code that comes with maft_lib/miniature/model, some/encoder will be run"
    assert (line in capsys.readouterr().out) is trust


def encoder(folder, kind, path=""):
    (folder / "modules.json").write_text(json.dumps([{"type": kind, "path": path}]))
    return str(folder)


def test_an_encoder_may_not_name_its_own_classes(folder, mark, load, tmp_path):
    with_code(folder, mark)
    (folder / "config.json").write_text("{}")
    own = encoder(folder, "own.OwnModel")
    refused(
        lambda: load["embeddings"](own), mark, "'own.OwnModel', which is custom code.*trust_remote_code"
    )
    own = encoder(folder, "sentence_transformers.models.Dense", "../..")
    refused(lambda: load["embeddings"](own), mark, "'../..', which lies outside")


# Pickles


class Pickled:
    """What creates a folder while it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture
def trap(mark, tmp_path):
    """A file that makes `mark` when it is unpickled; tried out, and not sprung."""
    path = tmp_path / "trap.bin"
    path.write_bytes(pickle.dumps(Pickled(mark)))
    with pytest.raises(Exception):  # noqa: B017  whatever comes after the damage is done
        torch.load(path, weights_only=False)
    mark.rmdir()
    return path


@pytest.mark.parametrize("way", [*WAYS, "vllm"])
def test_pickled_weights_are_refused(load, way, folder, mark, trap):
    (folder / "model.safetensors").unlink()
    shutil.copy(trap, folder / "pytorch_model.bin")
    refused(lambda: load[way](str(folder)), mark, r"safetensors")


@pytest.mark.parametrize("beside", [None, "other.safetensors"])
@pytest.mark.parametrize(
    "way", ["generation", "likelihoods", "training of an adapter", "adapters of vllm", "weights"]
)
def test_pickled_adapters_are_refused(load, way, folder, mark, trap, model, beside):
    """Also beside a file that only looks as if weights were there."""
    (folder / "model.safetensors").unlink()
    shutil.copy(trap, folder / "adapter_model.bin")
    (folder / ADAPTER).write_text('{"r": 2, "peft_type": "LORA", "target_modules": "all-linear"}')
    named = {"folder": os.path.relpath(model, folder), "identity": model_identity(model)}
    (folder / BASE).write_text(json.dumps(named))
    if beside:
        (folder / beside).write_bytes(b"")
    refused(lambda: load[way](str(folder)), mark, "has no .safetensors file.*can run code")


def test_a_pickle_inside_an_encoder_is_refused(load, folder, mark, trap):
    (folder / "1_Dense").mkdir()
    (folder / "1_Dense" / "config.json").write_text('{"in_features": 4, "out_features": 4}')
    shutil.copy(trap, folder / "1_Dense" / "pytorch_model.bin")
    made = encoder(folder, "sentence_transformers.models.Dense", "1_Dense")
    refused(lambda: load["embeddings"](made), mark, "1_Dense has no .safetensors file")


# Chat templates


ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('it_ran') }}",
    "{{ lipsum.__globals__['os'].mkdir('it_ran') }}",
    "{{ raise_exception('a\nb') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{% set _ = messages.append(1) %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.mkdir('it_ran') }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% if %}",
    "{{ 1 / 0 }}",
    *(text for name, text in HOSTILE.items() if name.startswith("jinja_config")),
)


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_cannot_escape(folder, template, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = hub.load_tokenizer(str(folder))
    with pytest.raises(BackendError, match="the chat template of .* cannot be rendered") as caught:
        prompt_text(tokenizer, list(ASKED))
    assert "\n" not in str(caught.value) and os.listdir(tmp_path / "cwd") == []


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception.__globals__ }}",
        "{{ (messages[0].content.format).__self__.__class__ }}",
        "{{ messages|map(attribute='__class__')|list|first }}{{ messages.__class__ }}",
    ],
)
def test_what_a_template_must_not_see_is_not_there(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    assert prompt_text(hub.load_tokenizer(str(folder), chat=False), list(ASKED)) == ""


def test_what_is_said_is_no_template(model):
    tokenizer = hub.load_tokenizer(model)
    said = "{{ 7*7 }}{% for x in range(9) %}{{ cycler }}{% endfor %}"
    assert said in prompt_text(tokenizer, [{"role": "user", "content": said}])
