"""A backend without a model: its answers come from a function or a list. For tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from maft_lib.backends import BackendError, Completion, Request


class ScriptedBackend:
    """Answers each request with `script(request)`, or with the next text of a list.

    `requests` has every request in the order in which they came, unless they are not to be kept. A
    list that is used up raises `BackendError`. Lengths are counted in words.
    """

    name = "scripted"

    def __init__(self, script: Callable[[Request], str] | Sequence[str], keep: bool = True):
        self.requests: list[Request] = []
        self._keep = keep
        self._script = script if callable(script) else None
        self._texts = None if callable(script) else iter(script)

    def describe(self, request: Request) -> list:
        """Model name, messages, sampling and seed."""
        return [
            self.name,
            request.model,
            list(request.messages),
            repr(request.sampling),
            request.seed,
        ]

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Yields the scripted answers in the order of the requests."""
        for index, request in enumerate(requests):
            if self._keep:
                self.requests.append(request)
            text = self._script(request) if self._script else self._next()
            if not isinstance(text, str):
                raise BackendError(f"the script's answer is of type {type(text).__name__}: give text.")
            asked = sum(len(message["content"].split()) for message in request.messages)
            yield index, Completion(text, asked, len(text.split()), "stop")

    def _next(self) -> str:
        try:
            return next(self._texts)  # type: ignore[arg-type]
        except StopIteration:
            message = f"the script ran out of answers after {len(self.requests) - 1} requests."
            raise BackendError(message) from None
