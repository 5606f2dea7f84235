"""Bad answers of a server that speaks OpenAI's protocol, and addresses that lead to none."""

import json

NONE = ["no chat completion", "OPENAI_BASE_URL"]
AGAIN = ["no answer after all retries", "run again later"]
REFUSED = ["the server refuses this"]


def as_json(body):
    """A body as a server sends it."""
    return json.dumps(body).encode()


def choice(**message):
    """A body with one choice."""
    return {"choices": [{"message": message, "finish_reason": "stop"}]}


GOOD = choice(role="assistant", content="2")

# (status, headers, body, words); a body that is no bytes is JSON
ROWS = {
    "nothing": (200, {}, b"", NONE),
    "no content": (204, {}, b"", NONE),
    "HTML": (200, {"Content-Type": "text/html"}, b"<html>gateway</html>", [*NONE, "<html>gateway"]),
    "words": (200, {"Content-Type": "text/plain"}, b"upstream timed out", [*NONE, "upstream"]),
    "half a body": (200, {}, json.dumps(GOOD).encode()[:40], NONE),
    "deep JSON": (200, {}, b"[" * 100_000, NONE),
    "binary": (200, {"Content-Type": "application/octet-stream"}, bytes(range(256)), NONE),
    "UTF-16": (200, {}, json.dumps(GOOD).encode("utf-16"), NONE),
    "null": (200, {}, None, NONE),
    "a number": (200, {}, 5, NONE),
    "text": (200, {}, "Hello.", NONE),
    "a list": (200, {}, [GOOD], NONE),
    "an empty object": (200, {}, {}, NONE),
    "an error with status 200": (200, {}, {"error": {"message": "no credit"}}, [*NONE, "no credit"]),
    "no choices": (200, {}, {"choices": []}, NONE),
    "null choices": (200, {}, {"choices": None}, NONE),
    "choices by number": (200, {}, {"choices": {"0": GOOD["choices"][0]}}, NONE),
    "a null choice": (200, {}, {"choices": [None]}, NONE),
    "a choice of text": (200, {}, {"choices": ["2"]}, NONE),
    "no message": (200, {}, {"choices": [{"text": "2"}]}, NONE),
    "a message of text": (200, {}, {"choices": [{"message": "2"}]}, NONE),
    "a number for words": (200, {}, choice(content=2), NONE),
    "parts for words": (200, {}, choice(content=[{"type": "text", "text": "2"}]), NONE),
    "a mapping for words": (200, {}, choice(content={"text": "2"}), NONE),
    "usage in words": (200, {}, {**GOOD, "usage": {"prompt_tokens": "many"}}, NONE),
    "negative usage": (200, {}, {**GOOD, "usage": {"completion_tokens": -5}}, NONE),
    "infinite usage": (
        200,
        {},
        b'{"usage": {"prompt_tokens": Infinity},' + json.dumps(GOOD)[1:].encode(),
        NONE,
    ),
    "usage as a list": (200, {}, {**GOOD, "usage": [1, 2]}, NONE),
    "another encoding than it says": (200, {"Content-Encoding": "gzip"}, b"{}", AGAIN),
    "less than it announces": (200, {"Content-Length": "9999"}, b"{}", AGAIN),
    "a bad request": (
        400,
        {},
        {"error": {"message": "max_tokens is too large"}},
        [*REFUSED, "max_tokens"],
    ),
    "a bad request in HTML": (400, {"Content-Type": "text/html"}, b"<html>\n400\n</html>", REFUSED),
    "a refused key": (401, {}, {"error": {"message": "sk-secret"}}, ["does not accept OPENAI_API_KEY"]),
    "no money": (402, {}, {"error": {"message": "top up"}}, [*REFUSED, "top up"]),
    "no access": (403, {}, {"error": {"message": "not in your\nregion"}}, ["may not use it", "region"]),
    "no such model": (404, {}, {"error": {"message": "no model"}}, ["not found", "model_name_or_path"]),
    "no such page": (
        404,
        {"Content-Type": "text/html"},
        b"<html>nginx</html>",
        ["not found", "OPENAI_BASE_URL"],
    ),
    "a conflict": (409, {}, {"error": {"message": "busy"}}, [*AGAIN, "busy"]),
    "a prompt too long": (413, {}, {"error": "too large"}, REFUSED),
    "not to be processed": (422, {}, {"detail": [{"msg": "top_p"}]}, REFUSED),
    "too many requests": (429, {}, {"error": {"message": "slow down"}}, [*AGAIN, "max_concurrency"]),
    "too many, until a date": (429, {"Retry-After": "Wed, 21 Oct"}, {"error": None}, AGAIN),
    "a broken server": (500, {}, {"error": {"message": {"nested": "x"}}}, AGAIN),
    "a broken server that is silent": (500, {}, b"", AGAIN),
    "a bad gateway": (502, {"Content-Type": "text/html"}, b"<html>502</html>", AGAIN),
    "unavailable": (503, {"Retry-After": "soon"}, b"unavailable", AGAIN),
    "a status of its own": (599, {}, {}, AGAIN),
}

# The same while somebody listens: bodies of event streams
STREAMS = {
    "no event": (b"", NONE),
    "only the end": (b"data: [DONE]\n\n", [*NONE, "ended before the answer"]),
    "broken JSON": (b"data: {\n\ndata: [DONE]\n\n", [*NONE, "cannot be read"]),
    "a list": (b"data: [1]\n\n", NONE),
    "a chunk of text": (b'data: {"choices": ["2"]}\n\n', [*NONE, "cannot be read"]),
    "a number for words": (
        b'data: {"choices": [{"index": 0, "delta": {"content": 2}, "finish_reason": "stop"}]}\n\n',
        [*NONE, "cannot be read"],
    ),
    "no end": (
        b'data: {"choices": [{"index": 0, "delta": {"content": "2"}}]}\n\n',
        [*NONE, "ended before"],
    ),
    "an error in the middle": (
        b'data: {"error": {"message": "overloaded"}}\n\n',
        [*NONE, "overloaded"],
    ),
}

# (OPENAI_BASE_URL, OPENAI_API_KEY, words)
ADDRESSES = {
    "no protocol": ("localhost:8000/v1", "key", ["does not begin with http"]),
    "another protocol": ("ftp://127.0.0.1/v1", "key", ["does not begin with http"]),
    "no host": ("http:///v1", "key", ["OPENAI_BASE_URL is no address", "http://host:8000/v1"]),
    "no such port": ("http://127.0.0.1:99999/v1", "key", ["OPENAI_BASE_URL", "http://host:8000/v1"]),
    "nobody there": ("http://127.0.0.1:9/v1", "key", AGAIN),
    "no key": ("http://127.0.0.1:9/v1", "", ["OPENAI_API_KEY is not set", "export"]),
    "a key in two lines": ("http://127.0.0.1:9/v1", "key\nkey", ["OPENAI_API_KEY holds spaces"]),
    "a key with an accent": (
        "http://127.0.0.1:9/v1",
        "clé",
        ["OPENAI_API_KEY holds spaces or letters"],
    ),
}
