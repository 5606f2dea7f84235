"""Finetuning one agent: the weights move, the identity follows the content, nothing is done twice."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from maft_lib.backends.models import identity
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.debate import Agent
from maft_lib.finetune_data import Example
from maft_lib.finetuning import FinetuneError, finetune, finetune_all

TURNS = (
    {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"},
    {"role": "assistant", "content": "2*3=6. The answer is \\boxed{6}."},
)


@pytest.fixture
def agent(model):
    return Agent("generation-1", "generator", model)


@pytest.fixture
def examples():
    return [Example(f"id {i}", TURNS) for i in range(16)]


@pytest.fixture
def config(config):
    return config.replace(num_workers=1)


def test_a_finetuned_model_is_another_model(agent, examples, config):
    folder = finetune(agent, examples, config)
    assert identity(str(folder)) != identity(agent.model)
    before, after = (
        load_file(f"{agent.model}/model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    backend = TransformersBackend("cpu", num_workers=1, progress=False)
    base, trained = (backend.log_likelihoods(m, [TURNS])[0] for m in (agent.model, str(folder)))
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
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FinetuneError, match="diverged.*lower learning_rate"):
        finetune(Agent("generation-1", "generator", str(folder)), examples, config)
    assert not list((tmp_path / "runs" / "checkpoints").iterdir())


def test_an_example_beyond_the_context_window_is_not_truncated(agent, config):
    long = Example("id", (TURNS[0], {"role": "assistant", "content": "1+1=2, " * 400}))
    with pytest.raises(FinetuneError, match="not truncated"):
        finetune(agent, [long], config)
