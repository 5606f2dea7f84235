"""Opens the backend that a config names, with the store in front: nothing is generated twice."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

from maft_lib.backends import Backend, Completion, OnText, Request
from maft_lib.config import Config
from maft_lib.store import Store
from maft_lib.store.files import content_key
from maft_lib.workers import Claims

WRITE_EVERY = 64  # completions a transaction; a killed process loses these and the batches in progress
# What a backend is opened with: configs that differ in nothing else share one.
_SETTINGS = (
    *("backend", "base_model", "trust_remote_code", "runs_dir", "device", "dtype", "num_workers"),
    *("max_batch_size", "executor", "ray_address", "tensor_parallel_size", "gpu_memory_utilization"),
    *("max_model_len", "max_concurrency", "max_retries", "request_timeout"),
)
_opened: dict[tuple, CachedBackend] = {}


def open_backend(config: Config) -> CachedBackend:
    """The config's backend with its store in front; the same one for the same settings."""
    key = tuple(getattr(config, name) for name in _SETTINGS)
    if key not in _opened:
        _opened[key] = CachedBackend(bare_backend(config), Store(config.path(config.runs_dir)))
    return _opened[key]


def bare_backend(config: Config) -> Backend:
    """The backend without a store; each imports its libraries when it is opened."""
    if config.backend == "openai":
        from maft_lib.backends.openai import OpenAIBackend

        return OpenAIBackend(config.max_concurrency, config.max_retries, config.request_timeout)
    cluster = None
    if config.executor == "ray":
        from maft_lib.backends.ray import open_cluster

        cluster = open_cluster(config)
    run = cluster.run if cluster else None
    if config.backend == "vllm":
        from maft_lib.backends.vllm import Settings, VLLMBackend

        settings = Settings(*(getattr(config, name) for name in Settings._fields))
        return VLLMBackend(settings, config.lora_rank, run)
    from maft_lib.backends.transformers import TransformersBackend

    place = cluster or config  # a cluster's nodes may have GPUs where this machine has none
    how = (place.device, config.dtype, place.num_workers, config.max_batch_size)
    return TransformersBackend(*how, run, config.trust_remote_code)


class CachedBackend:
    """Answers from `store` what is there, asks `inner` for the rest and stores it as it comes.

    `num_calls` counts the requests that reached `inner`: zero when a notebook is run again.
    """

    def __init__(self, inner: Backend, store: Store):
        self.name = inner.name
        self.inner = inner
        self.store = store
        self.num_calls = 0
        self._claims = Claims()
        self._counting = threading.Lock()

    def describe(self, request: Request) -> list:
        """The inner backend's description: what is stored is what it said."""
        return self.inner.describe(request)

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields stored completions first, then new ones as they finish; `on_text` hears these grow.

        What another thread is having generated is waited for, not generated again.
        """
        wanted: dict[str, list[int]] = {}  # equal requests are asked once
        for index, request in enumerate(requests):
            wanted.setdefault(content_key(self.inner.describe(request)), []).append(index)
        while wanted:
            with self._claims.claim(wanted) as mine:
                found = self.store.get(list(wanted))
                for key, stored in found.items():
                    yield from ((i, Completion(**stored, stored=True)) for i in wanted[key])
                missing = {key: places for key, places in wanted.items() if key not in found}
                places = [missing[key] for key in missing if key in mine]
                keys = [key for key in missing if key in mine]
                with self._counting:
                    self.num_calls += len(keys)
                for place, completion in self._generate(keys, places, requests, on_text):
                    yield from ((i, completion) for i in places[place])
            wanted = {key: places for key, places in missing.items() if key not in mine}
            self._claims.wait(wanted)

    def _generate(
        self,
        keys: Sequence[str],
        places: Sequence[list[int]],
        requests: Sequence[Request],
        on_text: OnText | None,
    ) -> Iterator[tuple[int, Completion]]:
        def hear(place: int, text: str) -> None:
            for index in places[place]:
                if on_text:
                    on_text(index, text)

        asked = [requests[indices[0]] for indices in places]
        unwritten: list[tuple[str, dict]] = []
        try:
            stream = self.inner.stream(asked, hear) if on_text else self.inner.stream(asked)
            for place, completion in stream:
                unwritten.append((keys[place], completion.to_dict()))
                if len(unwritten) >= WRITE_EVERY:
                    self.store.put(unwritten)
                    unwritten = []
                yield place, completion
        finally:  # an interrupted run keeps what had come in
            if unwritten:
                self.store.put(unwritten)
