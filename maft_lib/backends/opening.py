"""Opens the backend that a config names, with the store in front: nothing is generated twice."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence

from maft_lib.backends import Backend, Completion, OnText, Request
from maft_lib.config import Config
from maft_lib.store import Store
from maft_lib.store.files import content_key
from maft_lib.workers import Claims

WRITE_EVERY = 64  # completions a transaction; a killed process loses these and the batches in progress
# What a backend is opened with: configs that differ in nothing else share one.
_SETTINGS = (
    *("backend", "base_model", "runs_dir", "device", "num_workers", "max_batch_size", "executor"),
    *("ray_address", "max_concurrency", "max_retries", "request_timeout", "batch_invariant", "dtype"),
    *("trust_remote_code", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len"),
    *("enable_thinking", "template_date"),
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

        return OpenAIBackend(config)
    if config.backend == "vllm":
        from maft_lib.backends.vllm import VLLMBackend

        return VLLMBackend(config)
    from maft_lib.backends.transformers import TransformersBackend

    return TransformersBackend(config)


class CachedBackend:
    """Answers from `store` what is there, asks `inner` for the rest and stores it as it comes.

    `num_calls` counts the requests that reached `inner`: zero when a notebook is run again.
    """

    def __init__(self, inner: Backend, store: Store):
        self.name, self.inner, self.store = inner.name, inner, store
        self.num_calls = 0
        self._claims, self._counting = Claims(), threading.Lock()

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
                for key, stored in self.store.get(list(wanted)).items():
                    for index in wanted.pop(key):
                        yield index, Completion(**stored, stored=True)
                fresh = {key: wanted.pop(key) for key in list(wanted) if key in mine}
                yield from self._generate(fresh, requests, on_text)
            self._claims.wait(wanted)

    def _generate(
        self, wanted: dict[str, list[int]], requests: Sequence[Request], on_text: OnText | None
    ) -> Generator[tuple[int, Completion], None, None]:
        with self._counting:
            self.num_calls += len(wanted)
        keys, places = list(wanted), list(wanted.values())

        def hear(place: int, text: str) -> None:
            for index in places[place]:
                on_text(index, text)  # type: ignore[misc]

        asked = [requests[indices[0]] for indices in places]
        unwritten: list[tuple[str, dict]] = []
        try:
            for place, completion in self.inner.stream(asked, *([hear] if on_text else [])):
                unwritten.append((keys[place], completion.to_dict()))
                if len(unwritten) >= WRITE_EVERY:
                    self.store.put(unwritten)
                    unwritten = []
                yield from ((index, completion) for index in places[place])
        finally:  # an interrupted run keeps what had come in
            if unwritten:
                self.store.put(unwritten)
