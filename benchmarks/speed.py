"""What a debate's order of work and a swap of weights take: python benchmarks/speed.py PROFILE

Debates problems of the profile in lock-step batches and one response at a time, with nothing from the
store, by every backend for local models that is installed. Where vLLM is, it also swaps a changed copy
of the model's weights in and out of the engine, canary included.
"""

import argparse
import tempfile
import time
from contextlib import contextmanager
from copy import copy
from importlib.util import find_spec

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

import maft_lib as maft
from maft_lib.backends import hub
from maft_lib.backends.opening import bare_backend


def main():
    options = arguments()
    given = {"model_name_or_path": options.model, "max_tokens": options.max_tokens}
    given = {name: value for name, value in given.items() if value is not None}
    config = maft.load_config(options.profile, num_eval=options.together, **given)
    asked = maft.study.problems(config.task, "eval", config)
    frame = compare_orders(backends_here(config), asked, config, options.alone)
    print(
        frame.round({"seconds": 1, "tokens/s": 1, "overhead": 4, "speed-up": 1}).to_string(index=False)
    )
    if find_spec("vllm"):
        print("seconds a swap:", *(f"{seconds:.2f}" for seconds in swap_seconds(config)))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("--model", help="a folder or name in place of the profile's model")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--together", type=int, default=16, help="problems debated in lock-step")
    parser.add_argument("--alone", type=int, default=1, help="problems debated a response at a time")
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
    """A backend whose `seconds` are those that its engine took; with `one_at_a_time` for each alone."""

    def __init__(self, inner, one_at_a_time=False):
        self.name, self.inner, self.one_at_a_time = inner.name, inner, one_at_a_time
        self.seconds = 0.0

    def stream(self, requests):
        parts = [[i] for i in range(len(requests))] if self.one_at_a_time else [range(len(requests))]
        for part in parts:
            start = time.perf_counter()
            answers = list(self.inner.stream([requests[i] for i in part]))
            self.seconds += time.perf_counter() - start
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


def swap_seconds(config, times=6):
    """Seconds of swaps between the base model and a copy of it that was changed a little."""
    backend = bare_backend(config.replace(backend="vllm"))
    with tempfile.TemporaryDirectory() as folder:
        models = (changed_copy(config.base_model, folder), str(hub.model_folder(config.base_model)))
        for model in models * (times // 2):
            start = time.perf_counter()
            backend.hold(model)
            yield time.perf_counter() - start


def changed_copy(name, folder):
    """The model with other final norms, in a folder of its own."""
    model = AutoModelForCausalLM.from_pretrained(hub.model_folder(name))
    model.model.norm.weight.data *= 1.01
    model.save_pretrained(folder)
    hub.load_tokenizer(name).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
