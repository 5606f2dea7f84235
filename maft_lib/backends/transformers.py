"""The transformers backend: any Hugging Face causal language model, in batches, on CPU or GPU.

Requests are grouped by model, sorted by length and generated in batches of as many rows as fit; on a
CPU the batches run side by side in worker processes of one thread each. In fp32 a response depends on
its own request alone, not on what it is batched with (see `decoding`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from maft_lib.backends import Completion, OnText, Request, Sampling, chunks, hub
from maft_lib.backends.ray import open_cluster
from maft_lib.backends.rendering import Template
from maft_lib.config import Config
from maft_lib.workers import default_num_workers, interrupts_delayed, run_parallel, stream_threads

CPU_BATCH = 100  # rows; more only moves memory about on a CPU
GPU_BATCH = 256  # rows, which are lost at most with a node and its GPU


class ModelRunner:
    """Runs batches of work with Hugging Face models, where and how a config says.

    `num_workers` batches are computed side by side; 0: one after another in this process. With
    `executor: ray` a cluster computes them by `run(function, tasks)`.
    """

    def __init__(self, config: Config, dtype: str | None = None):
        self.run: Callable[..., Iterator[tuple[int, Any]]] | None = None
        if config.executor == "ray":  # nodes may have GPUs that this machine lacks
            cluster = open_cluster(config)
            self.device, self.num_workers, self.run = cluster.device, cluster.num_workers, cluster.run
        else:
            self.device = hub.resolve_device(config.device)
            workers = config.num_workers or default_num_workers()
            self.num_workers = workers if self.device == "cpu" else 0
        self.dtype, self.max_batch_size = dtype or config.dtype, config.max_batch_size
        self.trust, self.template = config.trust_remote_code, Template.of(config)

    def model(self, name: str) -> hub.Model:
        """A model as a worker loads it."""
        content = hub.identity(name, self.trust)
        folder = str(hub.model_folder(name))
        return hub.Model(folder, content, self.dtype, self.device, self.trust, self.template)

    def batches(self, items: Sequence, largest: int) -> list:
        """Batches of at most `largest` items, so that all workers get as many."""
        share = -(-len(items) // max(self.num_workers, 1))
        num = max(1, -(-share // (self.max_batch_size or largest)))
        return chunks(items, max(1, -(-share // num)))

    def compute(self, function: Callable, tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Yields (index of the task, `function(*task)`) as they finish."""
        if self.run:
            return self.run(function, tasks)
        return run_parallel(function, tasks, self.num_workers)


class TransformersBackend(ModelRunner):
    """Answers requests with Hugging Face causal language models."""

    name = "transformers"

    def prompt(self, request: Request) -> str:
        """The request's prompt as its model reads it."""
        return hub.rendered(request, self.trust, self.template)

    def describe(self, request: Request) -> list:
        """Model content, rendered prompt, sampling, seed, precision, device."""
        content, prompt = hub.identity(request.model, self.trust), self.prompt(request)
        return [self.name, content, prompt, *request.drawn(), self.dtype, self.device]

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields completions in any order: each as it ends by the CPU kernel, else batch by batch.

        `on_text` hears what the kernel writes.
        """
        others = yield from self._by_kernel(requests, on_text)
        batches = self._batches(requests, others)
        tasks = [self._task([requests[i] for i in batch]) for batch in batches]
        for position, completions in self.compute(_generate_texts, tasks):
            yield from zip(batches[position], completions)

    def _by_kernel(
        self, requests: Sequence[Request], on_text: OnText | None
    ) -> Generator[tuple[int, Completion], None, list[int]]:
        """What the CPU kernel decodes, in threads; returns the indices of the requests it leaves."""
        indices = list(range(len(requests)))
        if not requests or self.run or (self.device, self.dtype) != ("cpu", "float32"):
            return indices
        try:
            with interrupts_delayed():  # what is half imported cannot be imported again
                from maft_lib.backends.cpu_decoding import SLOTS, compile_kernel, kernels, stream_texts
        except (ImportError, RuntimeError):  # numba is missing, or has no folder for what it compiles
            return indices
        models = {request.model: self.model(request.model) for request in requests}
        known = kernels(list(models.values()), self.num_workers)
        indices = [i for i in indices if known[models[requests[i].model]]]
        num_slots, num_threads = min(SLOTS, self.max_batch_size or SLOTS), max(1, self.num_workers)
        batches = [b for group in self._groups(requests, indices) for b in _dealt(group, num_threads)]
        tasks: list[tuple] = []
        for batch in batches:
            model, *asked = self._task([requests[i] for i in batch])
            weights, ends = known[model]  # type: ignore[misc]  # those of indices are known
            tasks.append((model, weights, ends, *asked, num_slots, on_text is not None))
        if tasks:
            compile_kernel(tasks[0][1])
        for position, (row, said) in stream_threads(stream_texts, tasks, num_threads):
            index = batches[position][row]
            if isinstance(said, Completion):
                yield index, said
            elif on_text:
                on_text(index, said)
        return sorted({*range(len(requests))}.difference(indices))

    def _task(self, requests: Sequence[Request]) -> tuple[hub.Model, list[str], Sampling, list[int]]:
        """Of a batch: model, prompts, sampling and seeds."""
        prompts = [self.prompt(request) for request in requests]
        first, seeds = requests[0], [request.seed for request in requests]
        return self.model(first.model), prompts, first.sampling, seeds

    def _groups(
        self, requests: Sequence[Request], indices: Sequence[int]
    ) -> list[list[tuple[str, int]]]:
        """(prompt, index) of each model and sampling: the longest first, equal prompts side by side."""
        groups: dict[tuple, list[tuple[str, int]]] = {}
        prompts = [(self.prompt(requests[i]), i) for i in indices]
        for prompt, i in sorted(prompts, key=lambda pair: (-len(pair[0]), pair)):
            groups.setdefault((requests[i].model, requests[i].sampling), []).append((prompt, i))
        return list(groups.values())

    def _batches(self, requests: Sequence[Request], indices: Sequence[int]) -> list[list[int]]:
        """The `indices` of each batch: one model and one sampling, alike in length, longest first."""
        largest = CPU_BATCH if self.device == "cpu" else GPU_BATCH
        groups = self._groups(requests, indices)
        batches = [b for group in groups for b in self.batches(group, largest)]
        if self.device == "cpu":  # side by side, the longest first; a GPU keeps to one model at a time
            batches.sort(key=lambda batch: -len(batch[0][0]) * len(batch))
        return [[i for _, i in batch] for batch in batches]


def _dealt(group: Sequence[tuple[str, int]], num: int) -> list[list[int]]:
    """The indices of a group in `num` shares, equal prompts in the same."""
    runs = [[i for _, i in run] for _, run in groupby(group, key=itemgetter(0))]
    shares = [list(chain.from_iterable(runs[k::num])) for k in range(num)]
    return list(filter(None, shares))


def _generate_texts(*task) -> list[Completion]:
    """In the worker PyTorch is imported, with all that belongs to it; its parent need not wait."""
    from maft_lib.backends.decoding import decode

    return decode(*task)
