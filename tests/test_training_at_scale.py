"""Processes of their own, shards, adapters on four bits, watched and diverging trainings."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from maft_lib.backends import canary
from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.models import load_model
from maft_lib.config import ConfigError
from maft_lib.debate import Agent
from maft_lib.divergence import DivergenceGuard
from maft_lib.finetune_data import Example
from maft_lib.finetuning import (
    FinetuneError,
    checkpoint_key,
    finetune,
    finetune_all,
    hyper_parameters,
    training_log,
)
from maft_lib.launching import LaunchError, launch

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
    return config.replace(num_workers=1, per_device_train_batch_size=4)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_a_process_of_its_own_gives_the_same_bytes(agent, examples, config, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as a worker has
    here = finetune(agent, examples, config)
    (tmp_path / "there").mkdir()
    settings = hyper_parameters(agent, config)
    launch(agent.model, examples, settings, "cpu", tmp_path / "there")
    names = ("model.safetensors", "config.json", "tokenizer.json")
    assert all((here / n).read_bytes() == (tmp_path / "there" / n).read_bytes() for n in names)


def test_two_processes_share_one_agent(agent, examples, config):
    """FSDP2: half the examples each, shards of all weights; the step is that of one process."""
    alone = finetune(agent, examples, config)
    halves = {"nproc_per_node": 2, "per_device_train_batch_size": 2, "gradient_checkpointing": True}
    shared = finetune(agent, examples, config.replace(**halves))
    one, two = weights(alone), weights(shared)
    assert one.keys() == two.keys() and {w.dtype for w in two.values()} == {torch.float32}
    assert all(torch.allclose(one[name], two[name], atol=2e-6) for name in one)
    logs = [training_log(alone), training_log(shared)]
    assert [log["effective_batch_size"] for log in logs] == [4, 4]
    assert logs[0]["losses"] == pytest.approx(logs[1]["losses"], abs=1e-4)
    assert logs[0]["canary"] == pytest.approx(logs[1]["canary"], abs=1e-4)


def test_what_a_launched_training_says_arrives_as_itself(agent, config):
    long = Example("id", (TURNS[0], {"role": "assistant", "content": "1+1=2, " * 400}))
    with pytest.raises(FinetuneError, match="does not fit the model's 1024"):
        finetune(agent, [long], config.replace(nproc_per_node=2))


def test_a_launched_training_that_is_killed_is_said(agent, examples, config, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(LaunchError, match="ended with 1.*What is finished is kept"):
        launch(agent.model, examples, hyper_parameters(agent, config), "cpu", tmp_path)


def test_accumulated_steps_are_those_of_a_larger_batch(agent, examples, config):
    large = finetune(agent, examples, config.replace(per_device_train_batch_size=8))
    small = finetune(agent, examples, config.replace(gradient_accumulation_steps=2))
    assert training_log(small)["effective_batch_size"] == 8
    one, two = weights(large), weights(small)
    assert all(torch.allclose(one[name], two[name], atol=2e-6) for name in one)


def test_an_adapter_on_four_bits_learns(agent, examples, config):
    pytest.importorskip("bitsandbytes")
    folder = finetune(
        agent, examples, config.replace(lora_rank=8, load_in_4bit=True, num_train_epochs=3)
    )
    losses = training_log(folder)["losses"]
    assert losses[-1] < 0.5 * losses[0]
    assert (folder / "adapter_model.safetensors").stat().st_size < 2**20
    loaded = load_model(str(folder), "float32", "cpu")  # merged into the base as it is, in fp32
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_optimizers_with_states_of_eight_bits(agent, examples, config):
    pytest.importorskip("bitsandbytes")
    folder = finetune(agent, examples, config.replace(optim="paged_adamw_8bit"))
    assert training_log(folder)["settings"]["optim"] == "paged_adamw_8bit"
    losses = training_log(folder)["losses"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": "paged_adamw_8bit"},
        {"gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"nproc_per_node": 2},
        {"lora_rank": 8},
        {"lora_rank": 8, "load_in_4bit": True},
    ],
)
def test_what_weights_depend_on_is_in_their_key(changes, agent, examples, config):
    def key(config):
        return checkpoint_key(agent.model, examples, hyper_parameters(agent, config), "cpu")

    assert key(config.replace(**changes)) != key(config)
    assert key(config.replace(report_to="tensorboard")) == key(config)


def test_a_training_is_watched_by_tensorboard(agent, examples, config, tmp_path):
    pytest.importorskip("tensorboard")
    folder = finetune(agent, examples, config.replace(report_to="tensorboard"))
    (events,) = (tmp_path / "runs" / "tensorboard").glob("generation-1-*/events*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(events))
    seen.Reload()
    watched = [event.value for event in seen.Scalars("train/loss")]
    assert watched == pytest.approx(training_log(folder)["losses"])
    assert "events" not in {path.name for path in folder.iterdir()}


def test_the_canary_is_the_likelihood_of_the_saved_weights(agent, examples, config):
    folder = str(finetune(agent, examples, config))
    found = canary.mean_nll(load_model(folder, "float32", "cpu"), load_tokenizer(folder))
    assert found == pytest.approx(canary.expected_nll(folder), abs=1e-6)
    base = canary.mean_nll(load_model(agent.model, "float32", "cpu"), load_tokenizer(agent.model))
    assert abs(found - base) > canary.TOLERANCE["float32"]
    assert canary.expected_nll(agent.model) is None


def test_settings_that_contradict_each_other_are_refused(config):
    with pytest.raises(ConfigError, match="load_in_4bit.*lora_rank"):
        config.replace(load_in_4bit=True)


class Slope(torch.nn.Module):
    """A loss that is the mean of what it is given, times one weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"loss": (self.weight * x).mean()}


def slide(values, folder):
    """A real training over `values`, one a step, in their order; the model and its guard."""
    model, guard = Slope(), DivergenceGuard()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        num_train_epochs=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=[{"x": torch.tensor(v)} for v in values])
    trainer.add_callback(guard)
    trainer.train()
    return float(model.weight.detach()), guard


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 100.0])
def test_a_training_that_diverges_keeps_its_last_good_weights(bad, tmp_path):
    good, _ = slide([0.5] * 5, tmp_path)  # up to the first quarter
    kept, guard = slide([0.5] * 5 + [bad] + [0.5] * 14, tmp_path)
    assert kept == pytest.approx(good)
    assert (guard.stopped["step"], guard.stopped["kept_step"]) == (6, 5)
    assert len(guard.losses) == 6  # it stopped there
    json.dumps(guard.stopped, allow_nan=False)


def test_a_loss_that_varies_is_no_divergence(tmp_path):
    _, guard = slide([0.1, 3.0, 0.2, 2.5, 0.1, 0.3, 4.0, 0.1] * 4, tmp_path)
    assert guard.stopped is None


def test_a_stopped_training_is_said_every_time(agent, examples, config):
    folder = finetune(agent, examples, config)
    log = training_log(folder) | {
        "stopped": {"step": 6, "num_steps": 20, "loss": "nan", "kept_step": 5}
    }
    (folder / "training.json").write_text(json.dumps(log))
    (folder / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning, match="generation-1 diverged at step 6 of 20.*of step 5"):
        finetune_all([(agent, examples)], config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune_all([(agent, examples[:8])], config)
