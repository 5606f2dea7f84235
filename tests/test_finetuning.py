"""Finetuning one agent: the weights move, the identity follows the content, nothing is done twice."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maft_lib.backends import BackendError
from maft_lib.backends.hub import identity
from maft_lib.backends.models import load_model
from maft_lib.society import Agent
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.training.finetuning import finetune, finetune_all
from tests.conftest import TURNS


@pytest.fixture
def config(config):
    return config.replace(num_workers=1)


def test_a_finetuned_model_is_another_model(agent, examples, config, scorer):
    folder = finetune(agent, examples, config)
    assert identity(str(folder)) != identity(agent.model)
    before, after = (
        load_file(f"{agent.model}/model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    base, trained = scorer.log_likelihoods([agent.model, str(folder)], [TURNS, TURNS])
    assert sum(trained) > sum(base) + 1  # it has learned what it was shown


def test_nothing_is_trained_twice_and_what_differs_is_trained_anew(agent, examples, config):
    first = finetune(agent, examples, config)
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert finetune(agent, examples, config) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    others = [
        finetune(agent, examples[:8], config),
        finetune(agent, examples, config.replace(learning_rate=2.0e-4)),
        finetune(agent, examples, config.replace(seed=1)),
        finetune(Agent("critic-1", "critic", agent.model), examples, config),
    ]
    assert len({first, *others}) == 5


def test_the_same_training_gives_the_same_bytes(agent, examples, config, tmp_path):
    first = finetune(agent, examples, config)
    again = finetune(agent, examples, config.replace(runs_dir=str(tmp_path / "elsewhere")))
    assert first != again and identity(str(first)) == identity(str(again))


def test_roles_have_their_own_settings(agent, examples, config):
    slow = config.replace(critic_learning_rate=1.0e-6, critic_num_train_epochs=3)
    critic = Agent("critic-1", "critic", agent.model)
    log = json.loads((finetune(critic, examples, slow) / "training.json").read_text())
    assert log["settings"]["learning_rate"] == 1e-6 and log["settings"]["num_train_epochs"] == 3
    assert log["num_examples"] == 16 and len(log["losses"]) == 6


def test_train_from_decides_where_an_agent_starts(agent, examples, config):
    once = str(finetune(agent, examples, config))
    twice = Agent(agent.name, agent.role, once)
    previous = finetune(twice, examples, config)
    from_base = finetune(twice, examples, config.replace(train_from="base"))
    assert str(from_base) == once != str(previous)


def test_an_agent_without_examples_keeps_its_model(agent, examples, config):
    with pytest.warns(UserWarning, match="critic-1 has no example"):
        folders = finetune_all(
            [(Agent("critic-1", "critic", agent.model), []), (agent, examples)], config
        )
    assert identity(str(folders[0])) == identity(agent.model)
    assert identity(str(folders[1])) != identity(agent.model)


def test_a_training_that_diverges_is_said(agent, examples, config, tmp_path):
    folder = shutil.copytree(agent.model, tmp_path / "sick")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = 1e38  # a number still, but not what is made of it
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FinetuneError, match="diverged.*lower learning_rate"):
        finetune(Agent("generation-1", "generator", str(folder)), examples, config)
    assert not list((tmp_path / "runs" / "checkpoints").iterdir())


def test_an_example_beyond_the_context_window_is_not_truncated(agent, config):
    long = Example("id", (TURNS[0], {"role": "assistant", "content": "1+1=2, " * 400}))
    with pytest.raises(FinetuneError, match="not truncated"):
        finetune(agent, [long], config)


def lora(agent, examples, config):
    return finetune(agent, examples, config.replace(lora_rank=4, lora_learning_rate=1.0e-2))


def test_an_adapter_does_not_depend_on_what_was_trained_before(agent, examples, config, tmp_path):
    first = lora(agent, examples, config)
    finetune(
        agent, examples[:9], config
    )  # in the same worker, which it leaves with other random numbers
    again = lora(agent, examples, config.replace(runs_dir=str(tmp_path / "again")))
    assert first != again and identity(str(first)) == identity(str(again))


def test_an_adapter_is_small_and_goes_on_from_itself(agent, examples, config, model, scorer):
    first = lora(agent, examples, config)
    second = lora(Agent(agent.name, agent.role, str(first)), examples, config)
    whole = sum(f.stat().st_size for f in Path(model).glob("*.safetensors"))
    assert all(
        sum(f.stat().st_size for f in c.glob("*.safetensors")) < whole / 2 for c in (first, second)
    )
    assert len({identity(str(m)) for m in (model, first, second)}) == 3
    names = [str(m) for m in (model, first, second)]
    base, once, twice = map(sum, scorer.log_likelihoods(names, [TURNS] * 3))
    assert min(once, twice) > base + 1 and once != twice
    merged = sum(p.numel() for p in load_model(str(second), "float32", "cpu").parameters())
    assert merged == sum(p.numel() for p in load_model(model, "float32", "cpu").parameters())


def test_an_adapter_refuses_another_base(agent, examples, config, model, tmp_path):
    base = shutil.copytree(model, tmp_path / "base")
    folder = lora(Agent(agent.name, agent.role, str(base)), examples, config)
    tensors = load_file(base / "model.safetensors")
    save_file({n: t + 1 for n, t in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match="belongs to another model"):
        load_model(str(folder), "float32", "cpu")
