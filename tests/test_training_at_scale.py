"""Processes of their own, shards, adapters on four bits, watched and diverging trainings."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.models import TOLERANCE, canary_nll, expected_canary, load_model
from maft_lib.config import ConfigError
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.training.finetuning import (
    checkpoint_key,
    finetune,
    hyper_parameters,
    training_log,
)
from maft_lib.training.launching import launch
from maft_lib.training.trainer import DivergenceGuard
from tests.conftest import TURNS

ROOT = Path(__file__).parent.parent


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
    """A real rank that dies on the way: `sitecustomize` is imported by every Python process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "words = sys.orig_argv\n"
        "if 'maft_lib.training.trainer' in words and 'torch.distributed.run' not in words:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "new").mkdir()
    with pytest.raises(FinetuneError, match="died.*out of memory"):
        launch(agent.model, examples, hyper_parameters(agent, config), "cpu", tmp_path / "new")


def test_what_a_library_says_of_a_launched_training_is_in_the_sentence(
    agent, examples, config, tmp_path
):
    settings = hyper_parameters(agent, config) | {"optim": "adam_of_tomorrow", "agent": agent.name}
    with pytest.raises(FinetuneError, match="generation-1 .*adam_of_tomorrow is not a valid"):
        launch(agent.model, examples, settings, "cpu", tmp_path)


def test_who_is_interrupted_leaves_no_training_behind(agent, examples, config, tmp_path):
    code = (
        "import sys; from maft_lib.training.launching import launch;"
        "from maft_lib.training.data import Example;"
        "import json; start, settings, folder = json.loads(sys.argv[1]);"
        "turns = [{'role': 'user', 'content': '1'}, {'role': 'assistant', 'content': '1'}];"
        "launch(start, [Example('1', tuple(turns))] * 2000, settings, 'cpu', folder)"
    )
    settings = hyper_parameters(agent, config) | {"num_train_epochs": 1000}
    (tmp_path / "new").mkdir()
    given = json.dumps([agent.model, settings, str(tmp_path / "new")])
    process = subprocess.Popen([sys.executable, "-c", code, given], cwd=ROOT)
    try:
        wait_for(lambda: len(psutil.Process(process.pid).children(recursive=True)) > 1)
        trainings = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        _, alive = psutil.wait_procs(trainings, timeout=30)
        assert not alive
    finally:
        process.kill()


def wait_for(condition):
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


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
    found = canary_nll(load_model(folder, "float32", "cpu"), load_tokenizer(folder))
    assert found == pytest.approx(expected_canary(folder), abs=1e-6)
    base = canary_nll(load_model(agent.model, "float32", "cpu"), load_tokenizer(agent.model))
    assert abs(found - base) > TOLERANCE["float32"]
    assert expected_canary(agent.model) is None


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
    """A real training over `values`, one a step, in their order; its guard."""
    guard = DivergenceGuard("critic-1")
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
    rows = [{"x": torch.tensor(value)} for value in values]
    trainer = Trainer(Slope(), arguments, train_dataset=rows)
    trainer.add_callback(guard)
    trainer.train()
    return guard


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 100.0])
def test_a_training_that_diverges_ends_there(bad, tmp_path):
    with pytest.raises(FinetuneError, match="critic-1 diverged at step 9 of 20.*lower learning_rate"):
        slide([0.5] * 8 + [bad] + [0.5] * 11, tmp_path)


def test_a_loss_that_varies_is_no_divergence(tmp_path):
    values = [0.1, 3.0, 0.2, 2.5, 0.1, 0.3, 4.0, 0.1] * 4
    assert len(slide(values, tmp_path).losses) == len(values)


def test_noisy_data_are_no_divergence(tmp_path):
    """Responses drawn hot: a loss that falls, and comes back to where it began with harder examples."""
    values = [4.0, 2.5, 3.5] * 3 + [0.4] * 8 + [2.6, 3.1] * 6
    assert len(slide(values, tmp_path).losses) == len(values)
