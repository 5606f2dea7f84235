"""A backend without a model: its answers come from a function or a list."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from maft_lib.backends import BackendError, Completion, OnText, Request


class ScriptedBackend:
    """Answers each request with `script(request)`, or with the next text or completion of a list.

    `requests` has every request in the order in which they came. A list that is used up raises
    `BackendError`. Lengths are counted in words.
    """

    name = "scripted"

    def __init__(self, script: Callable[[Request], str | Completion] | Sequence[str | Completion]):
        self.requests: list[Request] = []
        texts = iter(()) if callable(script) else iter(script)
        self._script = script if callable(script) else lambda request: next(texts)

    def describe(self, request: Request) -> list:
        """Model name, messages, sampling and seed."""
        drawn = repr(request.sampling)
        return [self.name, request.model, list(request.messages), drawn, request.seed]

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields the scripted answers in the order of the requests."""
        for index, request in enumerate(requests):
            self.requests.append(request)
            try:
                said = self._script(request)
            except StopIteration:
                raise BackendError("the script ran out of answers.") from None
            if isinstance(said, str):
                asked = sum(len(message["content"].split()) for message in request.messages)
                said = Completion(said, asked, len(said.split()), "stop")
            yield index, said
