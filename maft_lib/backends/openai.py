"""The backend `openai`: chat completions of any server that speaks OpenAI's protocol.

OpenAI's own, vLLM's (`python -m vllm.entrypoints.openai.api_server`) and many others do. The server
renders the chat template and batches; the SDK retries and waits. The server's address and key come
from the environment, OPENAI_BASE_URL and OPENAI_API_KEY; nothing kept, printed or raised holds them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from maft_lib.backends import BackendError, Completion, OnText, Request
from maft_lib.events import is_heard
from maft_lib.store.files import content_key
from maft_lib.wording import one_line
from maft_lib.workers import interruptible, raise_if_interrupted

DEFAULT_URL = "https://api.openai.com/v1"
MODEL_FILE = "openai.json"  # in a checkpoint that a fine-tuning job made: which model that is
TELL_EVERY = 0.05  # seconds


class OpenAIBackend:
    """Answers requests by a server's chat completions.

    At most `max_concurrency` requests are in flight; each waits `request_timeout` seconds for its
    answer and is asked again up to `max_retries` times. `Request.model` is a name that the server
    knows, or the folder of a checkpoint that a fine-tuning job made.
    """

    name = "openai"
    streams_text = True

    def __init__(
        self,
        max_concurrency: int = 16,
        max_retries: int = 6,
        request_timeout: float = 120.0,
    ):
        from anyio import Semaphore
        from anyio.from_thread import BlockingPortalProvider

        self.max_retries, self.request_timeout = max_retries, request_timeout
        # One event loop and one limit for all threads: studies run side by side. The loop has a thread
        # of its own, since in Jupyter this one's is busy with the cell.
        self._event_loop = BlockingPortalProvider()
        self._gate = Semaphore(max_concurrency)

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
        """Yields each completion as it comes; shows a bar, unless somebody listens.

        Once a request has failed for good no further one is begun; those in flight, which are paid
        for, are still yielded. Then `BackendError` says why. Whoever stops early cancels them.
        """
        import openai

        client = connect(openai.AsyncOpenAI, self.request_timeout, self.max_retries)
        texts = dict.fromkeys(range(len(requests)), "")  # so far
        failures: list[str] = []
        silent, last = on_text is not None or is_heard(), time.perf_counter()

        async def answer(index: int) -> Completion | None:
            async with self._gate:
                if failures:
                    return None
                try:
                    hear = partial(texts.__setitem__, index) if on_text else None
                    return await _answer(client, requests[index], hear)
                except Exception as error:  # its traceback holds the key
                    failures.append(f"model {served_name(requests[index].model)}: {said(error)}")
                    return None

        with (
            interruptible(delayed=True),
            tqdm(total=len(requests), desc="responses", leave=False, disable=silent) as bar,
            self._event_loop as loop,
            loop.wrap_async_context_manager(client),
        ):
            futures: dict[Future[Completion | None], int] = {}
            futures = {loop.start_task_soon(answer, i): i for i in range(len(requests))}
            left = set(futures)
            try:
                while left:
                    raise_if_interrupted()
                    done, left = wait(left, TELL_EVERY, FIRST_COMPLETED)
                    for future in done:
                        if (completion := future.result()) is not None:
                            bar.update()
                            now = time.perf_counter()
                            yield futures[future], replace(completion, seconds=now - last)
                            last = now
                    if on_text:  # also while the server is silent
                        for future in left:
                            on_text(futures[future], texts[futures[future]])
            finally:
                for future in futures:
                    future.cancel()
        if failures:
            raise BackendError(failures[0])


async def _answer(client: Any, request: Request, hear: Callable[[str], None] | None) -> Completion:
    """One completion; `hear` is told the text so far with every chunk of it that the server sends."""
    drawn, seed = request.sampling, _seed(request)
    asked = {
        "model": served_name(request.model),
        "messages": list(request.messages),
        "temperature": drawn.temperature,
        "top_p": drawn.top_p,
        "max_tokens": drawn.max_tokens,  # the older name of the two: every server knows it
        **({} if seed is None else {"seed": seed}),
    }
    create = client.chat.completions.create
    if hear is None:
        answer = await create(**asked)
        (choice, *_), usage = answer.choices, answer.usage
        text, reason = choice.message.content, choice.finish_reason
        text = text or getattr(choice.message, "refusal", None)
    else:
        text, reason, usage = "", None, None
        async for chunk in await create(**asked, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or getattr(choice.delta, "refusal", None) or ""
                reason = choice.finish_reason or reason
            hear(_sendable(text))
        if reason is None:
            raise ValueError("the stream ended before the answer did")
    read, written = (int(usage.prompt_tokens), int(usage.completion_tokens)) if usage else (0, 0)
    # a content filter, or too few tokens for the first word, may leave nothing: an answer, but no vote
    return Completion(_sendable(text or ""), read, written, reason or "stop")


def _sendable(text: str) -> str:
    """Text without halves of surrogate pairs, which cannot be sent again."""
    return text.encode(errors="replace").decode()


def _seed(request: Request) -> int | None:
    """The seed as it is sent: 31 bits, which servers that keep it in 32 or in a float take as it is.

    Two requests would have to agree in messages *and* in these bits to be answered alike. Nothing is
    drawn at temperature 0, so nothing is sent.
    """
    return request.seed % 2**31 if request.sampling.temperature else None


def connect(client_class: Any, timeout: float, max_retries: int) -> Any:
    """A client of the SDK, `openai.OpenAI` or `openai.AsyncOpenAI`; `timeout` is in seconds."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise BackendError(
            "OPENAI_API_KEY is not set to a key: export it before Python starts (a server of your own "
            "that asks for none takes any word)."
        )
    for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2"):  # these log addresses
        logging.getLogger(name).setLevel(max(logging.getLogger(name).level, logging.WARNING))
    how = {"api_key": key, "timeout": timeout, "max_retries": max_retries}
    with suppress(Exception):  # the HTTP client's error quotes the address
        if _base_url().startswith(("http://", "https://")):
            return client_class(base_url=_base_url(), **how)
    raise BackendError("OPENAI_BASE_URL is no address: write it like http://host:8000/v1.")


