"""What a debate's order of work and a swap of weights take: python benchmarks/speed.py PROFILE

Debates problems of the profile in lock-step batches and one response at a time, with nothing from the
store, by every backend for local models that is installed. Where vLLM is, it also swaps a changed copy
of the model's weights in and out of the engine, canary included.

With --against COMMIT it compares whole debates by this tree and by that commit's, in turns; with
--scores too, the likelihoods, KL divergences and embeddings of the critics' responses; with --plain
too, debates by plain `generate()` of transformers.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

import maft_lib as maft
from maft_lib.backends import Completion, hub
from maft_lib.backends.opening import bare_backend

ROOT = Path(__file__).parents[1]


def main():
    options = arguments()
    if options.against:
        print(compare_commits(options).to_string(index=False, float_format="%.2f"))
        return
    given = {"model_name_or_path": options.model, "max_tokens": options.max_tokens}
    given["num_workers"] = options.workers
    given = {name: value for name, value in given.items() if value is not None}
    config = maft.load_config(options.profile, num_eval=options.together, **given)
    if options.in_turns:
        backend = Plain(config) if options.plain else bare_backend(config)
        (score_in_turns if options.scores else debate_in_turns)(config, backend)
        return
    asked = maft.study.problems(config.task, "eval", config)
    frame = compare_orders(backends_here(config), asked, config, options.alone)
    print(
        frame.round({"seconds": 1, "tokens/s": 1, "overhead": 4, "speed-up": 1}).to_string(index=False)
    )
    if find_spec("vllm"):
        print("seconds a swap:", *(f"{seconds:.2f}" for seconds in swap_seconds(config)))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", default="laptop")
    parser.add_argument("--model", help="a folder or name in place of the profile's model")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--together", type=int, default=16, help="problems debated in lock-step")
    parser.add_argument("--alone", type=int, default=1, help="problems debated a response at a time")
    parser.add_argument("--against", help="a commit to compare with")
    parser.add_argument("--scores", action="store_true", help="compare the scoring of debates")
    parser.add_argument("--plain", action="store_true", help="compare with generate(), too")
    parser.add_argument("--workers", type=int, help="threads or processes of one thread each")
    parser.add_argument("--times", type=int, default=5, help="measurements of each commit")
    parser.add_argument("--in-turns", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def backends_here(config):
    """Pairs of backends: for batches, and for one request at a time.

    On a CPU the transformers backend answers batches in workers of one thread each; a request alone is
    answered in this process, by one thread or all, whichever is faster.
    """
    together = bare_backend(config.replace(backend="transformers"))
    alone = copy(together)
    alone.num_workers = 0
    pairs = [(together, alone)]
    if find_spec("vllm"):
        pairs.append((bare_backend(config.replace(backend="vllm")),) * 2)
    return pairs


class Timed:
    """A backend whose `seconds` are those that its engine took; with `one_at_a_time` for each alone.

    `phases` are the tokens, seconds and processor's seconds of each call, `texts` all that was written.
    """

    def __init__(self, inner, one_at_a_time=False):
        self.name, self.inner, self.one_at_a_time = inner.name, inner, one_at_a_time
        self.seconds, self.phases, self.texts = 0.0, [], []

    def stream(self, requests):
        parts = [[i] for i in range(len(requests))] if self.one_at_a_time else [range(len(requests))]
        for part in parts:
            start = time.perf_counter()
            answers = list(self.inner.stream([requests[i] for i in part]))
            seconds = time.perf_counter() - start
            self.seconds += seconds
            busy = sum(said.seconds for _, said in answers)
            self.phases.append((sum(said.num_completion_tokens for _, said in answers), seconds, busy))
            self.texts += [said.text for _, said in answers]
            yield from ((part[position], completion) for position, completion in answers)


def measure(backend, problems, config, one_at_a_time=False):
    """Debates problems among base agents, all in lock-step or response by response; what it took.

    One at a time is the authors' order of work: problem after problem, agent after agent. `overhead` is
    the share of the time that was not spent waiting for the backend.
    """
    society = maft.base_society(config.base_model, config.num_agents)
    timed = Timed(backend, one_at_a_time)
    start = time.perf_counter()
    groups = [[problem] for problem in problems] if one_at_a_time else [list(problems)]
    debates = [debate for some in groups for debate in maft.run_debates(society, some, config, timed)]
    seconds = time.perf_counter() - start
    tokens = sum(debate.num_completion_tokens for debate in debates)
    return {
        "backend": backend.name,
        "order": "one at a time" if one_at_a_time else "lock-step batches",
        "problems": len(problems),
        "responses": sum(debate.num_calls for debate in debates),
        "tokens": tokens,
        "seconds": seconds,
        "tokens/s": tokens / seconds,
        "overhead": 1 - timed.seconds / seconds,
    }


def compare_orders(backends, problems, config, num_alone):
    """`measure` of both orders, a row each; `speed-up` is the ratio of their tokens a second.

    Only the first `num_alone` problems are debated one at a time, which takes long. Each backend
    answers briefly before, so that models are loaded.
    """
    briefly = config.replace(num_rounds=1, max_tokens=min(config.max_tokens, 16))
    rows = []
    for together, alone in backends:
        for backend in (together, alone):
            measure(backend, problems[:2], briefly)
        with best_threads(alone, problems[:1], briefly):
            slow = measure(alone, problems[:num_alone], config, one_at_a_time=True)
        fast = measure(together, problems, config)
        rows += [slow | {"speed-up": 1.0}, fast | {"speed-up": fast["tokens/s"] / slow["tokens/s"]}]
    return pd.DataFrame(rows)


@contextmanager
def best_threads(alone, problems, config):
    """Gives PyTorch in this process one thread, where that is faster than all of them."""
    before = torch.get_num_threads()
    many = measure(alone, problems, config, one_at_a_time=True)["seconds"]
    torch.set_num_threads(1)
    if measure(alone, problems, config, one_at_a_time=True)["seconds"] > many:
        torch.set_num_threads(before)
    yield
    torch.set_num_threads(before)


PHASES = ("first answers", "summaries", "critics", "whole debate")


def compare_commits(options):
    """Medians by phase, ratio first, of this tree and another in turns: tokens or texts a second."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", folder, options.against], check=True)
        programs = [start_measuring(tree, options) for tree in (folder, ROOT)]
        programs += [start_measuring(ROOT, options, "--plain")] if options.plain else []
        try:
            said = [[json.loads(next_line(p)) for p in programs] for _ in range(options.times + 1)][1:]
        finally:
            for program in programs:
                program.kill()
            subprocess.run([*git, "remove", "--force", folder], check=True)
    rows = []
    for number, phase in enumerate(said[0][0]["phases"]):
        before, after, *plain = ([one["speeds"][number] for one in by] for by in zip(*said))
        pairs, busy = ([b[i] / a[i] for a, b in zip(before, after)] for i in (0, 1))
        rows.append({
            "ratio": median(pairs), "of the processor's time": median(busy), "phase": phase,
            options.against: median(a for a, _ in before), "here": median(b for b, _ in after),
            "lowest": min(pairs), "highest": max(pairs),
            "the same": all(a["said"] == b["said"] for a, b, *_ in said),
        })  # fmt: skip
        for speeds in plain:
            rows[-1]["generate()"] = median(a for a, _ in speeds)
            rows[-1]["over it"] = median(b[1] / a[1] for a, b in zip(speeds, after))
    return pd.DataFrame(rows)


