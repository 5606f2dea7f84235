"""What a study will cost: requests, memory and time worked out by hand, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors import safe_open

from maft_lib import estimation
from maft_lib.config import ConfigError, project_root
from maft_lib.estimation import GIB, H200, PUBLISHED, Machine, estimate, model_shape, planned
from maft_lib.methods import METHODS
from maft_lib.metrics import COSTS
from maft_lib.profiles import load_config
from maft_lib.run import run_study

PLENTY = Machine(ram=2**50, free_disk=2**60, num_cores=2)
GPU_80 = ("NVIDIA H100 80GB HBM3", 81559 * 2**20)
A100_40 = ("NVIDIA A100-SXM4-40GB", 40 * GIB)
PROFILES = sorted(path.stem for path in (project_root() / "params").glob("*.yml"))
PROFILES.remove("reported")


def with_gpus(*gpus, **has):
    return PLENTY._replace(gpus=gpus, **has)


# --- shapes ---------------------------------------------------------------------------------------


def test_a_budget_for_thoughts_is_counted():
    config = load_config("laptop")
    plain, thinking = estimate(config), estimate(config.replace(max_thinking_tokens=1000))
    assert thinking.requests == plain.requests and thinking.tokens_read == plain.tokens_read
    assert thinking.tokens_generated - plain.tokens_generated == pytest.approx(300 * plain.requests)
    assert thinking.seconds > plain.seconds


def test_the_shipped_model_is_counted_in_its_file(model):
    with safe_open(f"{model}/model.safetensors", "np") as file:
        number = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert model_shape(model).num_parameters == pytest.approx(number, rel=0.02)


@pytest.mark.parametrize("config", [None, "{", "[]", '{"model_type": "mamba", "vocab_size": 1}'])
def test_a_shape_is_unknown_rather_than_guessed(tmp_path, config):
    if config:
        (tmp_path / "config.json").write_text(config)
    made = estimate(load_config("smoke", model_name_or_path=str(tmp_path)), machine=PLENTY)
    assert (made.seconds, made.generation_bytes) == (None, None)
    assert "unknown" in str(made) and made.requests == 1080
    assert not made.refusals()


@pytest.mark.parametrize("name", ["someone/some-model", "no name at all", "a/b/c"])
def test_a_model_that_is_not_here_and_not_published_is_unknown(name):
    assert model_shape(name) is None


# --- requests -------------------------------------------------------------------------------------


def test_requests_by_hand(config):
    """24 problems each, three agents, two rounds with summaries: 9 requests a problem and debate.

    `multiagent_ft` debates the eval problems three times and the train problems twice; STaR asks each
    problem at most twice, in at most five rounds.
    """
    both = {"data": 2 * 24 * 9, "training": 12, "answers": 3 * 24 * 9}
    assert planned("multiagent_ft", config) == both
    assert planned("majority", config) == {"data": 0, "training": 0, "answers": 24 * 3}
    star = planned("star", config)
    assert star["training"] == config.star_max_rounds == 5 and star["answers"] == 6 * 24
    assert 5 * 24 < star["data"] <= 5 * 2 * 24
    many = config.replace(num_train=500, num_eval=130, num_iterations=5, summarize=False)
    assert planned("multiagent_ft", many)["data"] == 5 * 500 * 6
    assert planned("debate", many)["answers"] == 130 * 6


@pytest.mark.parametrize("method", METHODS)
def test_any_method_is_estimated_as_it_runs(method, config):
    made, asked = estimate(config, method, PLENTY), planned(method, config)
    assert made.requests == asked["data"] + asked["answers"] > 0
    assert made.num_trainings == asked["training"]
    assert made.tokens_read > 0 and made.tokens_generated > 0 and made.seconds > 0


def test_an_unknown_method_is_refused(config):
    with pytest.raises(ConfigError, match="did you mean 'multiagent_ft'"):
        estimate(config, "multiagent_tf", PLENTY)


def test_a_study_that_somebody_watches_hears_nothing_of_an_estimate(config):
    from maft_lib import events

    heard = SimpleNamespace(during=lambda *_: 1 / 0, counted=lambda _: 1 / 0)
    with events.listening(heard):
        assert planned("multiagent_ft", config)["training"] == 12


def test_texts_stay_below_max_tokens(config):
    for num in (1, 50, 5000):
        made = estimate(config.replace(max_tokens=num), "debate", PLENTY)
        assert made.tokens_generated <= num * made.requests


# --- memory ---------------------------------------------------------------------------------------

SMALLER = {
    "8-bit states": {"optim": "adamw_torch_8bit"},
    "checkpointing": {"gradient_checkpointing": True},
    "LoRA": {"lora_rank": 16},
    "QLoRA": {"lora_rank": 16, "load_in_4bit": True},
    "two GPUs": {"nproc_per_node": 2},
}


@pytest.mark.parametrize("changes", SMALLER.values(), ids=SMALLER)
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_saves_memory_saves_memory(name, changes):
    config = load_config("phi3", model_name_or_path=name, gradient_checkpointing=False)
    whole, saved = (
        estimate(c, machine=with_gpus(H200, H200)).training_bytes
        for c in (config, config.replace(**changes))
    )
    assert saved < whole


def test_vllm_wants_room_for_its_window():
    """Weights of 14.5 GB, 16,384 tokens of 128 KiB, 3 GiB to work with, twice that on the whole GPU."""
    config = load_config("mistral", gpu_memory_utilization=0.5)
    needed = 2 * 7.242e9 + 16384 * 2**17 + 3 * GIB
    made = estimate(config, machine=with_gpus(GPU_80))
    assert made.generation_bytes == pytest.approx(2 * needed)


# --- time -----------------------------------------------------------------------------------------


def test_time_scales_with_the_work_and_the_hardware():
    config = load_config("mistral", num_iterations=1)
    slow, fast = (
        estimate(config, machine=with_gpus((name, 150 * 10**9))).seconds
        for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA H200")
    )
    assert fast < slow < 5 * fast
    once = estimate(config, machine=with_gpus(H200)).seconds
    twice = estimate(load_config("mistral", num_iterations=2), machine=PLENTY).seconds
    assert once < twice < 2.2 * once
    four = estimate(config, machine=with_gpus(*[H200] * 4)).seconds
    assert once / 4 < four < once  # agents train side by side


def test_what_studies_share_is_counted_once(config):
    """All that Majority and Debate ask first is the same, and a second seed shares nothing."""
    majority, debate = (estimate(config, name, PLENTY) for name in ("majority", "debate"))
    both = [(name, config.task, config) for name in ("majority", "debate")]
    assert estimate(both, machine=PLENTY).requests == debate.requests > majority.requests
    twice = [*both, ("debate", config.task, config.replace(seed=1))]
    assert estimate(twice, machine=PLENTY).requests == 2 * debate.requests
    trained = [("multiagent_ft", config.task, config.replace(num_iterations=n)) for n in (1, 2)]
    assert estimate(trained, machine=PLENTY).num_trainings == 12  # the first six are the same


def test_seven_billion_parameters_on_one_h200():
    """L = 1, 500/500, three agents, two rounds with summaries: at most an hour and a half."""
    made = estimate(load_config("mistral", num_iterations=1), machine=with_gpus(H200))
    assert made.requests == 3 * 500 * 9
    assert 0.25 * 3600 < made.seconds <= 1.5 * 3600
    lora = estimate(load_config("mistral_lora", num_iterations=1), machine=with_gpus(H200))
    assert lora.seconds < made.seconds  # no swaps, one batch for all agents


@pytest.mark.pipeline
def test_against_a_real_study(config):
    """The smoke study with the miniature model: what was said and what it took, by a factor."""
    config = config.replace(num_iterations=1)
    made = estimate(config)
    result = run_study("multiagent_ft", "arithmetic", config, report=lambda line: None)
    spent = result.costs[COSTS].sum()
    workers = config.num_workers or made.machine.num_cores
    taken = config.path(config.runs_dir).rglob("*.safetensors")
    found = {
        "requests": made.requests / spent["num_calls"],
        "read": made.tokens_read / spent["num_prompt_tokens"],
        "generated": made.tokens_generated / spent["num_completion_tokens"],
        "memory": made.training_bytes / workers / result.costs.peak_memory.max(),
        "disk": made.disk_bytes / sum(path.stat().st_size for path in taken),
        "seconds": workers * made.seconds / spent["seconds"],
    }
    assert found["requests"] == 1
    assert found["disk"] == pytest.approx(1, abs=0.05)
    assert all(1 / 2 < found[name] < 2 for name in ("read", "generated", "memory")), found
    assert 1 / 4 < found["seconds"] < 4, found  # a shared machine is slower or faster


# --- the machine ----------------------------------------------------------------------------------


def test_gpus_are_those_that_pytorch_sees(monkeypatch, tmp_path):
    gpu = SimpleNamespace(name="NVIDIA H200", total_memory=140 * GIB)
    monkeypatch.setattr(estimation, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    assert estimation.this_machine(tmp_path).gpus == (("NVIDIA H200", 140 * GIB),) * 2
    monkeypatch.setattr(estimation, "may_have_gpu", lambda: False)
    assert estimation.this_machine(tmp_path).gpus == ()


def test_room_of_checkpoints_that_are_there_counts_as_free(tmp_path, monkeypatch):
    monkeypatch.setattr(estimation.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert estimation.this_machine(tmp_path / "not" / "yet").free_disk == 1000
    folder = tmp_path / "checkpoints" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(300))
    assert estimation.this_machine(tmp_path).free_disk == 1300


REFUSED = {
    "disk": ({}, with_gpus(H200, free_disk=10 * GIB), ["of disk", "10.0 GiB", "runs_dir"]),
    "training": ({"optim": "adamw_torch"}, with_gpus(GPU_80), ["to train", "79.6 GiB", "lora_rank"]),
    "a tiny GPU": ({}, with_gpus(("Tesla T4", 15 * GIB)), ["to generate", "to train"]),
    "RAM of a CPU": (
        {"device": "cpu", "backend": "transformers"},
        PLENTY._replace(ram=16 * GIB),
        ["memory", "16.0 GiB", "num_workers"],
    ),
    "GPUs": ({"nproc_per_node": 4, "lora_rank": 16}, with_gpus(GPU_80), ["nproc_per_node", "1 GPU"]),
    "engine": ({"tensor_parallel_size": 2}, with_gpus(GPU_80), ["tensor_parallel_size"]),
}


@pytest.mark.parametrize("changes, machine, words", REFUSED.values(), ids=REFUSED)
def test_all_that_the_machine_cannot_hold_is_refused_at_once(changes, machine, words):
    made = estimate(load_config("mistral", **changes), machine=machine)
    message = " ".join(made.refusals())
    assert "\n" not in message and message.endswith(".")
    assert all(word in message for word in words), message


def test_what_is_not_refused():
    """A GPU that is missing is the backend's to report, a cluster's machines are not known here."""
    assert not estimate(load_config("mistral"), machine=PLENTY._replace(free_disk=0)).refusals()
    small = with_gpus(("Tesla T4", 15 * GIB), ram=GIB)
    assert not estimate(
        load_config("mistral", executor="ray", backend="transformers"), machine=small
    ).refusals()
    assert not estimate(load_config("mistral", lora_rank=16), machine=with_gpus(A100_40)).refusals()
    # LLaMA-3's 81 GiB do not fit 80 GB, but its 15 GiB of paged states need not be there
    assert not estimate(load_config("llama3"), machine=with_gpus(GPU_80)).refusals()
    assert not estimate(load_config("smoke")).refusals()  # on this machine


def test_an_estimate_reads_as_lines():
    made = estimate(load_config("mistral"), machine=PLENTY)
    assert made.headline.startswith("multiagent_ft on math, L = 5: generation 20.5 GiB at least")
    assert made.headline.endswith("on one H200") and str(made).startswith(made.headline)
    hosted = estimate(load_config("gpt35"), machine=PLENTY)
    assert hosted.seconds is None and hosted.training_tokens > 0
    assert "server" in str(hosted) and "GiB" not in str(hosted)
    assert not hosted.refusals()


# --- the params files -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads_and_is_estimated(profile):
    made = estimate(load_config(profile), machine=PLENTY)
    assert made.seconds or made.config.backend == "openai"


@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"laptop", "smoke"}))
def test_the_head_of_a_profile_says_what_is_expected(profile):
    """Recomputed for one H200, or for two cores."""
    text = (project_root() / "params" / f"{profile}.yml").read_text()
    head = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    made = estimate(load_config(profile), machine=PLENTY)
    assert f"Expected (maft.estimate): {made.headline}" in head


PAPER = {  # Appendix B.3: epochs of generation and critic agents, learning rates, weight decay
    "phi3": (2, 1, 5e-6, 5e-7, 1e-3),
    "mistral": (1, 1, 5e-7, 5e-7, 1e-2),
    "llama3": (2, 2, 5e-7, 2e-7, 1e-3),
}


@pytest.mark.parametrize("profile, settings", PAPER.items())
def test_appendix_b3(profile, settings):
    config = load_config(profile)
    assert settings == (
        config.num_train_epochs,
        config.critic_num_train_epochs,
        config.learning_rate,
        config.critic_learning_rate,
        config.weight_decay,
    )
    assert (config.max_tokens, config.top_p, config.temperature) == (2048, 0.9, 1.0)
    assert config.lora_rank is None and config.gradient_accumulation_steps == 1
    # trains on one GPU of 80 GB, with example and engine beside it
    assert not estimate(config, machine=with_gpus(GPU_80)).refusals()


@pytest.mark.parametrize("profile", [name for name in PROFILES if name.endswith("_lora")])
def test_lora_variants_are_their_profile_but_for_the_adapters(profile):
    def keys(name):
        return yaml.safe_load((project_root() / "params" / f"{name}.yml").read_text())

    whole, lora = keys(profile.removesuffix("_lora")), keys(profile)
    own = {"lora_rank": 16, "lora_alpha": 32, "lora_learning_rate": 2e-4, "profile": profile}
    assert {key: lora.pop(key) for key in own} == own
    for key in ("profile", "learning_rate", "critic_learning_rate", "optim", "notebooks"):
        whole.pop(key, None)
    assert lora == whole


def test_smollm2_needs_neither_hub_nor_gpu():
    config = load_config("smollm2")
    assert config.backend == "transformers" and model_shape(config.base_model) is not None
    for notebook in ("04_3_zero_shot", "H_additional_evaluations", "R_reviewers_questions"):
        own = load_config("smollm2", notebook=notebook)
        assert not {own.task, *own.tasks} & {"gsm", "math", "mmlu"}
