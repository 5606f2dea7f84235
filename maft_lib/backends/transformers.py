"""The transformers backend: any Hugging Face causal language model, in batches, on CPU or GPU.

Requests are grouped by model, sorted by length and generated in batches of as many rows as fit; on a
CPU the batches run side by side in worker processes of one thread each. In fp32 a response depends on
its own request alone, not on what it is batched with (see `sampling`). Text that someone listens to is
decoded in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from tqdm import tqdm

from maft_lib.backends import Completion, OnText, Request, Sampling, batch_size, chunks, hub
from maft_lib.backends.hub import Model
from maft_lib.backends.rendering import prompt_text
from maft_lib.workers import default_num_workers, run_parallel

Task = tuple[Model, Sequence[str], Sampling, list[int]]  # arguments of `decoding.generate_texts`
CPU_BATCH = 100  # rows; more only moves memory about on a CPU
CLUSTER_BATCH = 256  # rows that are lost at most with a node and its GPU


class TransformersBackend:
    """Answers requests with Hugging Face causal language models.

    `device` is auto, cpu or cuda, `dtype` a floating type of PyTorch, `num_workers` the processes on a
    CPU (None: one per core), `max_batch_size` bounds the rows of a batch (None: as many as fit).
    `trust_remote_code` runs code that comes with a model.
    `run` has batches generated elsewhere, `num_workers` side by side, on its `device`.
    """

    name = "transformers"

    def __init__(
        self,
        device: str = "auto",
        dtype: str = "float32",
        num_workers: int | None = None,
        max_batch_size: int | None = None,
        progress: bool = True,
        run: Callable[..., Iterator[tuple[int, list[Completion]]]] | None = None,
        trust_remote_code: bool = False,
    ):
        self.device = device if run else hub.resolve_device(device)
        self.dtype = dtype
        side_by_side = self.device == "cpu" or run
        self.num_workers = (num_workers or default_num_workers()) if side_by_side else 0
        self.run = run
        self.streams_text = run is None  # what a node of a cluster writes is heard when it is whole
        self.max_batch_size = max_batch_size
        self.progress = progress
        self.trust = trust_remote_code

    def describe(self, request: Request) -> list:
        """Model content, rendered prompt, sampling, seed, engine, precision."""
        drawn = request.sampling
        return [
            self.name,
            hub.identity(request.model, self.trust),
            self._render(request),
            [drawn.temperature, drawn.top_p, drawn.max_tokens],
            request.seed if drawn.temperature else None,  # nothing is drawn at temperature 0
            self.dtype,
            self.device,
        ]

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields completions batch by batch, in any order; prints progress as a bar.

        With `on_text` they are decoded in this process and each is yielded as it ends; no bar is shown.
        """
        if not requests:
            return
        listened = on_text is not None and self.run is None
        prompts = [self._render(request) for request in requests]
        batches = self._batches(requests, prompts, 1 if listened else self.num_workers)
        tasks = [
            self._task([requests[i] for i in batch], [prompts[i] for i in batch]) for batch in batches
        ]
        if on_text is not None and listened:
            yield from _stream_texts(batches, tasks, on_text)
            return
        with tqdm(total=len(requests), desc="responses", leave=False, disable=not self.progress) as bar:
            for position, completions in self._run(tasks):
                bar.update(len(completions))
                yield from zip(batches[position], completions)

    def _run(self, tasks: Sequence[tuple]) -> Iterator[tuple[int, list[Completion]]]:
        if self.run:
            return self.run(_generate_texts, tasks)
        return run_parallel(_generate_texts, tasks, self.num_workers)

    def _render(self, request: Request) -> str:
        tokenizer = hub.load_tokenizer(request.model, trust=self.trust)
        return prompt_text(tokenizer, request.messages)

    def _task(self, requests: Sequence[Request], prompts: Sequence[str]) -> Task:
        """Arguments of `generate_texts` for requests that share a model and its sampling."""
        first = requests[0]
        return self._model(first.model), prompts, first.sampling, [request.seed for request in requests]

    def _model(self, name: str) -> Model:
        folder = str(hub.model_folder(name))
        content = hub.identity(name, self.trust)
        return Model(folder, content, self.dtype, self.device, self.trust)

    def _batches(
        self, requests: Sequence[Request], prompts: Sequence[str], num_workers: int
    ) -> list[list[int]]:
        """Indices of each batch: one model and one sampling, alike in length, longest first."""
        groups: dict[tuple, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault((request.model, request.sampling), []).append(index)
        batches = []
        for indices in groups.values():
            indices.sort(key=lambda i: (-len(prompts[i]), i))
            batches += chunks(indices, self._rows_per_batch(len(indices), num_workers))
        if self.device == "cpu":  # side by side, the longest first; a GPU keeps to one model at a time
            batches.sort(key=lambda batch: -len(prompts[batch[0]]) * len(batch))
        return batches

    def _rows_per_batch(self, num_rows: int, num_workers: int) -> int:
        largest = CPU_BATCH if self.device == "cpu" else CLUSTER_BATCH if self.run else 4096
        return batch_size(num_rows, num_workers, self.max_batch_size or largest)


# In the worker PyTorch is imported, with all that belongs to it; its parent does not wait for that,
# unless it listens.


def _stream_texts(
    batches: Sequence[Sequence[int]], tasks: Sequence[Task], on_text: OnText
) -> Iterator[tuple[int, Completion]]:
    """What the tasks of batches write, one batch after the other, right here."""
    from maft_lib.backends.decoding import stream_texts

    for batch, task in zip(batches, tasks):

        def hear(row: int, text: str, batch: Sequence[int] = batch) -> None:
            on_text(batch[row], text)

        for row, completion in stream_texts(*task, hear):
            yield batch[row], completion


def _generate_texts(*task) -> list[Completion]:
    from maft_lib.backends.decoding import generate_texts

    return generate_texts(*task)