def _base_url() -> str:
    return os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/") or DEFAULT_URL


def server_identity() -> str:
    """sha256 of the server's address: tells servers apart in the store without naming them."""
    return content_key(_base_url())


@lru_cache(maxsize=1024)  # every request asks, and a checkpoint never changes
def served_name(model: str) -> str:
    """The name by which the server knows a model: what a checkpoint's job made, else `model` itself."""
    file = Path(model) / MODEL_FILE
    return str(json.loads(file.read_text(encoding="utf-8"))["model"]) if file.is_file() else model


def said(error: Exception) -> str:
    """What an error of the SDK or the server means, in one line and without secrets."""
    status = getattr(error, "status_code", 0)
    if status == 401:  # the server's words may hold a part of the key
        return "the server does not accept OPENAI_API_KEY: export the key of this server."
    body = getattr(error, "body", None)
    words = body.get("message") if isinstance(body, dict) else None
    words = scrub(str(words or error or type(error).__name__))
    if 400 <= status < 500 and status not in (408, 409, 429):
        return f"the server refuses this ({words})."
    return (
        f"no answer after all retries ({words}): check that OPENAI_BASE_URL is an address that ends in "
        "/v1, or run again later, what is finished is kept."
    )


def scrub(text: str) -> str:
    """Text on one line, of 300 characters at most, with neither key nor address in it."""
    url = urlsplit(_base_url())
    secrets = [os.environ.get("OPENAI_API_KEY", "").strip(), _base_url(), url.netloc, url.hostname]
    for secret in sorted((s for s in (*secrets, url.password) if s), key=len, reverse=True):
        text = text.replace(secret, "***")
    return one_line(re.sub(r"\bsk-[\w*.-]+", "***", text)).rstrip(".")
