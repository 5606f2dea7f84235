"""The way to a server that speaks OpenAI's protocol: its address, its key, and what its errors mean.

Both come from the environment, OPENAI_BASE_URL and OPENAI_API_KEY. They are read where they are used,
and nothing that is kept, printed, logged or raised holds them. Knows no requests and no jobs.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from maft_lib.backends import BackendError
from maft_lib.store.files import content_key
from maft_lib.wording import one_line

DEFAULT_URL = "https://api.openai.com/v1"
NO_ADDRESS = "OPENAI_BASE_URL is no address of a server: write it like http://host:8000/v1."
MODEL_FILE = "openai.json"  # in a checkpoint that a fine-tuning job made: which model that is
# At these levels the SDK and its HTTP client (httpx, httpx2 from SDK 3 on) log addresses.
_LOGGERS = ("openai", "httpx", "httpcore", "httpx2", "httpcore2")


def _base_url() -> str:
    return os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/") or DEFAULT_URL


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


def server_identity() -> str:
    """sha256 of the server's address: tells servers apart in the store without naming them."""
    return content_key(_base_url())


def connect(client_class: Any, timeout: float, max_retries: int) -> Any:
    """A client of the SDK, `openai.OpenAI` or `openai.AsyncOpenAI`; `timeout` is in seconds.

    Raises `BackendError` if the key is missing or the address is none.
    """
    _check_environment()
    for logger in map(logging.getLogger, _LOGGERS):
        logger.setLevel(max(logger.level, logging.WARNING))
    with suppress(Exception):  # an address that cannot be parsed, in the words of the HTTP client
        return client_class(
            api_key=_key(), base_url=_base_url(), timeout=timeout, max_retries=max_retries
        )
    raise BackendError(NO_ADDRESS)


def _check_environment() -> None:
    if not _key():
        raise BackendError(
            "OPENAI_API_KEY is not set: export the key of the server before Python starts (a server of "
            "your own that asks for none takes any word)."
        )
    if not re.fullmatch(r"[!-~]+", _key()):
        raise BackendError("OPENAI_API_KEY holds spaces or letters that no key has: export it again.")
    if not _base_url().startswith(("http://", "https://")):
        raise BackendError(
            "OPENAI_BASE_URL does not begin with http:// or https://: write it like http://host:8000/v1."
        )
    if not _names_a_server(_base_url()):
        raise BackendError(NO_ADDRESS)


def _names_a_server(url: str) -> bool:
    """Whether there is a host in an address, and no port that cannot be."""
    try:
        return bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        return False


@lru_cache(maxsize=1024)  # every request asks, and a checkpoint never changes
def served_name(model: str) -> str:
    """The name by which the server knows a model: what a checkpoint's job made, else `model` itself."""
    file = Path(model) / MODEL_FILE
    if not os.path.isfile(file):
        return model
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise BackendError(f"{file} is damaged: delete the folder that it is in, and run again.")


def pause(retries: int) -> float:
    """Seconds before the next try: doubled each time up to half a minute, a quarter of it by chance."""
    return min(30.0, 0.5 * 2 ** min(retries, 10)) * random.uniform(0.75, 1.0)


class Trouble(NamedTuple):
    """What went wrong, without the error itself, which holds the key: a sentence, whether the same may
    succeed later, and how many seconds the server asks to wait."""

    sentence: str
    passing: bool
    seconds: float


def trouble(error: Exception, what: str) -> Trouble:
    """An error of the SDK or the HTTP client: what was asked for, what the server said, what to do."""
    status, words = getattr(error, "status_code", 0), said(error)
    passing = not 400 <= status < 500 or status in (408, 409, 429)
    if status == 401:  # its words may hold a part of the key
        advice = "the server does not accept OPENAI_API_KEY; export the key of this server."
    elif status == 403:
        advice = f"this key may not use it ({words}); ask for access or name another model."
    elif status == 404:
        advice = (
            f"not found on the server ({words}); name a model that it has as model_name_or_path, or "
            "export the OPENAI_BASE_URL and OPENAI_API_KEY that this one belongs to."
        )
    elif passing:
        advice = (
            f"no answer after all retries ({words}); run again later, what is finished is kept, or "
            "change max_retries, request_timeout or max_concurrency."
        )
    else:
        advice = f"the server refuses this ({words}); change what it names and run again."
    return Trouble(f"{what}: {advice}", passing, _retry_after(error))


def _retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait, two minutes at most; 0 if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return min(120.0, float(headers.get("retry-after", 0)))
    except ValueError:  # a date
        return 0.0


def said(error: Exception) -> str:
    """What the server or the SDK says of an error, on one line and without secrets."""
    body = getattr(error, "body", None)
    words = body.get("message") if isinstance(body, dict) else None
    return scrub(str(words or getattr(error, "message", "") or type(error).__name__))


def scrub(text: str) -> str:
    """Text on one line, of 300 characters at most, with neither key nor address in it."""
    url = urlsplit(_base_url())
    secrets = [_key(), _base_url(), url.netloc, url.hostname, url.password]
    for secret in sorted({s for s in secrets if s and len(s) > 3}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return one_line(re.sub(r"\bsk-[\w*.-]+", "***", text)).rstrip(".")
