"""The transformers backend: any Hugging Face causal language model, in batches, on CPU or GPU.

Requests are grouped by model, sorted by length and generated in batches of as many rows as fit; on a
CPU the batches run side by side in worker processes of one thread each. In fp32 a response depends on
its own request alone, not on what it is batched with (see `decoding`). Text that someone listens to is
decoded in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from maft_lib.backends import Completion, OnText, Request, chunks, hub
from maft_lib.backends.ray import open_cluster
from maft_lib.backends.rendering import USUAL, Template
from maft_lib.config import Config
from maft_lib.workers import default_num_workers, run_parallel

CPU_BATCH = 100  # rows; more only moves memory about on a CPU
GPU_BATCH = 256  # rows, which are lost at most with a node and its GPU


class ModelRunner:
    """Runs batches of work with Hugging Face models.

    `device` is auto, cpu or cuda, `dtype` a floating type of PyTorch, `num_workers` the processes on a
    CPU (None: one per core), `max_batch_size` bounds the rows of a batch. `run(function, tasks)` has
    batches computed elsewhere, `num_workers` side by side. `trust_remote_code` runs a model's own code;
    `template` is what chat templates are given.
    """

    def __init__(
        self,
        device: str = "auto",
        dtype: str = "float32",
        num_workers: int | None = None,
        max_batch_size: int | None = None,
        run: Callable[..., Iterator[tuple[int, Any]]] | None = None,
        trust_remote_code: bool = False,
        template: Template = USUAL,
    ):
        self.device = device if run else hub.resolve_device(device)
        side_by_side = self.device == "cpu" or run
        self.num_workers = (num_workers or default_num_workers()) if side_by_side else 0
        self.dtype, self.max_batch_size, self.run = dtype, max_batch_size, run
        self.trust, self.template = trust_remote_code, template

    @staticmethod
    def settings(config: Config, dtype: str) -> dict[str, Any]:
        """The arguments above by a config; a cluster's nodes may have GPUs that this machine lacks."""
        cluster = open_cluster(config) if config.executor == "ray" else None
        place, run = cluster or config, cluster.run if cluster else None
        how = {"device": place.device, "num_workers": place.num_workers, "run": run, "dtype": dtype}
        more = {"max_batch_size": config.max_batch_size, "trust_remote_code": config.trust_remote_code}
        return how | more | {"template": Template(config.enable_thinking, config.template_date)}

    def model(self, name: str) -> hub.Model:
        """A model as a worker loads it."""
        content = hub.identity(name, self.trust)
        folder = str(hub.model_folder(name))
        return hub.Model(folder, content, self.dtype, self.device, self.trust, self.template)

    def batches(self, items: Sequence, num_workers: int, largest: int) -> list:
        """Batches of at most `largest` items, so that all workers get as many."""
        share = -(-len(items) // max(num_workers, 1))
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
        """Yields completions batch by batch, in any order.

        With `on_text` they are decoded in this process and each is yielded as it ends; what a node of a
        cluster writes is heard when it is whole.
        """
        here = on_text if self.run is None else None
        batches = self._batches(requests, 1 if here else self.num_workers)
        tasks = []
        for batch in batches:
            prompts = [self.prompt(requests[i]) for i in batch]
            first, seeds = requests[batch[0]], [requests[i].seed for i in batch]
            tasks.append((self.model(first.model), prompts, first.sampling, seeds))
        if here is None:
            for position, completions in self.compute(_generate_texts, tasks):
                yield from zip(batches[position], completions)
            return
        from maft_lib.backends.decoding import stream_texts

        for batch, task in zip(batches, tasks):
            hear: OnText = partial(lambda batch, row, text: here(batch[row], text), batch)
            for row, completion in stream_texts(*task, hear):
                yield batch[row], completion

    def _batches(self, requests: Sequence[Request], num_workers: int) -> list[list[int]]:
        """Indices of each batch: one model and one sampling, alike in length, longest first."""
        lengths = [len(self.prompt(request)) for request in requests]
        groups: dict[tuple, list[int]] = {}
        for index in sorted(range(len(requests)), key=lambda i: -lengths[i]):
            groups.setdefault((requests[index].model, requests[index].sampling), []).append(index)
        largest = CPU_BATCH if self.device == "cpu" else GPU_BATCH
        batches = [b for group in groups.values() for b in self.batches(group, num_workers, largest)]
        if self.device == "cpu":  # side by side, the longest first; a GPU keeps to one model at a time
            batches.sort(key=lambda batch: -lengths[batch[0]] * len(batch))
        return batches


def _generate_texts(*task) -> list[Completion]:
    """In the worker PyTorch is imported, with all that belongs to it; its parent need not wait."""
    from maft_lib.backends.decoding import stream_texts

    return [completion for _, completion in sorted(stream_texts(*task), key=itemgetter(0))]
