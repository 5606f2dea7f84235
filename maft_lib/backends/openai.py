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
import warnings
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
from maft_lib.config import Config
from maft_lib.events import is_heard
from maft_lib.store.files import content_key
from maft_lib.wording import one_line
from maft_lib.workers import interrupts_delayed, raise_if_interrupted

DEFAULT_URL = "https://api.openai.com/v1"
MODEL_FILE = "openai.json"  # in a checkpoint that a fine-tuning job made: which model that is
TELL_EVERY = 0.05  # seconds
# In how many words servers say that they do not take a field, whatever its value
_NOT_TAKEN = re.compile(
    "unsupported param|not supported|unrecogni[sz]ed|unknown|not permitted|not allowed|unexpected|"
    "cannot both|only one",
    re.IGNORECASE,
)


class OpenAIBackend:
    """Answers requests by a server's chat completions.

    At most `max_concurrency` requests are in flight; each waits `request_timeout` seconds for its
    answer and is asked again up to `max_retries` times. `Request.model` is a name that the server
    knows, or the folder of a checkpoint that a fine-tuning job made. What the server says it does not
    take (a seed, top_p beside temperature) is left out from then on, with a warning.
    """

    name = "openai"

    def __init__(self, config: Config):
        from anyio import Semaphore
        from anyio.from_thread import BlockingPortalProvider

        self.max_retries, self.request_timeout = config.max_retries, config.request_timeout
        thinking = {"chat_template_kwargs": {"enable_thinking": config.enable_thinking}}
        self._extra = {} if config.enable_thinking is None else {"extra_body": thinking}
        self._refused: set[str] = set()  # what the server does not take
        # One event loop and one limit for all threads: studies run side by side. The loop has a thread
        # of its own, since in Jupyter this one's is busy with the cell.
        self._event_loop = BlockingPortalProvider()
        self._gate = Semaphore(config.max_concurrency)

    def describe(self, request: Request) -> list:
        """Server (as a hash), model name, messages, sampling, seed, and whether to think if set."""
        model, messages = served_name(request.model), list(request.messages)
        extra = [self._extra] if self._extra else []
        return [self.name, server_identity(), model, messages, *_drawn(request), *extra]

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
                try:
                    hear = partial(texts.__setitem__, index) if on_text else None
                    return None if failures else await self._answer(client, requests[index], hear)
                except Exception as error:  # its traceback holds the key
                    failures.append(f"model {served_name(requests[index].model)}: {said(error)}")
                    return None

        with (
            interrupts_delayed(),
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

    async def _answer(
        self, client: Any, request: Request, hear: Callable[[str], None] | None
    ) -> Completion:
        """One completion; `hear` is told the text so far with every chunk that the server sends."""
        if hear is None:
            answer = await self._create(client, request)
            (choice, *_), usage = answer.choices, answer.usage
            text, thought, reason = *_said(choice.message), choice.finish_reason
        else:
            text, thought, reason, usage = "", "", None, None
            how = {"stream": True, "stream_options": {"include_usage": True}}
            async for chunk in await self._create(client, request, **how):
                usage = chunk.usage or usage
                for choice in filter(None, chunk.choices or ()):
                    said = _said(choice.delta) if choice.delta else ("", "")
                    text, thought = text + said[0], thought + said[1]
                    reason = choice.finish_reason or reason
                hear(_sendable(text))
            if reason is None:
                raise ValueError("the stream ended before the answer did")
        read, written = (int(usage.prompt_tokens), int(usage.completion_tokens)) if usage else (0, 0)
        # a content filter, or too few tokens for a word, may leave nothing: an answer, but no vote
        return Completion(_sendable(text), read, written, reason or "stop", _sendable(thought))

    async def _create(self, client: Any, request: Request, **how: Any) -> Any:
        """What the server answers, asked without what it does not take."""
        import openai

        (temperature, top_p, max_tokens), seed = _drawn(request)
        how |= {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, **self._extra}
        how |= {"model": served_name(request.model), "messages": list(request.messages)}
        how |= {} if seed is None else {"seed": seed}
        while True:
            sent = {name: value for name, value in how.items() if name not in self._refused}
            if "max_tokens" in self._refused:  # the older name of the two: most servers know it
                sent["max_completion_tokens"] = max_tokens
            try:
                return await client.chat.completions.create(**sent)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = _refused(f"{error} {error.body}", sent)
                if name is None:
                    raise
                if name not in self._refused:  # by another request meanwhile
                    self._refused.add(name)
                    instead = "sent as max_completion_tokens" if name == "max_tokens" else "left out"
                    warnings.warn(f"the server does not take {name}: it is {instead}.", stacklevel=2)


def _refused(words: str, sent: dict) -> str | None:
    """Which field the server does not take, whatever its value, as far as its words tell."""
    if "max_tokens" in sent and "max_completion_tokens" in words:
        return "max_tokens"
    if not _NOT_TAKEN.search(words):
        return None
    named = (name for name in ("seed", "top_p", "stream_options") if re.search(rf"\b{name}\b", words))
    return next((name for name in named if name in sent), None)


def _said(message: Any) -> tuple[str, str]:
    """The text and the thought in a message or a part of one; content may come as a list of parts."""
    content = message.content or getattr(message, "refusal", None) or ""
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
    if isinstance(content, list):
        thought += "".join(_words(part.get("thinking")) for part in content if isinstance(part, dict))
    return _words(content), thought


def _words(content: Any) -> str:
    """The text of content that is a text, or a list of parts with or without texts."""
    if not isinstance(content, list):
        return "" + (content or "")  # nothing but text is one
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)


