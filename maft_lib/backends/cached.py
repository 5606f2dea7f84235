"""Puts the store in front of a backend: what was generated once is never generated again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maft_lib.backends import Backend, Completion, Request
from maft_lib.prompts import Message
from maft_lib.store import Store, content_key

WRITE_EVERY = 64  # completions a transaction; a killed process loses these and the batches in progress


class CachedBackend:
    """Answers from `store` what is there, asks `inner` for the rest and stores it as it comes.

    `num_calls` counts the requests that reached `inner`: zero when a notebook is run again.
    """

    def __init__(self, inner: Backend, store: Store):
        self.name = inner.name
        self.inner = inner
        self.store = store
        self.num_calls = 0

    def describe(self, request: Request) -> list:
        """The inner backend's description: what is stored is what it said."""
        return self.inner.describe(request)

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Yields stored completions first, then new ones as they finish."""
        keys = [content_key(self.inner.describe(request)) for request in requests]
        found = self.store.get(list(dict.fromkeys(keys)))
        waiting: dict[str, list[int]] = {}  # equal requests are asked once
        for index, key in enumerate(keys):
            if key in found:
                yield index, Completion(**found[key])
            else:
                waiting.setdefault(key, []).append(index)
        firsts = [indices[0] for indices in waiting.values()]
        self.num_calls += len(firsts)
        for key, completion in self._generate_and_store(requests, keys, firsts):
            for index in waiting[key]:
                yield index, completion

    def _generate_and_store(
        self, requests: Sequence[Request], keys: Sequence[str], wanted: Sequence[int]
    ) -> Iterator[tuple[str, Completion]]:
        unwritten: list[tuple[str, dict]] = []
        try:
            for position, completion in self.inner.stream([requests[i] for i in wanted]):
                key = keys[wanted[position]]
                unwritten.append((key, completion.to_dict()))
                if len(unwritten) >= WRITE_EVERY:
                    self.store.put(unwritten)
                    unwritten = []
                yield key, completion
        finally:  # an interrupted run keeps what had come in
            if unwritten:
                self.store.put(unwritten)

    def log_likelihoods(
        self, model: str, conversations: Sequence[Sequence[Message]]
    ) -> list[list[float]]:
        """Scores by the inner backend; they are cheap and not stored."""
        return self.inner.log_likelihoods(model, conversations)
