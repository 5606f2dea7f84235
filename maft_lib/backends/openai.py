"""The backend `openai`: chat completions of any server that speaks OpenAI's protocol.

OpenAI's own, vLLM's (`python -m vllm.entrypoints.openai.api_server`) and many others do. The server
renders the chat template and batches; here requests are kept in flight, retried and counted. Knows
neither the server's address nor its key: see `openai_client`.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

from tqdm import tqdm

from maft_lib.backends import BackendError, Completion, OnText, Request
from maft_lib.backends.openai_client import (
    connect,
    pause,
    said,
    scrub,
    served_name,
    server_identity,
    trouble,
)
from maft_lib.events import is_heard
from maft_lib.workers import as_completed, interruptible, raise_if_interrupted

TELL_EVERY = 0.05  # seconds
MOST_CONNECTIONS = 1000  # the SDK's own limit; more requests would time out while they wait for one


class OpenAIBackend:
    """Answers requests by a server's chat completions.

    At most `max_concurrency` requests are in flight; each waits `request_timeout` seconds for its
    answer and is asked again up to `max_retries` times. OPENAI_API_KEY and OPENAI_BASE_URL name the
    server (without the second: OpenAI's). `Request.model` is a name that the server knows, or the
    folder of a checkpoint that a fine-tuning job made (`openai_jobs`).
    """

    name = "openai"
    streams_text = True

    def __init__(
        self,
        max_concurrency: int = 16,
        max_retries: int = 6,
        request_timeout: float = 120.0,
        progress: bool = True,
    ):
        from anyio import Semaphore
        from anyio.from_thread import BlockingPortalProvider

        self.max_retries = max_retries
        self.request_timeout = request_timeout
        self.progress = progress
        # One event loop and one limit for all threads: studies run side by side. The loop has a thread
        # of its own, since in Jupyter this one's is busy with the cell.
        self._event_loop = BlockingPortalProvider()
        self._gate = Semaphore(min(max_concurrency, MOST_CONNECTIONS))

    def describe(self, request: Request) -> list:
        """Server (as a hash), model name, messages, sampling, seed."""
        drawn = request.sampling
        return [
            self.name,
            server_identity(),
            served_name(request.model),
            list(request.messages),
            [drawn.temperature, drawn.top_p, drawn.max_tokens],
            _seed(request),
        ]

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields each completion as it comes; prints progress as a bar, unless `on_text` hears them.

        Once a request has failed for good no further one is begun; those in flight, which are paid
        for, are still yielded. Then `BackendError` says why. Whoever stops early cancels them.
        """
        if not requests:
            return
        import openai

        client = connect(openai.AsyncOpenAI, self.request_timeout, self.max_retries)
        asking = _Asking(client, self._gate, self.max_retries)
        silent = on_text is not None or is_heard() or not self.progress
        drafts = dict.fromkeys(range(len(requests)), "")
        with (
            interruptible(delayed=True),
            tqdm(total=len(requests), desc="responses", leave=False, disable=silent) as bar,
            self._event_loop as loop,
            loop.wrap_async_context_manager(client),
        ):
            futures = {
                loop.start_task_soon(asking.answer, r, on_text and partial(drafts.__setitem__, i)): i
                for i, r in enumerate(requests)
            }
            try:
                for future in _heard(futures, drafts, on_text) if on_text else as_completed(futures):
                    if (completion := future.result()) is not None:
                        bar.update()
                        yield futures[future], completion
            finally:
                for future in futures:
                    future.cancel()
        if asking.num_uncounted:
            warnings.warn(
                f"{asking.num_uncounted} responses came without `usage`: tokens the server does not "
                "report are counted as 0, so costs are too low.",
                stacklevel=2,
            )
        if asking.problems:
            raise BackendError(asking.problems[0])


def _heard(futures: dict[Future, int], drafts: dict[int, str], on_text: OnText) -> Iterator[Future]:
    """Futures as they are done. Meanwhile `on_text` is told what the others have written.

    In the thread that reads the stream, and at a steady pace even when nothing is new: so it can end
    what a silent server keeps waiting.
    """
    left = set(futures)
    while left:
        raise_if_interrupted()
        done, left = wait(left, TELL_EVERY, FIRST_COMPLETED)
        yield from done
        for future in left:
            on_text(futures[future], drafts[futures[future]])


class _Asking:
    """One batch of requests on its way; lives in the event loop."""

    def __init__(self, client: Any, gate: Any, max_retries: int):
        self.client, self.gate, self.max_retries = client, gate, max_retries
        self.problems: list[str] = []
        self.num_uncounted = 0
        self.last = time.perf_counter()

    async def answer(
        self, request: Request, hear: Callable[[str], None] | None = None
    ) -> Completion | None:
        """The completion; None if there is none or another request has failed before.

        `hear` is told the text so far with every chunk of it that the server sends.
        """
        async with self.gate:
            if self.problems:
                return None
            completion = await self._complete(request, hear)
        if completion is None:
            return None
        self.num_uncounted += not completion.num_prompt_tokens
        # The server works on many at once: a completion's share is the time since the one before.
        began, self.last = self.last, time.perf_counter()
        return replace(completion, seconds=self.last - began)

    async def _complete(
        self, request: Request, hear: Callable[[str], None] | None
    ) -> Completion | None:
        """Asks until there is an answer, or until the retries, the SDK's and these, are used up."""
        import anyio

        what, left = f"model {served_name(request.model)}", self.max_retries
        while True:
            try:
                raw = await self._post(request, left, hear is not None)
                body = await gathered(raw, hear) if hear else raw.text
            except Exception as error:  # also of the HTTP client; its traceback would hold the key
                self.problems.append(trouble(error, what).sentence)
                return None
            left -= raw.retries_taken
            completion, whole = read_completion(body)
            if whole or (completion and left <= 0):
                return completion
            if left <= 0:
                self.problems.append(
                    f"{what}: the server answers with no chat completion ({scrub(body)}); check "
                    "that OPENAI_BASE_URL is an address that ends in /v1, or run again later."
                )
                return None
            await anyio.sleep(pause(self.max_retries - left))
            left -= 1

    async def _post(self, request: Request, max_retries: int, in_chunks: bool) -> Any:
        """The raw response, after the SDK's retries: on 408, 409, 429 (Retry-After), 5xx, no answer."""
        client = self.client
        if max_retries < self.max_retries:
            client = client.with_options(max_retries=max_retries)
        drawn, seed = request.sampling, _seed(request)
        return await client.chat.completions.with_raw_response.create(
            model=served_name(request.model),
            messages=list(request.messages),
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            max_tokens=drawn.max_tokens,  # the older name of the two: every server knows it
            **({} if seed is None else {"seed": seed}),
            **({"stream": True, "stream_options": {"include_usage": True}} if in_chunks else {}),
        )


async def gathered(raw: Any, hear: Callable[[str], None]) -> str:
    """The body that an answer in one piece would have had, from an answer in chunks.

    `hear` is told the text so far. What is no whole stream becomes a body that holds no completion, and
    says why; a server that does not stream has sent the body itself.
    """
    import httpx
    import openai

    response = raw.http_response
    if "event-stream" not in response.headers.get("content-type", ""):
        return (await response.aread()).decode(errors="replace")
    message: dict[str, str | None] = {"content": None, "refusal": None}
    reason, usage = None, None
    try:
        async with raw.parse() as chunks:
            async for chunk in chunks:
                usage = chunk.usage.model_dump() if chunk.usage else usage
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                    for name, before in message.items():
                        if (more := getattr(choice.delta, name)) is not None:
                            message[name] = (before or "") + more
                hear(_sendable(message["content"] or message["refusal"] or ""))
    except (httpx.HTTPError, openai.APIError) as error:
        return f"the stream broke off: {said(error)}"
    except (AttributeError, TypeError, ValueError):  # chunks that are none
        return "a stream that cannot be read"
    if reason is None:
        return "the stream ended before the answer did"
    return json.dumps({"choices": [{"message": message, "finish_reason": reason}], "usage": usage})


def _sendable(text: str) -> str:
    """Text without halves of surrogate pairs, which cannot be sent again."""
    return text.encode(errors="replace").decode()


def _seed(request: Request) -> int | None:
    """The seed as it is sent: 31 bits, which servers that keep it in 32 or in a float take as it is.

    Two requests would have to agree in messages *and* in these bits to be answered alike. Nothing is
    drawn at temperature 0, so nothing is sent.
    """
    return request.seed % 2**31 if request.sampling.temperature else None


def read_completion(body: str) -> tuple[Completion | None, bool]:
    """The completion in a response's body, and whether it is whole; None for what holds none.

    An answer that a content filter emptied, that its length used up before its first word, or that is
    empty is an answer, with its finish_reason: the agent said nothing, so it casts no vote, and asking
    again would change what is sampled. One that ends normally with content null is not whole: servers
    under strain send such; if it stays so it is taken as empty, rather than that one of thousands of
    responses ends a study. A refusal is what the model said.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        said, reason = choice["message"], choice.get("finish_reason") or "stop"
        text = said["content"] if said.get("content") is not None else said.get("refusal")
        usage = answer.get("usage") or {}
        read, written = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None, False
    if not isinstance(text, str | None) or min(read, written) < 0:
        return None, False
    whole = text is not None or reason in ("content_filter", "length")
    return Completion(_sendable(text or ""), read, written, str(reason)), whole