def _sendable(text: str) -> str:
    """Text without halves of surrogate pairs, which cannot be sent again."""
    return text.encode(errors="replace").decode()


def _drawn(request: Request) -> list:
    """Sampling and seed as they are sent.

    The seed has 31 bits, which servers that keep it in 32 or in a float take as it is: two requests
    would have to agree in messages *and* in these bits to be answered alike.
    """
    sampling, seed = request.drawn()
    return [sampling, None if seed is None else seed % 2**31]


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


ADVICE = {  # by status, or by what the server's words hold
    "quota": "check the plan and billing of your account",
    "context": "lower max_tokens, num_agents or num_rounds",
    403: "check what OPENAI_API_KEY may use",
    404: "check model_name_or_path, and that OPENAI_BASE_URL ends in /v1",
    413: "lower max_tokens, num_agents or num_rounds",
    429: "lower max_concurrency, or run again later, what is finished is kept",
    500: "run again later, what is finished is kept",
    None: "check that OPENAI_BASE_URL is an address that ends in /v1 and that its server runs, or run "
    "again later, what is finished is kept",
}


def said(error: Exception) -> str:
    """What an error of the SDK or the server means and what to do, in one line and without secrets."""
    import openai

    status, body = getattr(error, "status_code", None), getattr(error, "body", None)
    if status == 401:  # the server's words may hold a part of the key
        return "the server does not accept OPENAI_API_KEY: export the key of this server."
    words = body.get("message") if isinstance(body, dict) else None
    words = scrub(str(words or (body if isinstance(body, dict) else error) or type(error).__name__))
    advice = ADVICE.get(500 if status and status >= 500 else status, "")
    advice = next((ADVICE[word] for word in ("quota", "context") if status and word in words), advice)
    if isinstance(error, openai.APITimeoutError):
        advice = "raise request_timeout, or lower max_concurrency"
    refused = status and 400 <= status < 500 and status not in (408, 409, 429)
    what = "the server refuses this" if refused else "no answer after all retries"
    return f"{what} ({words})" + (f": {advice}." if advice else ".")


def scrub(text: str) -> str:
    """Text on one line, of 300 characters at most, with neither key nor address in it."""
    url = urlsplit(_base_url())
    secrets = [os.environ.get("OPENAI_API_KEY", "").strip(), _base_url(), url.netloc, url.hostname]
    for secret in sorted((s for s in (*secrets, url.password) if s), key=len, reverse=True):
        text = text.replace(secret, "***")
    return one_line(re.sub(r"\bsk-[\w*.-]+", "***", text)).rstrip(".")
