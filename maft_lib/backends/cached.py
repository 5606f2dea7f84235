"""Puts the store in front of a backend: what was generated once is never generated again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence

from maft_lib.backends import Backend, Completion, OnText, Request, open_stream
from maft_lib.disk import content_key
from maft_lib.store import Store
from maft_lib.workers import Claims

WRITE_EVERY = 64  # completions a transaction; a killed process loses these and the batches in progress


class CachedBackend:
    """Answers from `store` what is there, asks `inner` for the rest and stores it as it comes.

    `num_calls` counts the requests that reached `inner`: zero when a notebook is run again.
    """

    streams_text = True  # as far as `inner` does

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
        keys = [content_key(self.inner.describe(request)) for request in requests]
        indices: dict[str, list[int]] = {}  # equal requests are asked once
        for index, key in enumerate(keys):
            indices.setdefault(key, []).append(index)
        found = self.store.get(list(indices))
        for key, stored in found.items():
            yield from ((index, Completion(**stored, stored=True)) for index in indices[key])
        missing = [key for key in indices if key not in found]

        def heard(key: str, text: str) -> None:
            if on_text is not None:
                for index in indices[key]:
                    on_text(index, text)

        hear = heard if on_text else None
        with self._claims.making(missing) as mine:
            firsts = {key: requests[indices[key][0]] for key in missing if key in mine}
            for key, completion in self._answer(firsts, hear):
                yield from ((index, completion) for index in indices[key])
        others = {key: requests[indices[key][0]] for key in missing if key not in mine}
        self._claims.wait(others)
        for key, completion in self._answer(others, hear):
            yield from ((index, completion) for index in indices[key])

    def _answer(
        self, wanted: dict[str, Request], hear: Callable[[str, str], None] | None
    ) -> Iterator[tuple[str, Completion]]:
        """From the store what another thread has put there meanwhile, the rest from `inner`."""
        found = self.store.get(list(wanted))
        yield from ((key, Completion(**stored, stored=True)) for key, stored in found.items())
        left = {key: request for key, request in wanted.items() if key not in found}
        with self._counting:
            self.num_calls += len(left)
        keys = list(left)
        on_text = (lambda place, text: hear(keys[place], text)) if hear else None
        yield from self._generate_and_store(keys, list(left.values()), on_text)

    def _generate_and_store(
        self, keys: Sequence[str], requests: Sequence[Request], on_text: OnText | None
    ) -> Iterator[tuple[str, Completion]]:
        unwritten: list[tuple[str, dict]] = []
        try:
            for position, completion in open_stream(self.inner, requests, on_text):
                unwritten.append((keys[position], completion.to_dict()))
                if len(unwritten) >= WRITE_EVERY:
                    self.store.put(unwritten)
                    unwritten = []
                yield keys[position], completion
        finally:  # an interrupted run keeps what had come in
            if unwritten:
                self.store.put(unwritten)