def start_measuring(tree, options, *more):
    """A process that runs `debate_in_turns` or `score_in_turns` with the code of a tree."""
    given = [options.profile, "--in-turns", *more, "--together", str(options.together)]
    given += ["--scores"] if options.scores else []
    model = options.model or maft.load_config(options.profile).base_model  # one for both trees
    given += ["--model", model] + (["--workers", str(options.workers)] if options.workers else [])
    given += ["--max-tokens", str(options.max_tokens)] if options.max_tokens else []
    return subprocess.Popen(
        [sys.executable, __file__, *given], cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def next_line(program):
    """Has a process measure once and returns what it says of it."""
    print(file=program.stdin, flush=True)
    lines = iter(program.stdout.readline, "")
    return next(line for line in lines if line.startswith("{"))


class Plain:
    """A backend that calls transformers' `generate` once a batch, without seeds, as a script would."""

    name = "generate()"

    def __init__(self, config):
        self.model = AutoModelForCausalLM.from_pretrained(hub.model_folder(config.base_model)).eval()

    def stream(self, requests):
        tokenizer, start = hub.load_tokenizer(requests[0].model), time.process_time()
        how = {"padding_side": "left", "add_special_tokens": False, "return_tensors": "pt"}
        inputs = tokenizer([hub.rendered(request) for request in requests], padding=True, **how)
        drawn = requests[0].sampling
        how = {"do_sample": True, "temperature": drawn.temperature, "top_p": drawn.top_p, "top_k": 0}
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=drawn.max_tokens, **how)
        written = output[:, inputs["input_ids"].shape[1] :]
        unended = (written == tokenizer.eos_token_id).cumsum(1) == 0
        numbers = unended.sum(1).add(1).clamp(max=written.shape[1]).tolist()  # with the end
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        seconds = (time.process_time() - start) / len(requests)
        read = inputs["attention_mask"].sum(1).tolist()
        for i, (text, number) in enumerate(zip(texts, numbers)):
            yield i, Completion(text, read[i], number, "stop", seconds=seconds)


