"""How fast a debate is: in lock-step batches, and one response at a time (the Limitations section).

Nothing here goes through the store, since what is remembered has no speed. Knows no finetuning.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from maft_lib.arguments import (
    check_able,
    check_choice,
    check_config,
    check_each,
    check_kind,
    check_whole,
)
from maft_lib.backends import Backend, Completion, Request
from maft_lib.backends.hub import is_adapter, model_folder, resolve_device
from maft_lib.backends.opening import bare_backend
from maft_lib.config import Config
from maft_lib.debate import run_debates
from maft_lib.society import Society, base_society
from maft_lib.tasks.problem import Problem

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def backends_here(
    config: Config, report: Callable[[str], None] = print
) -> list[tuple[Backend, Backend]]:
    """The backends for local models that are installed: for batches, and for one request at a time.

    On a CPU the transformers backend answers batches in workers of one thread each; a request alone is
    answered in this process, by one thread or all, whichever is faster.
    """
    check_config(config)
    together = bare_backend(config.replace(backend="transformers"))
    alone = copy(together)
    alone.num_workers = 0  # type: ignore[attr-defined]
    pairs = [(together, alone)]
    if find_spec("vllm") is None:
        report("vLLM is not installed here: not measured.")
    else:
        engine = bare_backend(config.replace(backend="vllm"))
        pairs.append((engine, engine))
    return pairs


def has_gpu(config: Config) -> bool:
    """Whether this machine computes on a GPU."""
    check_config(config)
    return resolve_device(config.device) != "cpu"


class Timed:
    """A backend whose `seconds` are those that its engine took; with `one_at_a_time` for each alone."""

    def __init__(self, inner: Backend, one_at_a_time: bool = False):
        self.name, self.inner, self.one_at_a_time = inner.name, inner, one_at_a_time
        self.seconds = 0.0

    def describe(self, request: Request) -> list:
        """As the inner backend."""
        return self.inner.describe(request)

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """As the inner backend, request by request if one is asked at a time."""
        parts = [[i] for i in range(len(requests))] if self.one_at_a_time else [range(len(requests))]
        for part in parts:
            start = time.perf_counter()
            answers = list(self.inner.stream([requests[i] for i in part]))
            self.seconds += time.perf_counter() - start
            yield from ((part[position], completion) for position, completion in answers)


def measure(
    backend: Backend, problems: Sequence[Problem], config: Config, one_at_a_time: bool = False
) -> dict:
    """Debates problems among base agents, all in lock-step or response by response; what it took.

    One at a time is the authors' order of work: problem after problem, agent after agent. Model,
    prompts, sampling and seeds are the same in both orders. `overhead` is the share of the time that
    was not spent waiting for the backend. Raises `ValueError` without problems.
    """
    check_able("backend", backend, "stream", "what open_backend(config) returns")
    check_each("problems", problems, Problem)
    check_config(config)
    society = base_society(config.base_model, config.num_agents)
    timed = Timed(backend, one_at_a_time)
    start = time.perf_counter()
    groups = [[problem] for problem in problems] if one_at_a_time else [list(problems)]
    debates = [debate for group in groups for debate in run_debates(society, group, config, timed)]
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


def compare_orders(
    backends: Sequence[tuple[Backend, Backend]],
    problems: Sequence[Problem],
    config: Config,
    num_alone: int,
) -> pd.DataFrame:
    """`measure` of both orders, a row each; `speed-up` is the ratio of their tokens a second.

    `backends` are pairs: what answers batches, and what answers one request at a time, which may use
    the machine otherwise. Only the first `num_alone` problems are debated one at a time, which takes
    long. Each backend answers briefly before, so that models are loaded. Raises `ValueError` without
    problems and for fewer than one.
    """
    check_each("backends", backends, tuple)
    check_each("problems", problems, Problem)
    check_config(config)
    check_whole("num_alone", num_alone, 1)
    briefly = config.replace(num_rounds=1, max_tokens=min(config.max_tokens, 16))
    rows = []
    for together, alone in backends:
        for backend in (together, alone):
            measure(backend, problems[:2], briefly)
        with _best_threads(alone, problems[:1], briefly):
            slow = measure(alone, problems[:num_alone], config, one_at_a_time=True)
        fast = measure(together, problems, config)
        rows += [slow | {"speed-up": 1.0}, fast | {"speed-up": fast["tokens/s"] / slow["tokens/s"]}]
    return pd.DataFrame(rows)


@contextmanager
def _best_threads(alone: Backend, problems: Sequence[Problem], config: Config) -> Iterator[None]:
    """Gives PyTorch in this process one thread, where that is faster than all of them."""
    import torch

    before = torch.get_num_threads()
    many = measure(alone, problems, config, one_at_a_time=True)["seconds"]
    torch.set_num_threads(1)
    if measure(alone, problems, config, one_at_a_time=True)["seconds"] > many:
        torch.set_num_threads(before)
    yield
    torch.set_num_threads(before)


def memory_of_agents(full: Society, adapters: Society, dtype: str) -> pd.DataFrame:
    """Bytes of weights in memory to answer as a finetuned society, in three ways, by their files.

    All agents' models at once, as the authors have them; one at a time, swapped; one base with all
    adapters. `full` and `adapters` are finetuned societies, the summarizer is the base model. Raises
    `ValueError` for a model without weights here, as a server's has none.
    """
    for name, society in (("full", full), ("adapters", adapters)):
        check_kind(name, society, Society, ", a finetuned one")
    base = weights_in(full.summarizer.model, dtype)
    models = [weights_in(name, dtype) for name in sorted(_models(full))]
    small = [weights_in(name, dtype) for name in sorted(_models(adapters)) if is_adapter(name)]
    ways = {
        f"{len(models)} full models": sum(models),
        "one model, swapped": max(models),
        f"one model, {len(small)} LoRA adapters": base + sum(small),
    }
    frame = pd.DataFrame({"bytes": pd.Series(ways)})
    return frame.assign(share=frame.bytes / base)


def _models(society: Society) -> set[str]:
    agents = [*society.generators, *society.critics, society.summarizer]
    return {agent.model for agent in agents}


def weights_in(folder: str | Path, dtype: str) -> int:
    """Bytes that a model's safetensors take in memory in `dtype`, from the files' headers.

    `folder` may be a name on the hub. Raises `ValueError` for a model without weights here.
    """
    check_choice("dtype", dtype, tuple(BYTES))
    total = 0
    for path in model_folder(str(folder)).glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        total += sum(math.prod(tensor["shape"]) for tensor in header.values()) * BYTES[dtype]
    if not total:
        raise ValueError(f"{folder} holds no weights: name a model whose safetensors are here.")
    return total