def debate_in_turns(config, backend):
    """For each line read: debates the problems, prints tokens a second by phase and the texts' hash.

    The first time briefly, so that models are loaded.
    """
    remembered = set()
    with suppress(ImportError):  # in trees that have it: what was read is read anew
        from maft_lib.backends.cpu_decoding import remembered
    for number, _ in enumerate(sys.stdin):
        remembered.clear()
        timed = Timed(backend)
        debate(config if number else config.replace(num_eval=2, max_tokens=8), timed)
        texts = hashlib.sha256(json.dumps(sorted(timed.texts)).encode()).hexdigest()
        tell(PHASES, [*timed.phases, tuple(map(sum, zip(*timed.phases)))], texts)


def debate(config, backend):
    """Debates of the config's eval problems among base agents, in any tree."""
    society = maft.base_society(config.base_model, config.num_agents)
    asked = maft.load_problems(config.task, "eval", config.num_eval, max_operand=config.max_operand)
    return maft.run_debates(society, asked, config, backend)


def tell(names, phases, said):
    """Prints for `next_line` tokens or texts of each phase a second, by the wall and the processor."""
    speeds = [(number / seconds, number / busy) for number, seconds, busy in phases]
    print(json.dumps({"phases": names, "speeds": speeds, "said": said}), flush=True)


def score_in_turns(config, backend):
    """For each line read: scores debates by one thread, prints texts a second by measure and the means.

    The critics differ, as finetuned ones do, so each response is read by every other critic's model.
    """
    torch.set_num_threads(1)
    debates, base = debate(config, backend), config.base_model
    with tempfile.TemporaryDirectory() as folder:
        society = maft.base_society(base, config.num_agents)
        copies = [changed_copy(base, f"{folder}/{n}", 1 + n / 100) for n in range(config.num_agents)]
        critics = [replace(agent, model=copy) for agent, copy in zip(society.critics, copies)]
        society = replace(society, critics=tuple(critics))
        measures = {
            "likelihoods": lambda: maft.diversity.negative_log_likelihood(debates, society, scorer),
            "KL divergences": lambda: maft.diversity.kl_divergence(debates, scorer, base),
            "embeddings": lambda: maft.diversity.embedding_dissimilarity(debates, scorer, base),
        }
        for _ in sys.stdin:
            with tempfile.TemporaryDirectory(dir=folder) as runs:
                scorer = maft.open_scorer(config.replace(runs_dir=runs))
                scorer.num_workers = 0
                phases, means = [], []
                for measure in measures.values():
                    already, start, busy = scorer.num_calls, time.perf_counter(), time.process_time()
                    means.append(round(measure().value.mean(), 5))
                    seconds, busy = time.perf_counter() - start, time.process_time() - busy
                    phases.append((scorer.num_calls - already, seconds, busy))
                tell([*measures], phases, means)


def swap_seconds(config, times=6):
    """Seconds of swaps between the base model and a copy of it that was changed a little."""
    backend = bare_backend(config.replace(backend="vllm"))
    with tempfile.TemporaryDirectory() as folder:
        models = (changed_copy(config.base_model, folder), str(hub.model_folder(config.base_model)))
        for model in models * (times // 2):
            start = time.perf_counter()
            backend.hold(model)
            yield time.perf_counter() - start


def changed_copy(name, folder, factor=1.01):
    """The model with other final norms, in a folder of its own."""
    model = AutoModelForCausalLM.from_pretrained(hub.model_folder(name))
    model.model.norm.weight.data *= factor
    model.save_pretrained(folder)
    hub.load_tokenizer(name).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
